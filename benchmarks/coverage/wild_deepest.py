"""The default layer by definition, read off a file by onnx, numpy and onnxruntime alone.

The layer that a user would have chosen is the deepest conv, by the number of convs before it and then by its receptive
field, from which every prediction is computed; its value is taken behind the activation. Nothing of the program is
used here: the list's layers are held against these lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

CONVS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
"""Convs -> which of their inputs are the weights."""
LEARNED = (
    "Gemm", "QGemm", "QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat",
    "LSTM", "GRU", "RNN", "DynamicQuantizeLSTM", "ConvTranspose",
)  # fmt: skip
POOLS = ("GlobalAveragePool", "QLinearGlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "ReduceMean")
CURVES = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Clip",
    "HardSwish",
    "Elu",
    "Selu",
    "Mish",
    "Gelu",
    "Sigmoid",
    "Tanh",
    "Softplus",
)
GATES = ("Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Div", "Clip", "Add", "Relu", "Mul", "Min", "Max")
"""Ops between a value and its product with itself: swish, hard swish and mish written out."""
MOVES = ("QuantizeLinear", "DequantizeLinear", "Cast", "Identity")
SMALLEST, DENSE = 3, 256
"""The smallest map that is looked at; the numbers in a constant from which a product with it is a layer."""


class Graph:
    """Who makes and who reads each value, and the constants."""

    def __init__(self, path: Path) -> None:
        self.proto = onnx.load(path)
        self.nodes = list(self.proto.graph.node)
        self.outputs = [item.name for item in self.proto.graph.output]
        self.maker = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                self.readers.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def constant(self, name: str) -> NDArray[Any] | None:
        """The numbers of a constant, also behind DequantizeLinear or Identity."""
        while name not in self.constants:
            node = self.maker.get(name)
            if node is None or node.op_type not in (*MOVES, "Reshape", "Unsqueeze"):
                return None
            name = node.input[0]
        found: NDArray[Any] = numpy_helper.to_array(self.constants[name])
        return found

    def behind(self, value: str, stop: Iterable[str] = ()) -> set[str]:
        """All values computed from one, without those in `stop`."""
        seen, waiting, barred = {value}, [value], set(stop)
        while waiting:
            for node in self.readers.get(waiting.pop(), ()):
                new = [name for name in node.output if name and name not in seen and name not in barred]
                seen.update(new)
                waiting += new
        return seen


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node reads, its subgraphs included."""
    yield from (name for name in node.input if name)
    for item in node.attribute:
        for inner in item.g.node if item.HasField("g") else ():
            yield from reads(inner)


def deepest(path: Path, image: str, sample: dict[str, NDArray[Any]]) -> dict[str, str]:
    """The conv's own output and the value behind its activation, by name; empty where there is none.

    Args:
        path: The network's file.
        image: Its image input.
        sample: Numbers for all inputs, by which the sizes of the maps are found.
    """
    graph = Graph(path)
    seen = graph.behind(image)
    convs = [node for node in graph.nodes if node.op_type in CONVS and node.output[0] in seen and node.input[0] in seen]
    tails = {node.output[0]: _tail(graph, node.output[0]) for node in convs}
    sizes = _sizes(graph.proto, list(dict.fromkeys([*tails, *tails.values(), *graph.outputs])), sample)
    depth, field = _depths(graph, image)
    useful = [
        node.output[0]
        for node in convs
        if min(sizes.get(node.output[0], (0, 0, 0, 0))[2:], default=0) > 1
        and len(sizes[node.output[0]]) == 4
        and graph.behind(tails[node.output[0]]) & set(graph.outputs)
    ]
    groups = [
        group
        for group in _predictions(graph, useful, tails)
        if not (ends := graph.behind(min(group)) & set(graph.outputs)) or not ends <= _repeated(graph, sizes)
    ]
    answers = set().union(*groups) if groups else set()
    shared = [
        name for name in useful if name not in answers and all(graph.behind(tails[name]) & group for group in groups)
    ]
    large = [name for name in shared or useful if min(sizes[name][2:]) >= SMALLEST]
    if not large:
        most = max((int(np.prod(sizes[name][2:])) for name in useful), default=0)
        large = [name for name in useful if int(np.prod(sizes[name][2:])) == most]
    if not large:
        return {}
    found = max(large, key=lambda name: (depth[name], field.get(name, np.inf), useful.index(name)))
    return {"conv": found, "value": tails[found]}


def _tail(graph: Graph, conv: str) -> str:
    """The value behind the norm, the bias and the activation that alone read a conv; the float one of 8-bit sums."""
    value = last = conv
    sums = graph.maker[conv].op_type == "ConvInteger"
    while True:
        readers = [node for node in graph.readers.get(value, ()) if node.op_type not in ("Shape", "Size")]
        if product := _gated(graph, value, readers):
            return product
        if len(readers) != 1 or (value in graph.outputs and readers[0].op_type not in MOVES):
            return last
        node, value = readers[0], readers[0].output[0]
        fixed = [graph.constant(name) is not None for name in node.input if name and name not in (last, value)]
        if node.op_type in CURVES:
            return _clipped(graph, value)
        scaled = sums and node.op_type == "Mul"  # by the scale of the pixels, which is computed
        linear = node.op_type in ("Add", "Mul", "Sub") and (scaled or any(fixed))
        if linear or node.op_type in ("BatchNormalization", "DequantizeLinear"):
            last = value
        elif node.op_type not in MOVES:
            return last


