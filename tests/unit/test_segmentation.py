"""Maps of classes: recognised in the graph, counted in the picture, drawn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.errors import UsageError
from fsagn_onnx.model.class_map import ClassMap
from fsagn_onnx.model.input_spec import InputSpec
from fsagn_onnx.runtime.classes import Classes, classes_in
from fsagn_onnx.runtime.findings import Segmentation
from fsagn_onnx.runtime.segments import find_segmentation

SIDE = 32
SPEC = InputSpec("x", "NCHW", "RGB", (SIDE, SIDE), 1 / 255, (0, 0, 0), (1, 1, 1), "letterbox:0")
NAMES = ("background", "red thing", "green thing")


def colours(
    *ends: tuple[str, dict[str, Any]], channels: int = 3, name: str = "out", shape: Any = None
) -> onnx.ModelProto:
    """A network whose map is large where the picture is dark (0), red (1) or green (2); ``ends`` come after it."""
    weights = np.zeros((channels, 3, 1, 1), np.float32)
    bias = np.zeros(channels, np.float32)
    if channels == 1:
        weights[0, 0], bias[0] = 20, -10
    else:
        weights[1, 0], weights[2, 1], bias[0] = 20, 20, 10
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["map"])]
    for number, (kind, attributes) in enumerate(ends):
        nodes.append(helper.make_node(kind, [nodes[-1].output[0]], [f"t{number}"], **attributes))
    nodes.append(helper.make_node("Identity", [nodes[-1].output[0]], [name]))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    whole = any(kind == "ArgMax" for kind, _ in ends) and not any(kind == "Cast" for kind, _ in ends)
    made = helper.make_tensor_value_info(name, TensorProto.INT64 if whole else TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "g", [image], [made], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def read(proto: onnx.ModelProto, labels: tuple[str, ...] | None = None) -> Classes:
    return classes_in(proto, SPEC, labels)


def found(proto: onnx.ModelProto, picture: NDArray[np.uint8], classes: Classes) -> Segmentation | None:
    values, geometry = SPEC.preprocess(picture)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"x": values[None]}), strict=True))
    return find_segmentation(classes, outputs, 0, geometry)


SOFT = ("Softmax", {"axis": 1})
SIGMOID: tuple[str, dict[str, Any]] = ("Sigmoid", {})
LAST = ("Transpose", {"perm": [0, 2, 3, 1]})


@pytest.mark.parametrize(
    ("proto", "kind"),
    [
        (colours(SOFT), "scores"),
        (colours(SOFT, LAST), "scores"),
        (colours(LAST, ("Softmax", {"axis": 3})), "scores"),
        (colours(("ArgMax", {"axis": 1, "keepdims": 1})), "numbers"),
        (colours(("ArgMax", {"axis": 1, "keepdims": 0})), "numbers"),
        (colours(SOFT, ("ArgMax", {"axis": 1, "keepdims": 0}), ("Cast", {"to": TensorProto.FLOAT})), "numbers"),
        (colours(name="seg_logits"), "scores"),
    ],
)
def test_shares_are_those_of_the_picture_and_not_of_its_border(proto: onnx.ModelProto, kind: str) -> None:
    """A quarter of a picture twice as wide as high is red, an eighth green; the borders of the letterbox are dark."""
    picture = np.zeros((32, 64, 3), dtype=np.uint8)
    picture[:16, :32, 0] = 255
    picture[16:, 48:, 1] = 255
    classes = read(proto, NAMES)
    assert classes.class_map is not None
    assert classes.class_map.kind == kind
    result = found(proto, picture, classes)
    assert result is not None
    shares = [(segment.index, segment.title, segment.share) for segment in result.segments]
    assert shares == [(0, "background", 0.625), (1, "red thing", 0.25), (2, "green thing", 0.125)]
    assert result.places.shape == (SIDE, SIDE)
    assert (result.places[9, 3], result.places[20, 30], result.places[20, 3]) == (1, 2, 0)


def test_a_mask_is_said_as_the_share_of_its_foreground() -> None:
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    picture[:10, :, 0] = 255
    for proto, labels, title in (
        (colours(SIGMOID, channels=1), None, "foreground"),
        (colours(channels=1, name="mask"), ("cat",), "cat"),
        (colours(SIGMOID, channels=1), ("nothing", "cat"), "cat"),
    ):
        result = found(proto, picture, read(proto, labels))
        assert result is not None
        assert [(segment.index, segment.title, segment.share) for segment in result.segments] == [(1, title, 0.25)]
        assert set(np.unique(result.places).tolist()) == {-1, 1}


def test_classes_that_do_not_exclude_each_other_each_have_their_share() -> None:
    proto = colours(SIGMOID, name="masks")
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    picture[:8, :, 0] = 255
    result = found(proto, picture, read(proto))
    assert result is not None
    assert [(segment.title, segment.share) for segment in result.segments] == [("class 0", 1.0), ("class 1", 0.25)]


@pytest.mark.parametrize(
    "proto",
    [
        colours(channels=3),  # a picture, for all that is known
        colours(channels=1),  # a depth, ...
        colours(SIGMOID, channels=1, name="heatmap"),
        colours(SIGMOID, channels=5),
        colours(("AveragePool", {"kernel_shape": [4, 4], "strides": [4, 4]}), channels=17),  # heat maps of joints
        colours(("GlobalAveragePool", {}), SIGMOID, channels=1),
    ],
)
def test_other_maps_are_no_classes(proto: onnx.ModelProto) -> None:
    classes = read(proto)
    assert (classes.class_map, classes.detector) == (None, None)


def test_a_guess_is_said_to_be_one_and_the_users_word_wins() -> None:
    guess = read(colours(channels=5)).class_map
    assert guess is not None
    assert guess.guessed
    assert "a guess" in str(read(colours(channels=5)))
    unknown = read(colours(channels=3))
    told = unknown.chosen(detections="segmentation").class_map
    assert isinstance(told, ClassMap)
    assert read(colours(SOFT)).chosen(detections="none").class_map is None
    flat = read(colours(("GlobalAveragePool", {}), channels=4))
    with pytest.raises(UsageError, match="--detections segmentation: expected a map"):
        flat.chosen(detections="segmentation")


def test_the_value_of_the_logits_is_named() -> None:
    for proto in (
        colours(SOFT),
        colours(SOFT, ("ArgMax", {"axis": 1})),
        colours(name="seg_logits"),
        colours(SOFT, LAST),
    ):
        class_map = read(proto).class_map
        assert class_map is not None
        scores = class_map.scores
        assert scores is not None
        assert scores.value in ("map", "seg_logits")
        assert (scores.axis, scores.logits, scores.exclusive) == (1, True, True)
    mask = read(colours(SIGMOID, channels=1)).class_map
    assert mask is not None
    assert mask.scores is not None
    assert (mask.scores.value, mask.scores.logits, mask.scores.exclusive) == ("map", True, False)


def test_what_inspect_says_is_strict_json() -> None:
    members = read(colours(SOFT)).to_dict()
    assert members["segmentation"] == "out"
    assert members["detections"] is None
    json.dumps(members, allow_nan=False)
