"""Ten models to be damaged: the two of this repository, and eight small ones that differ in what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(__file__).resolve().parents[2] / "models"
OPSETS = [helper.make_opsetid("", 17)]


class Net:
    """A graph under construction over an image x."""

    def __init__(self, *shape: int | str, dtype: int = TensorProto.FLOAT) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", dtype, shape)]
        self.rng = np.random.default_rng(0)

    def tensor(self, values: object, dtype: type = np.float32) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(values, dtype), f"t{len(self.tensors)}"))
        return self.tensors[-1].name

    def node(self, op: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], f"node{len(self.nodes)}", **attributes))
        return out

    def conv(self, x: str, inputs: int, channels: int, stride: int = 1, **attributes: object) -> str:
        weight = self.rng.normal(size=(channels, inputs // int(str(attributes.get("group", 1))), 3, 3)) / 5
        named = {"strides": [stride] * 2, "pads": [1] * 4, **attributes}
        return self.node("Conv", x, self.tensor(weight), self.tensor(np.zeros(channels)), **named)

    def head(self, x: str, channels: int, out: str = "scores") -> str:
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.node("Gemm", flat, self.tensor(self.rng.normal(size=(channels, 5))), out=out)

    def proto(self, *outputs: str, opsets: Sequence[onnx.OperatorSetIdProto] = tuple(OPSETS)) -> onnx.ModelProto:
        named = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs or ["scores"]]
        graph = helper.make_graph(self.nodes, "g", self.inputs, named, self.tensors)
        return helper.make_model(graph, opset_imports=list(opsets), ir_version=9, producer_name="fuzz")


def residual() -> onnx.ModelProto:
    net = Net("N", 3, 32, 32)
    x = net.node("Relu", net.conv("x", 3, 8, 2))
    norm = [net.tensor(np.ones(8)) for _ in range(4)]
    inner = net.node("BatchNormalization", net.conv(x, 8, 8), *norm)
    x = net.node("Relu", net.node("Add", x, inner))
    x = net.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    net.head(net.node("Relu", net.conv(x, 8, 16, group=2)), 16)
    return net.proto()


def channels_last() -> onnx.ModelProto:
    net = Net("N", 32, 32, 3, dtype=TensorProto.UINT8)
    x = net.node("Div", net.node("Cast", "x", to=TensorProto.FLOAT), net.tensor(255.0))
    x = net.node("Transpose", x, perm=[0, 3, 1, 2])
    x = net.conv(x, 3, 8, 2)
    x = net.node("Mul", x, net.node("Sigmoid", x))
    net.head(net.node("Clip", net.conv(x, 8, 8, 2), net.tensor(0.0), net.tensor(6.0)), 8)
    return net.proto()


def squeeze_excite() -> onnx.ModelProto:
    net = Net(1, 3, "h", "w")
    x = net.node("HardSwish", net.conv("x", 3, 8, 2))
    gate = net.node("Relu", net.node("Conv", net.node("GlobalAveragePool", x), net.tensor(np.ones((4, 8, 1, 1)))))
    gate = net.node("HardSigmoid", net.node("Conv", gate, net.tensor(np.ones((8, 4, 1, 1)))))
    net.head(net.node("HardSwish", net.conv(net.node("Mul", x, gate), 8, 8)), 8)
    return net.proto()


def shuffle() -> onnx.ModelProto:
    """Channel shuffle by shapes computed in the graph, as torch exports it."""
    net = Net("N", 3, 32, 32)
    x = net.node("Relu", net.conv("x", 3, 8, 2))
    shape = net.node("Shape", x)
    parts = [net.node("Gather", shape, net.tensor([axis], np.int64)) for axis in range(4)]
    two = net.tensor([2], np.int64)
    split = net.node("Concat", parts[0], two, net.node("Div", parts[1], two), *parts[2:], axis=0)
    joined = net.node("Concat", parts[0], net.tensor([-1], np.int64), *parts[2:], axis=0)
    turned = net.node("Transpose", net.node("Reshape", x, split), perm=[0, 2, 1, 3, 4])
    net.head(net.node("Relu", net.conv(net.node("Reshape", turned, joined), 8, 8)), 8)
    return net.proto()


def detector() -> onnx.ModelProto:
    net = Net(1, 3, 64, 64)
    fine = net.node("Relu", net.conv(net.node("Relu", net.conv("x", 3, 8, 2)), 8, 8, 2))
    coarse = net.node("Relu", net.conv(fine, 8, 8, 2))
    up = net.node("Resize", coarse, "", net.tensor([1, 1, 2, 2]), mode="nearest")
    boxes, scores = [], []
    for level, size in ((net.node("Add", fine, up), 256), (coarse, 64)):
        boxes.append(net.node("Reshape", net.conv(level, 8, 4), net.tensor([1, size, 4], np.int64)))
        scores.append(
            net.node("Reshape", net.node("Sigmoid", net.conv(level, 8, 2)), net.tensor([1, 2, size], np.int64))
        )
    limits = [net.tensor([10], np.int64), net.tensor([0.5]), net.tensor([0.2])]
    found = net.node(
        "NonMaxSuppression", net.node("Concat", *boxes, axis=1), net.node("Concat", *scores, axis=2), *limits
    )
    net.node("Cast", found, to=TensorProto.FLOAT, out="scores")
    return net.proto()


def quantised() -> onnx.ModelProto:
    net = Net("N", 3, 32, 32)

    def rounded(x: str, scale: float) -> str:
        step, zero = net.tensor(scale), net.tensor(128, np.uint8)
        return net.node("DequantizeLinear", net.node("QuantizeLinear", x, step, zero), step, zero)

    x = rounded("x", 0.02)
    for inputs, channels in ((3, 8), (8, 8)):
        weight = net.tensor(net.rng.integers(-127, 127, (channels, inputs, 3, 3)), np.int8)
        steps, zeros = net.tensor(np.full(channels, 0.01)), net.tensor(np.zeros(channels), np.int8)
        w = net.node("DequantizeLinear", weight, steps, zeros, axis=0)
        x = rounded(net.node("Relu", net.node("Conv", x, w, strides=[2, 2], pads=[1] * 4)), 0.05)
    net.head(x, 8)
    return net.proto()


def control_flow() -> onnx.ModelProto:
    """An If behind the convs whose branches read a value from outside."""
    net = Net("N", 3, 32, 32)
    x = net.node("Relu", net.conv(net.node("Relu", net.conv("x", 3, 8, 2)), 8, 8))
    pooled = net.node("Flatten", net.node("GlobalAveragePool", x))
    enough = net.node("Greater", net.node("ReduceMax", pooled, keepdims=0), net.tensor(0.0))

    def branch(op: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(op, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, [pooled], [op])], op, [], [result])

    net.node("If", enough, out="scores", then_branch=branch("Relu"), else_branch=branch("Neg"))
    return net.proto()


def functions() -> onnx.ModelProto:
    """A block as a local function, and its weights as Constant nodes."""
    net = Net("N", 3, 32, 32)
    x = net.node("Relu", net.conv("x", 3, 8, 2))
    weight = numpy_helper.from_array(net.rng.normal(size=(8, 8, 3, 3)).astype(np.float32))
    net.nodes.append(helper.make_node("Constant", [], ["w"], value=weight))
    net.nodes.append(helper.make_node("Block", [x, "w"], ["block"], domain="local"))
    net.head("block", 8)
    body = [
        helper.make_node("Conv", ["a", "b"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
    ]
    opsets = [*OPSETS, helper.make_opsetid("local", 1)]
    proto = net.proto(opsets=opsets)
    proto.functions.append(helper.make_function("local", "Block", ["a", "b"], ["d"], body, OPSETS))
    return proto


def repository(name: str) -> Callable[[], onnx.ModelProto]:
    return lambda: onnx.load(MODELS / name)


BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "demo_cnn": repository("demo_cnn.onnx"),
    "demo_explainer": repository("demo_explainer.onnx"),
    "residual": residual,
    "channels_last": channels_last,
    "squeeze_excite": squeeze_excite,
    "shuffle": shuffle,
    "detector": detector,
    "quantised": quantised,
    "control_flow": control_flow,
    "functions": functions,
}
