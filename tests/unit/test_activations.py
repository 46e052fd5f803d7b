"""A layer is tapped behind its activation, however that is spelled, and its tap is what the spelling says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.conversion import check_parity, convert
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder

Write = Callable[[GraphBuilder, str], str]


def number(b: GraphBuilder, value: float) -> str:
    return b.constant(np.float32(value))


def slope(b: GraphBuilder) -> str:
    return b.constant(np.full((6, 1, 1), 0.1, np.float32))


def positive(b: GraphBuilder, x: str) -> str:
    return b.op("Max", x, number(b, 0))


def negative(b: GraphBuilder, x: str) -> str:
    return b.op("Neg", b.op("Relu", b.op("Neg", x)))


def below(b: GraphBuilder, x: str) -> str:
    return b.op("Mul", b.op("Sub", x, b.op("Abs", x)), b.constant(np.full((6, 1, 1), 0.05, np.float32)))


def sixth(b: GraphBuilder, x: str) -> str:
    return b.op("Div", x, number(b, 6))


def up_to_6(b: GraphBuilder, x: str) -> str:
    return b.op("Min", x, number(b, 6))


def three_more(b: GraphBuilder, x: str) -> str:
    return b.op("Add", x, number(b, 3))


SPELLINGS: dict[str, tuple[str, Write]] = {
    "relu, min": ("relu6", lambda b, x: b.op("Min", b.op("Relu", x), number(b, 6))),
    "min, relu": ("relu6", lambda b, x: b.op("Relu", b.op("Min", number(b, 6), x))),
    "max, min": ("relu6", lambda b, x: b.op("Min", positive(b, x), number(b, 6))),
    "min, max": ("relu6", lambda b, x: positive(b, b.op("Min", x, number(b, 6)))),
    "relu, clip": ("relu6", lambda b, x: b.op("Clip", b.op("Relu", x), "", number(b, 6))),
    "clip, clip": (
        "relu6",
        lambda b, x: b.op("Clip", b.op("Clip", x, number(b, 0)), "", b.op("Identity", number(b, 6))),
    ),
    "clip of computed bounds": (
        "relu6",
        lambda b, x: b.op("Clip", x, b.op("Sub", number(b, 6), number(b, 6)), b.op("Add", number(b, 2), number(b, 4))),
    ),
    "relu, relu, identity, min": (
        "relu6",
        lambda b, x: b.op("Min", b.op("Identity", b.op("Relu", b.op("Relu", x))), number(b, 6)),
    ),
    "leaky by max": ("leaky", lambda b, x: b.op("Max", b.op("Mul", x, number(b, 0.1)), x)),
    "leaky by where": (
        "leaky",
        lambda b, x: b.op("Where", b.op("Greater", x, number(b, 0)), x, b.op("Mul", x, slope(b))),
    ),
    "leaky by two relus": ("leaky", lambda b, x: b.op("Add", b.op("Relu", x), b.op("Mul", negative(b, x), slope(b)))),
    "leaky by abs": ("leaky", lambda b, x: b.op("Add", b.op("Relu", x), below(b, x))),
    "leaky by max and min": (
        "leaky",
        lambda b, x: b.op("Add", positive(b, x), b.op("Mul", b.op("Min", x, number(b, 0)), slope(b))),
    ),
    "relu by a mask": (
        "relu",
        lambda b, x: b.op("Mul", x, b.op("Cast", b.op("Less", number(b, 0), x), to=TensorProto.FLOAT)),
    ),
    "hard swish by relu and min": (
        "hard swish",
        lambda b, x: b.op("Mul", x, sixth(b, up_to_6(b, b.op("Relu", three_more(b, x))))),
    ),
    "hard swish by max and min": (
        "hard swish",
        lambda b, x: sixth(b, b.op("Mul", x, up_to_6(b, positive(b, three_more(b, x))))),
    ),
    "swish by exp": (
        "swish",
        lambda b, x: b.op("Div", x, b.op("Add", b.op("Exp", b.op("Neg", x)), number(b, 1))),
    ),
    "elu by where": (
        "elu",
        lambda b, x: b.op("Where", b.op("Less", x, number(b, 0)), b.op("Sub", b.op("Exp", x), number(b, 1)), x),
    ),
}  # fmt: skip
MEANING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "hard swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "swish": lambda x: x / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.exp(x) - 1),
}


def with_activation(path: Path, write: Write) -> Model:
    b = GraphBuilder()
    weights = (b.rng.normal(size=(6, 3, 3, 3)) * 2).astype(np.float32)
    tap = write(b, b.op("Conv", "image", b.constant(weights), strides=[2, 2], pads=[1] * 4, out="conv"))
    b.op("Identity", tap, out="tap")
    b.head("tap", 6)
    return load_model(b.save(path, ["logits"]))


def answers(model: onnx.ModelProto, values: list[str]) -> list[np.ndarray]:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    proto.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in values)
    picture = np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype(np.float32)
    return list(onnxruntime.InferenceSession(proto.SerializeToString()).run(values, {"image": picture}))


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_layer_is_tapped_behind_its_activation(tmp_path: Path, name: str) -> None:
    meaning, write = SPELLINGS[name]
    model = with_activation(tmp_path / "m.onnx", write)
    (layer,) = model.layers
    tapped, conv = answers(model.proto, [layer.value, "conv"])
    np.testing.assert_allclose(tapped, MEANING[meaning](conv), atol=1e-5)
    assert check_parity(model, convert(model, [layer.value], check=False)).max_relative_error < 1e-4


def test_a_clamp_that_something_else_reads_ends_the_walk(tmp_path: Path) -> None:
    def write(b: GraphBuilder, x: str) -> str:
        relu = b.op("Relu", x, out="relu")
        return b.op("Add", b.op("Min", relu, number(b, 6)), b.op("MaxPool", relu, kernel_shape=[1, 1]))

    (layer,) = with_activation(tmp_path / "m.onnx", write).layers
    assert (layer.value, layer.op) == ("relu", "Conv+Relu")


def test_a_maximum_with_another_map_is_no_activation(tmp_path: Path) -> None:
    def write(b: GraphBuilder, x: str) -> str:
        return b.op("Max", x, b.op("ReduceMean", x, axes=[2, 3], keepdims=1))

    (layer,) = with_activation(tmp_path / "m.onnx", write).layers
    assert (layer.value, layer.op) == ("conv", "Conv")
