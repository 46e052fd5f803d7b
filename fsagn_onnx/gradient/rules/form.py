"""What moves numbers and keeps them: shapes, parts, joins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent


@gradient_rule("Reshape", "Flatten", "Squeeze", "Unsqueeze", inputs=(0,), ignored=(1,), narrow=True)
def _reshape(step: BackwardStep) -> dict[int, Cotangent | str]:
    kept = _same_axes(step)
    if kept is None:
        return {0: step.forward.reshaped(step.full(step.d, step.shape_out()), step.shape())}
    once = tuple(1 if axis in kept else size for axis, size in enumerate(step.shape()))
    return {0: Cotangent(step.forward.reshaped(step.d.value, once), kept)}


def _same_axes(step: BackwardStep) -> frozenset[int] | None:
    """The axes of the input that make up the narrow axes of the output; None where there are no such axes."""
    before, after = step.shape(), step.shape_out()
    found: set[int] = set()
    at, start = 0, 0
    for axis, size in enumerate(after):
        if size == 1:
            continue
        start = at
        product = 1
        while product != size and at < len(before) and abs(product) < abs(size):
            product *= before[at]
            at += 1
        if product != size:
            return None
        if axis in step.d.narrow:
            found.update(index for index in range(start, at) if before[index] != 1)
    return frozenset(found)


@gradient_rule("Transpose", narrow=True)
def _transpose(step: BackwardStep) -> dict[int, Cotangent]:
    rank = len(step.shape())
    order = step.attribute("perm", list(range(rank))[::-1])
    value = step.op("Transpose", step.d.value, perm=[int(axis) for axis in np.argsort(order)])
    return {0: Cotangent(value, frozenset(order[axis] for axis in step.d.narrow))}


@gradient_rule("Expand", inputs=(0,), ignored=(1,), narrow=True)
def _expand(step: BackwardStep) -> dict[int, Cotangent]:
    return {0: step.unbroadcast(step.d, step.shape_out(), step.shape())}


@gradient_rule("Tile", inputs=(0,), ignored=(1,))
def _tile(step: BackwardStep) -> dict[int, str]:
    apart: list[int] = []
    for size, large in zip(step.shape(), step.shape_out(), strict=True):
        apart += [1 if size == 0 else large // size, size]
    value = step.forward.reshaped(step.d.value, tuple(apart))
    repeated = [axis for axis in range(0, len(apart), 2) if apart[axis] != 1]
    return {0: step.forward.reshaped(step.write.sum(value, repeated), step.shape())}


@gradient_rule("Concat")
def _concat(step: BackwardStep) -> dict[int, str]:
    axis = step.attribute("axis", 0) % len(step.shape_out())
    sizes = [step.shape(index)[axis] for index in range(len(step.node.input))]
    if any(size < 0 for size in sizes):
        raise step.refuse("it joins along the images")
    ends = np.cumsum([0, *sizes]).tolist()
    return {index: step.write.slice(step.d.value, axis, ends[index], ends[index + 1]) for index in step.wanted}


@gradient_rule("Split", inputs=(0,), ignored=(1,))
def _split(step: BackwardStep) -> dict[int, str]:
    rank = len(step.shape())
    axis = step.attribute("axis", 0) % rank
    ends = np.cumsum([0, *(step.shape_out(index)[axis] for index in range(len(step.node.output)))]).tolist()
    parts = [(given.value, *span) for given, span in zip(step.cotangents, pairwise(ends), strict=True) if given]
    if len(parts) == len(step.cotangents):
        return {0: step.op("Concat", *(value for value, _, _ in parts), axis=axis) if len(parts) > 1 else parts[0][0]}
    whole = ""
    for value, start, end in parts:
        piece = _placed(step, value, axis, start, step.shape()[axis] - end)
        whole = step.op("Add", whole, piece) if whole else piece
    return {0: whole}


def _placed(step: BackwardStep, value: str, axis: int, before: int, behind: int) -> str:
    """A value with zeros before and behind along an axis."""
    rank = len(step.shape())
    pads = [0] * 2 * rank
    pads[axis], pads[axis + rank] = before, behind
    return step.op("Pad", value, step.write.constant(pads)) if before or behind else value


@gradient_rule("Slice", inputs=(0,), ignored=(1, 2, 3, 4))
def _slice(step: BackwardStep) -> dict[int, str]:
    shape, rank = step.shape(), len(step.shape())
    starts, ends = step.whole(1, "starts", []) or [], step.whole(2, "ends", []) or []
    axes = step.whole(3, "axes", list(range(len(starts)))) or []
    strides = step.whole(4, "", [1] * len(starts)) or []
    value, now = step.d.value, list(step.shape_out())
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=True):
        axis %= rank
        if shape[axis] < 0:
            if now[axis] != shape[axis]:
                raise step.refuse("it takes some of the images")
            continue
        cells = range(shape[axis])[start:end:stride]
        if stride == 1:
            value = _placed(step, value, axis, cells.start, shape[axis] - cells.stop) if len(cells) else value
        else:
            value = step.along(value, tuple(now), {axis: np.eye(shape[axis])[list(cells)]})
        now[axis] = shape[axis]
    return {0: value}


@gradient_rule("Gather", inputs=(0,), ignored=(1,))
def _gather(step: BackwardStep) -> dict[int, str]:
    """Zeros everywhere but at the indices, where the cotangent is added."""
    shape = step.shape()
    axis = step.attribute("axis", 0) % len(shape)
    indices = step.array(1)
    if indices is None or shape[axis] < 0:
        raise step.refuse("indices that are not constant")
    cells = [int(index) % shape[axis] for index in indices.ravel()]
    flat = (*shape[:axis], len(cells), *shape[axis + 1 :])
    value = step.d.value if indices.ndim == 1 else step.forward.reshaped(step.d.value, flat)
    if cells == list(range(cells[0], cells[0] + len(cells))):
        return {0: _placed(step, value, axis, cells[0], shape[axis] - cells[-1] - 1)}
    if sorted(cells) == list(range(shape[axis])):
        return {0: step.op("Gather", value, step.write.constant(np.argsort(cells).astype(np.int64)), axis=axis)}
    return {0: step.along(value, flat, {axis: np.eye(shape[axis])[cells]})}


@gradient_rule("GatherElements", inputs=(0,), ignored=(1,))
def _gather_elements(step: BackwardStep) -> dict[int, str]:
    if step.opset < 16:
        raise step.refuse("it needs opset 16")
    zeros = step.op("Expand", step.number(0), step.forward.sizes(step.shape()))
    axis = step.attribute("axis", 0)
    return {0: step.op("ScatterElements", zeros, step.x(1), step.d.value, axis=axis, reduction="add")}


@gradient_rule("GatherND", inputs=(0,), ignored=(1,))
def _gather_nd(step: BackwardStep) -> dict[int, str]:
    if step.opset < 16 or step.attribute("batch_dims", 0):
        raise step.refuse("batch_dims, or an opset before 16")
    zeros = step.op("Expand", step.number(0), step.forward.sizes(step.shape()))
    return {0: step.op("ScatterND", zeros, step.x(1), step.d.value, reduction="add")}


@gradient_rule("ScatterND", "ScatterElements", inputs=(0, 2), ignored=(1,))
def _scatter(step: BackwardStep) -> dict[int, str]:
    """What was written over has no gradient; what was written has that of its place."""
    if step.attribute("reduction", "none") not in ("none", "add"):
        raise step.refuse("a reduction")
    found, elements = {}, step.node.op_type == "ScatterElements"
    along = {"axis": step.attribute("axis", 0)} if elements else {}
    if 0 in step.wanted:
        found[0] = step.d.value
        if step.attribute("reduction", "none") == "none":
            zeros = step.op("Expand", step.number(0), step.forward.sizes(step.shape(2)))
            found[0] = step.op(step.node.op_type, step.d.value, step.x(1), zeros, **along)
    if 2 in step.wanted:
        found[2] = step.op("GatherElements" if elements else "GatherND", step.d.value, step.x(1), **along)
    return found


@gradient_rule("TopK", inputs=(0,), ignored=(1,))
def _top(step: BackwardStep) -> dict[int, str]:
    zeros = step.op("Expand", step.number(0), step.forward.sizes(step.shape()))
    return {0: step.op("ScatterElements", zeros, step.y(1), step.d.value, axis=step.attribute("axis", -1))}


@gradient_rule("CumSum", inputs=(0,), ignored=(1,))
def _cumulated(step: BackwardStep) -> dict[int, str]:
    turned = 1 - step.attribute("reverse", 0)
    exclusive = step.attribute("exclusive", 0)
    return {0: step.op("CumSum", step.d.value, step.x(1), reverse=turned, exclusive=exclusive)}


@gradient_rule("Trilu", inputs=(0,), ignored=(1,))
def _triangle(step: BackwardStep) -> dict[int, str]:
    more = [step.x(1)] if step.has(1) else []
    return {0: step.op("Trilu", step.d.value, *more, upper=step.attribute("upper", 1))}


@gradient_rule("DepthToSpace")
def _depth_to_space(step: BackwardStep) -> dict[int, str]:
    shape, block = step.shape(), step.attribute("blocksize", 1)
    batch, channels, rows, columns = shape
    inner = channels // block**2
    apart = (batch, inner, rows, block, columns, block)
    value = step.forward.reshaped(step.d.value, apart)
    order = [0, 1, 3, 5, 2, 4] if step.attribute("mode", "DCR") == "CRD" else [0, 3, 5, 1, 2, 4]
    return {0: step.forward.reshaped(step.op("Transpose", value, perm=order), shape)}


@gradient_rule("SpaceToDepth")
def _space_to_depth(step: BackwardStep) -> dict[int, str]:
    return {0: step.op("DepthToSpace", step.d.value, blocksize=step.attribute("blocksize", 1), mode="DCR")}


@gradient_rule("Pad", inputs=(0,), ignored=(1, 2, 3))
def _pad(step: BackwardStep) -> dict[int, str]:
    shape, rank = step.shape(), len(step.shape())
    pads = step.whole(1, "pads", []) or []
    axes = step.whole(3, "", list(range(rank))) or []
    value, now, matrices = step.d.value, list(step.shape_out()), {}
    for place, axis in enumerate(axes):
        before, behind = pads[place], pads[place + len(axes)]
        if not (before or behind):
            continue
        axis %= rank
        if shape[axis] < 0:
            raise step.refuse("it adds to the images of a batch")
        source = _sources(shape[axis], before, behind, step.attribute("mode", "constant"))
        if step.attribute("mode", "constant") == "constant" and min(before, behind) >= 0:
            value = step.write.slice(value, axis, before, before + shape[axis])
            now[axis] = shape[axis]
            continue
        matrix = np.zeros((now[axis], shape[axis]))
        for row, cell in enumerate(source):
            if cell is not None:
                matrix[row, cell] = 1
        matrices[axis] = matrix
    return {0: step.along(value, tuple(now), matrices)}


def _sources(size: int, before: int, behind: int, mode: str) -> list[int | None]:
    """Which cell of the input each cell of the padded one shows; None for the constant."""
    found: list[int | None] = []
    for place in range(-before, size + behind):
        if 0 <= place < size:
            found.append(place)
        elif mode == "edge":
            found.append(min(max(place, 0), size - 1))
        elif mode == "wrap":
            found.append(place % size)
        elif mode == "reflect":
            period = max(1, 2 * (size - 1))
            cell = place % period
            found.append(cell if cell < size else period - cell)
        else:
            found.append(None)
    return found