def _clipped(graph: Graph, value: str) -> str:
    """Behind the clip, the minimum or the maximum that follows a curve: they are one curve in two."""
    readers = graph.readers.get(value, [])
    one = len(readers) == 1 and readers[0].op_type in ("Clip", "Min", "Max")
    return str(readers[0].output[0]) if one and value not in graph.outputs else value


def _gated(graph: Graph, value: str, readers: Sequence[onnx.NodeProto]) -> str:
    """The product of a value with a curve of itself, "" where there is none."""
    for product in readers:
        if product.op_type == "Mul" and len(readers) == 2:
            other = next((name for name in product.input if name != value), "")
            for _ in range(5):
                made = graph.maker.get(other)
                if made is None or made.op_type not in GATES:
                    break
                if value in made.input:
                    return _scaled(graph, product.output[0])
                other = next((name for name in made.input if graph.constant(name) is None), "")
    return ""


def _scaled(graph: Graph, value: str) -> str:
    """Behind the division by six of a hard swish that is written out."""
    readers = graph.readers.get(value, [])
    if len(readers) == 1 and readers[0].op_type in ("Div", "Mul"):
        others = [graph.constant(name) for name in readers[0].input if name != value]
        if others and others[0] is not None and others[0].size == 1:
            return str(readers[0].output[0])
    return value


def _repeated(graph: Graph, sizes: dict[str, tuple[int, ...]]) -> set[str]:
    """Outputs that are maps of the shape of an earlier one: those of deep supervision, whose first one counts."""
    shapes = [sizes[name] for name in graph.outputs]
    return {
        name for place, name in enumerate(graph.outputs) if len(shapes[place]) == 4 and shapes[place] in shapes[:place]
    }


def _sizes(proto: onnx.ModelProto, values: list[str], sample: dict[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Shapes that values have when the network runs."""
    whole = onnx.ModelProto.FromString(proto.SerializeToString())
    known = {item.name for item in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {name: array.shape for name, array in zip(values, session.run(values, sample), strict=True)}


def _depths(graph: Graph, image: str) -> tuple[dict[str, int], dict[str, float]]:
    """Value -> most convs on a way to it, and the receptive field as if every window lay on the longest way."""
    depth, field, jump = {image: 0}, {image: 1.0}, {image: 1.0}
    for node in graph.nodes:
        before = [name for name in reads(node) if name in depth]
        if not before:
            continue
        given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        kernel = given.get("kernel_shape")
        if node.op_type in CONVS and not kernel:
            weights = graph.constant(node.input[CONVS[node.op_type]])
            kernel = list(weights.shape[2:]) if weights is not None else None
        step = max(jump[name] for name in before)
        wide = max(field[name] for name in before)
        if kernel and node.op_type != "ConvTranspose":
            spread = max((k - 1) * d for k, d in zip(kernel, given.get("dilations") or [1] * len(kernel), strict=True))
            wide, step = wide + spread * step, step * max(given.get("strides") or [1])
        deep = max(depth[name] for name in before) + (node.op_type in CONVS)
        for name in node.output:
            depth[name], field[name], jump[name] = deep, wide, step
    return depth, field


def _predictions(graph: Graph, useful: Sequence[str], tails: dict[str, str]) -> list[set[str]]:
    """Convs that write answers: nothing learned comes behind them, and no curve that feature maps have.

    Those whose maps are added up write one answer together.
    """
    reached: dict[str, set[str]] = {}
    for name in useful:
        bent = graph.maker[tails[name]].op_type in CURVES[: CURVES.index("Sigmoid")] or (
            tails[name] != name and graph.maker[tails[name]].op_type in ("Mul", "Div")
        )
        values = graph.behind(name)
        later = [node for node in graph.nodes if values & set(node.input) and _learned(graph, node, values)]
        if not bent and not later:
            reached[name] = values
    groups: list[set[str]] = []
    for name, values in reached.items():
        joined = {name}
        for group in list(groups):
            if any(_summed(graph, values, reached[other]) for other in group):
                joined |= group
                groups.remove(group)
        groups.append(joined)
    return groups


def _learned(graph: Graph, node: onnx.NodeProto, values: set[str]) -> bool:
    if node.op_type in CONVS:
        weights = graph.constant(node.input[CONVS[node.op_type]])
        bins = weights is not None and (weights.ravel() == np.arange(weights.size)).all()
        return not bins  # how YOLO heads take the mean of a distribution
    if node.op_type in POOLS:
        return not _returns(graph, node, values)
    if node.op_type == "MatMul":
        sizes = [found.size for name in node.input if (found := graph.constant(name)) is not None]
        return bool(sizes) and max(sizes) > DENSE
    return node.op_type in LEARNED


def _returns(graph: Graph, node: onnx.NodeProto, values: set[str]) -> bool:
    """Whether a mean only goes back into the map it was taken of, as in a norm: through nothing that is learned."""
    mine, waiting, joined = set(node.output), list(node.output), False
    while waiting:
        name = waiting.pop()
        if name in graph.outputs:
            return False
        for reader in graph.readers.get(name, ()):
            if reader.op_type in CONVS or reader.op_type in LEARNED or reader.op_type == "MatMul":
                return False
            if any(other in values and other not in mine for other in reader.input):
                joined = True
            elif not mine & set(reader.output):
                mine.update(reader.output)
                waiting += reader.output
    return joined


def _summed(graph: Graph, first: set[str], second: set[str]) -> bool:
    for node in graph.nodes:
        if node.op_type in ("Add", "Sum") and node.output[0] in first & second:
            sides = [{name for name in node.input if name in side} for side in (first, second)]
            if sides[0] and sides[1] and not sides[0] & sides[1]:
                return True
    return False
