"""Networks that take or make pictures, and such as take the maps of another network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.errors import ModelError
from fsagn_onnx.model import load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder


@pytest.mark.parametrize("mean", ["ReduceMean", "GlobalAveragePool"])
def test_the_conv_of_a_picture_behind_a_norm_in_single_operators_is_no_layer(mean: str, tmp_path: Path) -> None:
    b = GraphBuilder()

    def mean_of(value: str) -> str:
        return b.op(mean, value, **({"axes": [2, 3], "keepdims": 1} if mean == "ReduceMean" else {}))

    hidden = b.conv(b.conv("image", 3, 8), 8, 24)
    drawn = b.op("Conv", hidden, b.constant(b.rng.normal(size=(3, 24, 3, 3)).astype(np.float32)), pads=[1] * 4)
    centred = b.op("Sub", drawn, mean_of(drawn))
    spread = b.op("Sqrt", b.op("Add", mean_of(b.op("Mul", centred, centred)), b.constant(np.float32(1e-5))))
    b.op("Sigmoid", b.op("Div", centred, spread), out="picture")
    model = load_model(b.save(tmp_path / "m.onnx", ["picture"], size=64))
    assert model.default_layer.value == hidden


@pytest.mark.parametrize(("height", "width"), [(32, 320), (48, 320), (64, 256), (40, 40)])
def test_a_line_of_text_is_wider_than_high(height: int, width: int, tmp_path: Path) -> None:
    b = GraphBuilder()
    b.head(b.conv("image", 3, 8), 8)
    b.save(tmp_path / "m.onnx", ["logits"])
    proto = onnx.load(tmp_path / "m.onnx")
    shape = ["N", 3, height, "width"]
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    onnx.save(proto, tmp_path / "m.onnx")
    spec = load_model(tmp_path / "m.onnx").input_spec
    assert spec.size == (height, width)
    assert spec.guessed[0] == f"size {height}x{width} (that of the input is dynamic)"


@pytest.mark.parametrize("shape", [[1, 2, "h", "w"], ["N", 32, "h", "w"], ["N", 64, 24, 24], ["N", 64, "h", 24]])
def test_maps_of_another_network_are_no_picture(shape: list[int | str], tmp_path: Path) -> None:
    b = GraphBuilder()
    b.conv("image", 3, 8)
    b.save(tmp_path / "m.onnx", [b.nodes[-1].output[0]])
    proto = onnx.load(tmp_path / "m.onnx")
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="no image input"):
        load_model(tmp_path / "m.onnx")
