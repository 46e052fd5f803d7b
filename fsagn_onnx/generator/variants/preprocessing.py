"""Preprocessing inside the file: uint8 RGB (N, H0, W0, 3) of any size in, resized and normalised by the graph.

An axis is resized by one matrix: area average where it shrinks, bilinear (half-pixel centres) where it grows, which is
what `InputSpec.fit` does with OpenCV on the host. With S source pixels shown in t target pixels, s = S / t:

    area    W[i, j] = overlap of [j, j + 1) with [i s, (i + 1) s) / s
    linear  W[i, j] = max(0, 1 - |c_i - j|),   c_i = clip((i + .5) s - .5, 0, S - 1)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...errors import ExplainerError
from ...model.input_spec import OPAQUE, InputSpec, parse_resize
from ...model.opset import opset_of
from ...runtime.contract import BEFORE, PREFIX, PREPROCESSED
from ..graph_writer import GraphWriter

MOST_LEVELS: Final = 1.6
"""Levels of 0..255 by which the graph's preprocessing may differ from the host's."""


class _InputGraph:
    """Writes the nodes between the uint8 image and the model's input."""

    def __init__(self, spec: InputSpec, kind: int = TensorProto.FLOAT) -> None:
        self.spec, self.kind, self.write = spec, kind, GraphWriter()

    def _cast(self, value: str, kind: int) -> str:
        return self.write.op("Cast", value, to=kind)

    def _double(self, value: str) -> str:
        return self._cast(value, TensorProto.DOUBLE)

    def _real(self, number: float) -> str:
        return self.write.constant(np.array([number], dtype=np.float64))

    def _whole(self, number: int) -> str:
        return self.write.constant(np.array([number], dtype=np.int64))

    def _rounded(self, value: str, low: int, high: str) -> str:
        """A double as a whole number in low..high."""
        write = self.write
        whole = self._cast(write.op("Round", value), TensorProto.INT64)
        return write.op("Min", high, write.op("Max", self._whole(low), whole))

    def _half(self, value: str) -> str:
        return self.write.op("Div", value, self._whole(2))

    def nodes(self) -> GraphWriter:
        write, spec, image = self.write, self.spec, self.spec.name
        policy, number = parse_resize(spec.resize)
        extents = [write.op("Shape", image, start=axis, end=axis + 1) for axis in (1, 2)]
        shown = [self._whole(side) for side in spec.size]
        offsets = [self._whole(0)] * 2
        if policy == "crop":
            image, extents = self._crop(image, extents, number)
        elif policy == "letterbox":
            shown, offsets = self._letterbox(extents)
        axes = [
            self._axis(extent, side, whole, offset)
            for extent, side, whole, offset in zip(extents, shown, spec.size, offsets, strict=True)
        ]
        pixels = self._resized(image, extents, [matrix for matrix, _ in axes])  # (N, H, 3, W)
        if policy == "letterbox":
            rows = write.op("Unsqueeze", axes[0][1], write.constant([1]))
            columns = write.op("Unsqueeze", axes[1][1], write.constant([0]))
            empty = write.op("Sub", write.constant(1.0), write.op("Mul", rows, columns))
            border = write.op("Mul", empty, write.constant(float(round(number))))
            pixels = write.op("Add", pixels, write.op("Unsqueeze", border, write.constant([1])))
        self._normalised(self._coloured(pixels))
        return write

    def _crop(self, image: str, extents: list[str], fraction: float) -> tuple[str, list[str]]:
        """`geometry.crop_window`."""
        write = self.write
        fits = [write.op("Div", self._double(e), self._real(s)) for e, s in zip(extents, self.spec.size, strict=True)]
        unit = write.op("Mul", self._real(fraction), write.op("Min", *fits))
        sides = [
            self._rounded(write.op("Mul", unit, self._real(s)), 1, e)
            for e, s in zip(extents, self.spec.size, strict=True)
        ]
        starts = [self._half(write.op("Sub", e, side)) for e, side in zip(extents, sides, strict=True)]
        ends = [write.op("Add", start, side) for start, side in zip(starts, sides, strict=True)]
        start, end = write.op("Concat", *starts, axis=0), write.op("Concat", *ends, axis=0)
        return write.op("Slice", image, start, end, write.constant([1, 2])), sides

    def _letterbox(self, extents: list[str]) -> tuple[list[str], list[str]]:
        """`geometry.letterbox_window`: sides and offsets of the shown part."""
        write, doubles = self.write, [self._double(extent) for extent in extents]
        fits = [write.op("Div", self._real(s), d) for s, d in zip(self.spec.size, doubles, strict=True)]
        factor = write.op("Min", *fits)
        sides = [
            self._rounded(write.op("Mul", d, factor), 1, self._whole(s))
            for s, d in zip(self.spec.size, doubles, strict=True)
        ]
        offsets = [
            self._half(write.op("Sub", self._whole(s), side)) for s, side in zip(self.spec.size, sides, strict=True)
        ]
        return sides, offsets

    def _axis(self, extent: str, shown: str, whole: int, offset: str) -> tuple[str, str]:
        """The matrix (whole, extent) of one axis, and which of its rows (whole,) show anything: 1 or 0."""
        write = self.write
        scale = write.op("Div", self._double(extent), self._double(shown))
        target = write.op("Sub", write.constant(np.arange(whole, dtype=np.float64)), self._double(offset))
        inside = write.op(
            "And",
            write.op("GreaterOrEqual", target, self._real(0)),
            write.op("Less", target, self._double(shown)),
        )
        inside = self._cast(inside, TensorProto.FLOAT)
        zero, step = write.constant(0), write.constant(1)
        source = write.op("Range", zero, write.op("Squeeze", extent), step)
        source = write.op("Unsqueeze", self._cast(source, TensorProto.FLOAT), write.constant([0]))  # (1, S)
        start = write.op("Mul", target, scale)
        column = write.constant([1])
        low = write.op("Unsqueeze", self._cast(start, TensorProto.FLOAT), column)
        high = write.op("Unsqueeze", self._cast(write.op("Add", start, scale), TensorProto.FLOAT), column)
        after = write.op("Add", source, write.constant(1.0))
        overlap = write.op("Sub", write.op("Min", after, high), write.op("Max", source, low))
        area = write.op("Div", write.op("Relu", overlap), self._cast(scale, TensorProto.FLOAT))
        centre = write.op("Add", start, write.op("Mul", scale, self._real(0.5)))
        last = self._double(write.op("Sub", extent, self._whole(1)))
        centre = write.op("Min", last, write.op("Max", self._real(0), write.op("Sub", centre, self._real(0.5))))
        distance = write.op("Sub", write.op("Unsqueeze", self._cast(centre, TensorProto.FLOAT), column), source)
        linear = write.op("Relu", write.op("Sub", write.constant(1.0), write.op("Abs", distance)))
        matrix = write.op("Where", write.op("Less", extent, shown), linear, area)
        return write.op("Mul", matrix, write.op("Unsqueeze", inside, column)), inside

    def _resized(self, image: str, extents: list[str], matrices: list[str]) -> str:
        """Uint8 (N, h, w, 3) -> whole-numbered float32 (N, H, 3, W)."""
        write, (height, _) = self.write, self.spec.size
        flat = write.op("Reshape", self._cast(image, TensorProto.FLOAT), write.constant([0, 0, -1]))
        rows = write.op("MatMul", matrices[0], flat)  # (N, H, w 3)
        shape = write.op("Concat", write.constant([0, height]), extents[1], write.constant([3]), axis=0)
        turned = write.op("Transpose", write.op("Reshape", rows, shape), perm=[0, 1, 3, 2])
        return write.op("Round", write.op("MatMul", turned, write.op("Transpose", matrices[1], perm=[1, 0])))

    def _coloured(self, pixels: str) -> str:
        write = self.write
        if self.spec.color in ("BGR", "BGRA"):
            pixels = write.op("Gather", pixels, write.constant([2, 1, 0]), axis=2)
        if self.spec.channels == 4:
            return write.op("Pad", pixels, write.constant([0, 0, 0, 0, 0, 0, 1, 0]), write.constant(float(OPAQUE)))
        if self.spec.color == "GRAY":  # OpenCV's fixed-point weights; exact in float32
            weights = write.constant(np.array([4899, 9617, 1868], dtype=np.float32)[:, None])
            total = write.op("ReduceSum", write.op("Mul", pixels, weights), write.constant([2]), keepdims=1)
            shifted = write.op("Add", write.op("Mul", total, write.constant(1 / 16384)), write.constant(0.5))
            return write.op("Floor", shifted)
        return pixels

    def _normalised(self, pixels: str) -> str:
        write, spec = self.write, self.spec
        mean = write.constant(np.array(spec.mean, dtype=np.float32)[:, None])
        std = write.constant(np.array(spec.std, dtype=np.float32)[:, None])
        centred = write.op("Sub", write.op("Mul", pixels, write.constant(float(spec.scale))), mean)
        perm = [0, 2, 1, 3] if spec.layout == "NCHW" else [0, 1, 3, 2]
        name = PREPROCESSED if self.kind == TensorProto.FLOAT else ""
        value = write.op("Transpose", write.op("Div", centred, std), perm=perm, name=name)
        if self.kind != TensorProto.FLOAT:
            whole = self.kind not in (TensorProto.FLOAT16, TensorProto.DOUBLE)
            value = write.op("Round", value) if whole else value
            value = write.op("Cast", value, to=self.kind, name=PREPROCESSED)
        return value


