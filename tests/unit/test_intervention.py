"""What a decision rests on, measured: a network that looks at one corner only, so that the truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.errors import UsageError
from fsagn_onnx.model import load_model
from fsagn_onnx.model.geometry import Geometry, Window
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.runtime.explained_area import Evidence
from fsagn_onnx.runtime.intervention import DecisionMeter

EDGE = 32


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logits (0, bright red in the upper left quarter)."""
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[1, 0] = 1
    place = np.zeros((1, 1, EDGE, EDGE), np.float32)
    place[..., : EDGE // 2, : EDGE // 2] = 1
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["maps"]),
        helper.make_node("Mul", ["maps", "place"], ["seen"]),
        helper.make_node("GlobalAveragePool", ["seen"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "scale", "shift"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "corner",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, EDGE, EDGE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(place, "place"),
            numpy_helper.from_array(np.diag([1.0, 80.0]).astype(np.float32), "scale"),
            numpy_helper.from_array(np.array([0.0, -4.0], np.float32), "shift"),
        ],
    )
    path = tmp_path_factory.mktemp("corner") / "corner.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pixels = np.zeros((EDGE, EDGE, 3), np.uint8)
    pixels[4:12, 4:12, 0] = 255
    return pixels


def evidence(top: int, left: int) -> Evidence:
    rows, columns = np.mgrid[:EDGE, :EDGE]
    distance = np.maximum(abs(rows - top - 3.5), abs(columns - left - 3.5)) + 1e-3 * np.arange(EDGE)
    rank = (distance.ravel().argsort().argsort().reshape(EDGE, EDGE) + 1) / EDGE**2
    return Evidence(
        area=0.1, retention_predicted=None, retention_measured=None, area_rank=rank.astype(np.float32), curve=(),
        box=None, centroid=None, index=1, label=None, score=0.9, decision=1.0,
    )  # fmt: skip


def test_a_decision_rests_where_the_truth_is(corner: Path) -> None:
    model = load_model(corner, preprocess="0..1", labels=["dark", "red"])
    window = Window(0, 0, EDGE, EDGE)
    geometry = Geometry.from_windows((EDGE, EDGE), (EDGE, EDGE), window, window)
    with DecisionMeter(model.proto, classes_of(model), model.input_spec, providers="cpu") as meter:
        right = meter.measured(picture(), evidence(4, 4), geometry)
        wrong = meter.measured(picture(), evidence(20, 20), geometry)
        fixed = meter.measured(picture(), evidence(4, 4), geometry, area=0.2)
    assert right.shown
    assert right.removed is not None
    assert (right.removed.index, right.removed.label) == (0, "dark")
    assert right.control is not None
    assert right.control.title == "red"
    assert right.box is not None
    assert right.box[0] < 12
    assert right.box[1] < 12
    assert not wrong.shown
    assert fixed.area == 0.2


def test_a_model_without_classes_is_refused(corner: Path) -> None:
    model = load_model(corner, preprocess="0..1")
    with pytest.raises(UsageError, match="does not classify"):
        DecisionMeter(model.proto, classes_of(model, scores="none"), model.input_spec)
