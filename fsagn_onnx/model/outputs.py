"""What the outputs of a graph are: which belong to the images, and what made their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx

from ..errors import LayerError
from .cut import cut
from .onnx_file import ValueInfo, value_info
from .shapes import static_shapes
from .topology import Topology, node_inputs

__all__ = ["Output", "OutputReader", "find_outputs"]

PROBE = 97
"""A batch that is met as a size nowhere else: an axis that has it is the axis of the images."""

PASSING = frozenset({
    "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "CastLike", "Dropout", "Transpose",
    "QuantizeLinear", "DequantizeLinear",
})  # fmt: skip
"""Ops that pass numbers on as they are, or nearly so."""
SCALING = frozenset({"Add", "Sub", "Mul", "Div"})
"""Ops that, with a constant, shift and stretch numbers and leave them what they are."""
BOUNDING = frozenset({"Clip"})
"""Ops that only keep numbers from growing, as before a sigmoid."""
DENSE = frozenset({
    "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "Conv", "ConvInteger", "QLinearConv", "Einsum",
})  # fmt: skip
POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean"})
CHOOSING = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress", "Loop", "Scan"})
"""Ops after which the first axis counts what was found, not images."""
FLOATS = frozenset({"float32", "float16", "float64", "bfloat16"})


@dataclass(frozen=True)
class Output:
    """An output of a model, as its graph tells it.

    Attributes:
        name: of the value.
        dtype: in numpy's words; "not a tensor" for a sequence or a map.
        axis: the axis of the images; None where the output does not belong to single images.
        constant: it is the same for every image.
        vector: it holds one row of numbers per image, (N,), (N, C) or (N, C, 1, ...), computed as a whole: not one
            number per place of a map.
        width: C, where it is known.
        end: what made the numbers: ``softmax``, ``log-softmax``, ``sigmoid``, ``dense``, ``pool`` or ``other``.
        source: the value whose numbers these are, behind what only passes them on.
        shape: as far as it is known, None for the axis of the images and for what is open; None: not even the rank.
    """

    name: str
    dtype: str
    axis: int | None
    constant: bool
    vector: bool
    width: int | None
    end: str
    source: str
    shape: tuple[int | None, ...] | None = None

    @property
    def tensor(self) -> bool:
        """Whether it is an array at all."""
        return self.dtype != "not a tensor"

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.dtype in FLOATS


def find_outputs(
    proto: onnx.ModelProto, image: str, sample: Sequence[int], names: Iterable[str] | None = None
) -> tuple[Output, ...]:
    """Describe the outputs of a graph.

    Args:
        proto: a graph in topological order; its weights are not read.
        image: name of the image input.
        sample: shape of one image of it.
        names: the outputs to describe; None: all.
    """
    return OutputReader(proto, image, sample, names).outputs


class OutputReader:
    """Reads what the outputs of a graph are, out of the nodes before them.

    Attributes:
        topology: of the graph.
        shapes: of its values, with `PROBE` images, or as many as it is fixed to; unknown ones are left out.
        varying: values that hang on the image.

    Args:
        proto: see `find_outputs`.
        image: see `find_outputs`.
        sample: see `find_outputs`.
        names: see `find_outputs`.
    """

    def __init__(
        self, proto: onnx.ModelProto, image: str, sample: Sequence[int], names: Iterable[str] | None = None
    ) -> None:
        wanted = {item.name for item in proto.graph.output} if names is None else set(names)
        outputs = [value_info(item) for item in proto.graph.output if item.name in wanted]
        self._given = outputs
        self.topology = Topology(proto.graph)
        self.varying = self.topology.descendants([image])
        given = next((value_info(item).shape for item in proto.graph.input if item.name == image), None)
        first = given[0] if given else None
        self._symbol = first if isinstance(first, str) else None
        self._fixed = first if isinstance(first, int) and first > 0 else None
        self._batch = self._fixed or PROBE
        self._opset = max((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), default=0)
        made = [item.name for item in outputs if item.name in self.topology.producer]
        self.shapes = self._infer(proto, image, sample, made) if made else {}
        found = [(item, self.shapes.get(item.name, ())) for item in outputs]
        if any(self._baked(item, shape) for item, shape in found) and not any(PROBE in shape for _, shape in found):
            self._fixed = self._batch = 1  # the graph holds on to one image, whatever it declares
            self.shapes = self._infer(proto, image, sample, made)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs, described."""
        return tuple(self.describe(item) for item in self._given)

    def _infer(
        self, proto: onnx.ModelProto, image: str, sample: Sequence[int], made: Sequence[str]
    ) -> dict[str, tuple[int, ...]]:
        try:
            return static_shapes(cut(proto, made, weights=False), {image: (self._batch, *sample)})
        except LayerError:
            return {}

    def describe(self, item: ValueInfo) -> Output:
        """What an output is."""
        constant = item.name not in self.varying
        axis = None if constant or item.dtype == "not a tensor" else self._axis(item)
        end, source, head = self._end(item.name)
        shape = self.shapes.get(item.name)
        if shape is None and item.shape is not None and all(isinstance(dim, int) for dim in item.shape[1:]):
            shape = (self._batch, *(int(dim) for dim in item.shape[1:] if isinstance(dim, int)))
        rank = len(item.shape) if item.shape is not None else 2
        row = axis == 0 and (rank <= 2 if shape is None else _row(shape))
        width = math.prod(shape[1:]) if row and shape is not None else None
        whole = row and all(self._is_row(name, width) for name in head) and not self._joins_places(source)
        if end.endswith("softmax") and whole and not self._over_all(source, width):
            end = "other"
        return Output(item.name, item.dtype, axis, constant, whole, width, end, source, self._open_shape(item, axis))

    def _open_shape(self, item: ValueInfo, axis: int | None) -> tuple[int | None, ...] | None:
        """The shape with None for the images and for what is not known."""
        found: Sequence[int | str | None] | None = self.shapes.get(item.name, item.shape)
        if found is None:
            return None
        return tuple(dim if isinstance(dim, int) and place != axis else None for place, dim in enumerate(found))

    def _baked(self, item: ValueInfo, shape: tuple[int, ...]) -> bool:
        """Whether an output is declared to have as many rows as there are images, and is computed to have one."""
        declared = item.shape[0] if item.shape else None
        return len(shape) > 1 and shape[0] == 1 and self._symbol is not None and declared == self._symbol

    def _axis(self, item: ValueInfo) -> int | None:
        shape = self.shapes.get(item.name)
        declared = item.shape[0] if item.shape else None
        if shape is not None:
            if self._batch in shape:
                return shape.index(self._batch)
            return 0 if self._baked(item, shape) else None
        if item.shape == () or self._chosen(item.name):
            return None
        if isinstance(declared, int):
            return 0 if declared == self._fixed else None
        return 0

    def _chosen(self, name: str) -> bool:
        nodes = self.topology.nodes
        return any(
            nodes[index].op_type in CHOOSING and self.varying.intersection(node_inputs(nodes[index]))
            for index in self.topology.ancestors([name])
        )

    def _is_row(self, name: str, width: int | None) -> bool:
        """Whether a value holds one row of numbers per image, all of those of the output."""
        shape = self.shapes.get(name)
        return shape is None or (self._batch in shape[:1] and _row(shape) and width in (None, math.prod(shape[1:])))

    def _joins_places(self, name: str) -> bool:
        """Whether a value joins numbers per place of several maps: the scores of a detector's scales."""
        node = self._maker(name)
        if node is not None and node.op_type in ("Sigmoid", "HardSigmoid", "Softmax", "LogSoftmax"):
            node = self._maker(self._behind(node.input[0], PASSING | SCALING | BOUNDING))
        if node is None or node.op_type != "Concat":
            return False
        parts = [self._behind(part, PASSING | SCALING) for part in node.input if part in self.varying]
        return any(not _row(self.shapes.get(part, ())) for part in parts)

    def _over_all(self, name: str, width: int | None) -> bool:
        """Whether a softmax is one over all numbers of an image."""
        node, shape = self._softmax(name), self.shapes.get(name)
        if node is None or shape is None or width is None:
            return True
        axis = next((item.i for item in node.attribute if item.name == "axis"), -1 if self._opset >= 13 else 1)
        axis %= max(1, len(shape))
        over = shape[axis : axis + 1] if self._opset >= 13 else shape[axis:]
        return axis > 0 and math.prod(over) == width

    def _softmax(self, name: str) -> onnx.NodeProto | None:
        at = self.topology.producer.get(name)
        node = None if at is None else self.topology.nodes[at]
        return node if node is not None and node.op_type in ("Softmax", "LogSoftmax") else None

    def _end(self, name: str) -> tuple[str, str, list[str]]:
        """What made a value's numbers, the value that it made, and the values that must be rows themselves."""
        source = self._behind(name, PASSING)
        node = self._maker(source)
        if node is None:
            return "other", source, []
        op, head = node.op_type, [source]
        if op in ("Softmax", "LogSoftmax") or self._is_spelled_softmax(node):
            head += self._makers(node.input[0]) if op != "Div" else []
            return ("log-softmax" if op == "LogSoftmax" else "softmax"), source, head
        if op == "Log" and (inner := self._maker(self._behind(node.input[0], PASSING))) is not None:
            if inner.op_type == "Softmax":
                return "log-softmax", inner.output[0], [inner.output[0]]
            return "other", source, head
        if op in ("Sigmoid", "HardSigmoid"):
            head += self._makers(node.input[0])
            return "sigmoid", source, head
        raw = self._behind(source, PASSING | SCALING)
        maker = self._maker(raw)
        if maker is None:
            return "other", source, head
        if maker.op_type in DENSE:
            return "dense", source, [*head, raw]
        if maker.op_type in POOLS:
            pooled = self._maker(self._behind(maker.input[0], PASSING | SCALING))
            plain = pooled is not None and pooled.op_type in DENSE
            return ("dense" if plain else "pool"), source, [*head, raw]
        return "other", source, head

    def _makers(self, name: str) -> Iterator[str]:
        """The value that a dense layer, or one that joins several, made, behind what passes on, shifts or stretches."""
        value = self._behind(name, PASSING | SCALING | BOUNDING)
        node = self._maker(value)
        if node is not None and node.op_type in {"Concat", *DENSE}:
            yield value

    def _maker(self, name: str) -> onnx.NodeProto | None:
        at = self.topology.producer.get(name)
        return None if at is None else self.topology.nodes[at]

    def _behind(self, name: str, ops: frozenset[str]) -> str:
        """The value behind nodes of some ops; one with two inputs counts where the other one is constant."""
        while (node := self._maker(name)) is not None and node.op_type in ops and node.domain in ("", "ai.onnx"):
            varying = [value for value in node.input if value in self.varying]
            if node.op_type in SCALING and len(varying) > 1:  # a dynamically quantised layer's scale is one number
                varying = [value for value in varying if math.prod(self.shapes.get(value, (0,))) != 1]
            if node.op_type in SCALING and len(varying) != 1:
                break
            if node.op_type == "Div" and node.input[0] not in varying:
                break
            name = varying[0] if node.op_type in SCALING else node.input[0]
        return name

    def _is_spelled_softmax(self, node: onnx.NodeProto) -> bool:
        """exp(x) / sum(exp(x)), as older exporters write it."""
        if node.op_type != "Div":
            return False
        above, below = self._maker(node.input[0]), self._maker(node.input[1])
        return (
            above is not None
            and below is not None
            and (above.op_type, below.op_type) == ("Exp", "ReduceSum")
            and below.input[0] == above.output[0]
        )


def _row(shape: Sequence[int]) -> bool:
    """Whether (N, ...) holds one row per image: (N,), (N, C) or (N, C, 1, ...)."""
    return all(side == 1 for side in shape[2:])