def preprocess_inside(proto: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """A copy of an explainer whose image input, of the same name, is uint8 RGB (N, H0, W0, 3) of any size.

    Args:
        proto: an explainer at opset 18 or later.
        spec: the model's input.
    """
    full = onnx.ModelProto()
    full.CopyFrom(proto)
    graph = full.graph
    kind = next(value.type.tensor_type.elem_type for value in graph.input if value.name == spec.name)
    for node in graph.node:
        node.input[:] = [PREPROCESSED if name == spec.name else name for name in node.input]
    nodes, initializers = _renamed(_InputGraph(spec, kind).nodes())
    before = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *before])
    graph.initializer.extend(initializers)
    inputs = [value for value in graph.input if value.name != spec.name]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(spec.name, TensorProto.UINT8, ["N", "H0", "W0", 3]))
    graph.input.extend(inputs)
    return full


def preprocessing_model(spec: InputSpec, opset: int) -> onnx.ModelProto:
    """The preprocessing alone: the input of the spec's name -> `PREPROCESSED`, float32."""
    nodes, initializers = _renamed(_InputGraph(spec).nodes())
    image = helper.make_tensor_value_info(spec.name, TensorProto.UINT8, ["N", "H0", "W0", 3])
    output = helper.make_tensor_value_info(PREPROCESSED, TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph(nodes, "preprocessing", [image], [output], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _renamed(write: GraphWriter) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes with names of their own, so that they can stand beside the generator's."""

    def name(text: str) -> str:
        if not text.startswith(PREFIX) or text.startswith(BEFORE):
            return text
        return BEFORE + text.removeprefix(PREFIX)

    for node in write.nodes:
        node.input[:], node.output[:] = map(name, node.input), map(name, node.output)
        node.name = BEFORE + node.output[0].removeprefix(BEFORE)
    for tensor in write.initializers:
        tensor.name = name(tensor.name)
    return write.nodes, write.initializers


def check_preprocessing(spec: InputSpec, proto: onnx.ModelProto, run: Callable[[bytes, Any], list[Any]]) -> None:
    """Compare the graph's preprocessing with the host's on pictures smaller, larger, wider and taller than the input.

    OpenCV rounds to whole levels of 0..255, after each axis where one shrinks and the other grows: the two may differ
    by a little more than one level.

    Args:
        spec: the model's input.
        proto: the explainer, for its opset.
        run: computes a graph: (content, feeds) -> list of outputs.

    Raises:
        ExplainerError: they differ by more than that.
    """
    height, width = spec.size
    rng = np.random.default_rng(0)
    content = preprocessing_model(spec, opset_of(proto)).SerializeToString()
    levels = np.asarray(spec.std, dtype=np.float32) / np.float32(spec.scale)
    levels = levels[:, None, None] if spec.layout == "NCHW" else levels
    for rows, columns in ((height, width), (2 * height + 7, 3 * width + 1), (height // 2 + 1, 2 * width), (9, 5)):
        coarse = rng.integers(0, 256, (rows // 4 + 1, columns // 4 + 1, 3), dtype=np.uint8)
        picture = np.ascontiguousarray(coarse.repeat(4, axis=0).repeat(4, axis=1)[:rows, :columns])
        expected = spec.preprocess(picture)[0]
        (got,) = run(content, {spec.name: picture[None]})
        gap = np.abs(got[0] - expected) * levels
        if float(gap.max()) > MOST_LEVELS or float(gap.mean()) > MOST_LEVELS / 4:
            raise ExplainerError(
                f"export: preprocessing inside differs from the host's by {float(gap.max()):.2f} levels of 255 "
                f"(mean {float(gap.mean()):.3f}) for a picture of {rows} x {columns}; no file written; report this"
            )
