"""Shapes that a file declares may be wrong where onnxruntime runs it all the same: they are made true."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.generator.rehearsal import rehearsed
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder


def declared(path: Path, change: Callable[[onnx.GraphProto], None]) -> Model:
    b = GraphBuilder()
    maps = b.conv(b.conv("image", 3, 8), 8, 12)
    b.head(maps, 12)
    b.op("Reshape", maps, b.op("Cast", b.constant(np.int32([0, 12, -1])), to=7), out="flat")
    b.save(path, ["logits", "flat"])
    proto = onnx.load(path)
    change(proto.graph)
    onnx.save(proto, path)
    return load_model(path)


def output(graph: onnx.GraphProto, place: int, shape: list[object] | None) -> None:
    name = graph.output[place].name
    graph.output[place].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))  # type: ignore[arg-type]


def scalar(graph: onnx.GraphProto) -> None:
    """As a converter leaves it that strips shapes: no dimensions at all."""
    output(graph, 0, [])


def no_shape(graph: onnx.GraphProto) -> None:
    output(graph, 0, None)


def other_rank(graph: onnx.GraphProto) -> None:
    """Where onnx infers no rank by itself, behind a Reshape to a computed shape."""
    output(graph, 1, [1, "steps"])


def wrong_inside(graph: onnx.GraphProto) -> None:
    graph.value_info.append(helper.make_tensor_value_info(graph.node[1].output[0], TensorProto.FLOAT, ["N", 8]))


def negative(graph: onnx.GraphProto) -> None:
    """As Paddle's older converters write open dimensions."""
    for item in (graph.input[0], graph.output[0]):
        for place, dim in enumerate(item.type.tensor_type.shape.dim):
            if place != 1:
                dim.dim_value = -1


@pytest.mark.parametrize("change", [scalar, no_shape, other_rank, wrong_inside, negative])
def test_it_is_made_true_and_trains(change: Callable[[onnx.GraphProto], None], tmp_path: Path) -> None:
    model = declared(tmp_path / "m.onnx", change)
    assert model.shape_warning is None
    logits, flat = (item.shape or () for item in model.outputs)
    assert len(logits) == 2
    assert len(flat) == 3
    assert rehearsed(model, model.default_layer) is None


def test_negative_sides_are_free(tmp_path: Path) -> None:
    model = declared(tmp_path / "m.onnx", negative)
    assert model.inputs[0].shape == (None, 3, None, None)
    assert model.input_spec.size == (224, 224)


def test_what_is_right_stays(tmp_path: Path) -> None:
    model = declared(tmp_path / "m.onnx", lambda graph: output(graph, 0, ["pictures", 10]))
    assert model.outputs[0].shape == ("pictures", 10)
