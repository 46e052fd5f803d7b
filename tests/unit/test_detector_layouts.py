"""Which layout a detector has, and where its scores are: told by its graph alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from fsagn_onnx.errors import UsageError
from fsagn_onnx.model.box_heads import grid_strides
from fsagn_onnx.model.detections import LAYOUTS
from fsagn_onnx.model.detector import Detector
from fsagn_onnx.model.input_spec import InputSpec
from fsagn_onnx.runtime.classes import Classes, classes_in
from fsagn_onnx.testing.bright_detector import CLASSES, SIZE, bright_detector, bright_picture

SPEC = InputSpec("images", "NCHW", "RGB", (SIZE, SIZE), 1 / 255, (0, 0, 0), (1, 1, 1), "letterbox:0")
OTHERS = {"paddle": "end2end", "yolov7": "end2end", "rtdetr": "yolov8", "rtdetr-rows": "end2end"}
KINDS = (*LAYOUTS, *OTHERS)


def read(proto: onnx.ModelProto, labels: tuple[str, ...] | None = None) -> Classes:
    return classes_in(proto, SPEC, labels)


def detector(kind: str, labels: tuple[str, ...] | None = None) -> Detector:
    found = read(bright_detector(kind), labels).detector
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [None, CLASSES], ids=["unnamed", "named"])
def test_each_layout_is_recognised(kind: str, labels: tuple[str, ...] | None) -> None:
    found = detector(kind, labels)
    assert found.layout == OTHERS.get(kind, kind)
    assert found.alone == (kind in ("torchvision", "selected", "paddle", "yolov7"))
    assert found.suppress == (kind in ("yolov5", "yolov8", "yolox", "picodet", "boxes-scores", "rtdetr"))
    assert found.reason


@pytest.mark.parametrize(
    ("kind", "columns"),
    [("end2end", (0, 4, 5, None)), ("paddle", (2, 1, 0, None)), ("yolov7", (1, 6, 5, 0))],
)
def test_rows_say_by_their_structure_what_stands_where(kind: str, columns: tuple[int, int, int, int | None]) -> None:
    assert detector(kind).columns == columns


@pytest.mark.parametrize("kind", KINDS)
def test_the_value_that_holds_the_scores_gives_the_best_box_the_odds_of_its_class(kind: str) -> None:
    """The logit of a wholly red cell is 20, of all others -20."""
    scores = detector(kind).scores
    if kind == "picodet":
        assert scores is None  # they are in several values
        return
    assert scores is not None
    proto = bright_detector(kind)
    proto.graph.output.append(onnx.ValueInfoProto(name=scores.value))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.moveaxis(bright_picture([(3, 5, 0)]), -1, 0)[None].astype(np.float32) / 255
    (values,) = session.run([scores.value], {"images": picture})
    if scores.axis is None:
        assert scores.chosen
        best = float(values.max())
    else:
        rows = np.moveaxis(values, scores.axis, -1).reshape(-1, values.shape[scores.axis])
        kinds = rows[:, scores.first : scores.first + 3]
        assert scores.count in (3, None)
        factor = 1 if scores.objectness is None else rows[:, scores.objectness : scores.objectness + 1]
        best = float((kinds * factor).max())
        assert np.unravel_index((kinds * factor).argmax(), kinds.shape)[1] == 0
    assert best == pytest.approx(20, abs=1e-3) if scores.logits else best == pytest.approx(1, abs=1e-3)


def test_the_logits_behind_the_sigmoid_are_named_where_one_value_holds_them() -> None:
    for kind in ("yolov8", "boxes-scores", "end2end", "tensorflow", "efficientnms", "selected", "torchvision"):
        scores = detector(kind).scores
        assert scores is not None
        assert (scores.logits, scores.axis, scores.count) == (True, 1, 3), kind


def test_what_is_no_detector_has_no_boxes() -> None:
    proto = bright_detector("yolov8")
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info("features", 1, ["N", 6, SIZE, SIZE]))
    assert read(proto).detector is None


def test_the_users_word_wins_and_what_cannot_be_read_so_is_refused() -> None:
    classes = read(bright_detector("boxes-scores"))
    assert classes.chosen(detections="none").detector is None
    assert classes.chosen(detections="boxes-scores").detector is not None
    with pytest.raises(UsageError, match=r"--detections yolov8: expected an output \(N, 4 \+ classes, anchors\)"):
        classes.chosen(detections="yolov8")
    with pytest.raises(UsageError, match="must be one of tensorflow, efficientnms"):
        classes.chosen(detections="yolo")


def test_anchors_are_cells_of_neighbouring_maps() -> None:
    assert grid_strides((640, 640), 8400) == (1, (8, 16, 32))
    assert grid_strides((640, 640), 25200) == (3, (8, 16, 32))
    assert grid_strides((1280, 1280), 34000) == (1, (8, 16, 32, 64))
    assert grid_strides((384, 640), 5040) == (1, (8, 16, 32))
    assert grid_strides((640, 640), 8401) is None
