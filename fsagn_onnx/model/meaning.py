"""What onnx's version converter gets wrong: nodes that mean something else at a newer opset.

- Resize of opset 10 and Upsample sample at cell i / scale (asymmetric); the converter leaves newer Resize nodes at
  their default, half_pixel. onnxruntime rounds nearest down where an axis grows and up where it shrinks.
- Hardmax below opset 13 takes all axes from `axis` on together; the converter keeps the node as it is.
- Values that a rewritten node makes get other names, so that a tap of that name is gone; outputs keep theirs.
- GroupNormalization below opset 21 has a scale and a bias per group, then per channel; the converter multiplies shapes
  that do not fit.

Found by running small graphs of opset 7 to 18 in onnxruntime before and after (tests/unit/test_opsets.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import ExplainerError
from .content_hash import array_of
from .topology import copied_node, subgraphs

__all__ = ["keep_sampling", "named", "spelled_out"]

HARDMAX, GROUPS, SAMPLING = 13, 21, 11
"""The opsets from which Hardmax takes one axis, GroupNormalization a scale per channel, Resize its coordinates."""


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside of nodes, innermost first, then the graph itself: its nodes may then be copied."""
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _graphs(inner)
    yield graph


def named(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every value of the top-level graph as an output, behind its own: the converter keeps their names."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    known = {item.name for item in made.graph.output}
    for node in made.graph.node:
        fresh = [name for name in node.output if name and name not in known]
        made.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in fresh)
        known.update(fresh)
    return made


def spelled_out(proto: onnx.ModelProto, current: int, opset: int) -> onnx.ModelProto:
    """The model with those nodes written in others that mean the same at every opset.

    Args:
        proto: the model; it is not changed.
        current: its opset.
        opset: to which it will be raised.

    Returns:
        `proto` itself where there is no such node, else a copy.
    """
    kinds = {"Hardmax"} if current < HARDMAX <= opset else set()
    kinds |= {"GroupNormalization"} if current < GROUPS <= opset else set()
    if not any(node.op_type in kinds for graph in _graphs(proto.graph) for node in graph.node):
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    for graph in list(_graphs(made.graph)):
        nodes = [new for node in graph.node for new in (_written(node) if node.op_type in kinds else [node])]
        copies = [copied_node(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    return made


def _written(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Reshape to two or three axes, compute there, reshape back."""
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    x, out = node.input[0], node.output[0]
    shape, flat, done = (f"{out}/{part}" for part in ("shape", "flat", "done"))
    read = helper.make_node("Shape", [x], [shape])
    if node.op_type == "Hardmax":
        made = [
            helper.make_node("Flatten", [x], [flat], axis=given.get("axis", 1)),
            helper.make_node("Hardmax", [flat], [done], axis=1),
        ]
    else:
        target = numpy_helper.from_array(np.array([0, given["num_groups"], -1], np.int64))
        made = [
            helper.make_node("Constant", [], [f"{out}/groups"], value=target),
            helper.make_node("Reshape", [x, f"{out}/groups"], [flat]),
            helper.make_node(
                "InstanceNormalization", [flat, *node.input[1:3]], [done], epsilon=given.get("epsilon", 1e-5)
            ),
        ]
    return [read, *made, helper.make_node("Reshape", [done, shape], [out])]


def keep_sampling(proto: onnx.ModelProto, made: onnx.ModelProto, current: int) -> None:
    """Give the Resize nodes of a raised model the coordinates and the rounding that the old ones had.

    Args:
        proto: the model before.
        made: the model after; changed.
        current: opset before.

    Raises:
        ExplainerError: the converter left or made other Resize nodes than there were.
    """
    if current >= SAMPLING:
        return
    known = _numbers(proto)
    for before, after in zip(_graphs(proto.graph), list(_graphs(made.graph)), strict=True):
        old = [node for node in before.node if node.op_type in ("Resize", "Upsample") and not node.domain]
        new = [node for node in after.node if node.op_type == "Resize" and not node.domain]
        if len(old) != len(new):
            raise ExplainerError(
                f"the graph '{before.name}' has {len(old)} nodes that resize, but {len(new)} when raised"
            )
        scales = [_scales(node, known) for node in old]
        if not old:
            continue
        nodes: list[onnx.NodeProto] = []
        for node in after.node:
            resizes = node.op_type == "Resize" and not node.domain
            nodes += _sampled(copied_node(node), scales.pop(0)) if resizes else [copied_node(node)]
        del after.node[:]
        after.node.extend(nodes)


def _scales(node: onnx.NodeProto, known: dict[str, Sequence[float]]) -> Sequence[float] | None:
    own = [list(item.floats) for item in node.attribute if item.name == "scales"]
    return own[0] if own else known.get(node.input[1] if len(node.input) > 1 else "")


def _numbers(proto: onnx.ModelProto) -> dict[str, Sequence[float]]:
    """The constants of few numbers by name."""
    found: dict[str, onnx.TensorProto] = {}
    for graph in _graphs(proto.graph):
        found |= {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            found.update((node.output[0], item.t) for item in node.attribute if item.name == "value" and node.output)
    few = {name: tensor for name, tensor in found.items() if len(tensor.dims) == 1 and tensor.dims[0] <= 8}
    return {name: array_of(tensor).tolist() for name, tensor in few.items()}


def _sampled(node: onnx.NodeProto, scales: Sequence[float] | None) -> list[onnx.NodeProto]:
    """The node with the old meaning; two where nearest grows one axis and shrinks another."""
    _set(node, coordinate_transformation_mode="asymmetric")
    if any(item.name == "mode" and item.s != b"nearest" for item in node.attribute):
        return [node]
    shrinks = scales is not None and min(scales) < 1
    if not shrinks or scales is None or max(scales) <= 1:
        _set(node, nearest_mode="ceil" if shrinks else "floor")
        return [node]
    made: list[onnx.NodeProto] = []
    value, out = node.input[0], node.output[0]
    for how, part in (("floor", [max(s, 1.0) for s in scales]), ("ceil", [min(s, 1.0) for s in scales])):
        name, target = f"{out}/{how}", out if how == "ceil" else f"{out}/grown"
        made.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(part, np.float32))))
        made.append(helper.make_node("Resize", [value, "", name], [target], mode="nearest"))
        _set(made[-1], coordinate_transformation_mode="asymmetric", nearest_mode=how)
        value = target
    return made


def _set(node: onnx.NodeProto, **attributes: str) -> None:
    kept = [item for item in node.attribute if item.name not in attributes]
    copies = [onnx.AttributeProto.FromString(item.SerializeToString()) for item in kept]
    del node.attribute[:]
    node.attribute.extend([*copies, *(helper.make_attribute(name, value) for name, value in attributes.items())])
