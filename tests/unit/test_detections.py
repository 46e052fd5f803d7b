"""Boxes in the pictures: every layout decoded, at places that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from fsagn_onnx.model.classifier import Classifier
from fsagn_onnx.model.detections import LAYOUTS
from fsagn_onnx.model.detector import Detector
from fsagn_onnx.model.input_spec import Geometry, InputSpec
from fsagn_onnx.model.outputs import Output
from fsagn_onnx.runtime.classes import Classes, classes_in
from fsagn_onnx.runtime.detections import MOST_BOXES, find_detections
from fsagn_onnx.runtime.findings import Detection
from fsagn_onnx.testing.bright_detector import CLASSES, SIZE, bright_detector, bright_picture

SPEC = InputSpec("images", "NCHW", "RGB", (SIZE, SIZE), 1 / 255, (0, 0, 0), (1, 1, 1), "letterbox:0")
SINGLE = ("torchvision", "selected", "paddle", "yolov7")
KINDS = (*LAYOUTS, "paddle", "yolov7", "rtdetr", "rtdetr-rows")


def found(kind: str, *pictures: NDArray[np.uint8], spec: InputSpec = SPEC) -> list[tuple[Detection, ...]]:
    """The boxes of pictures, in one pass where the layout takes several."""
    proto = bright_detector(kind)
    classes = classes_in(proto, SPEC, CLASSES)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    fitted = [spec.preprocess(picture) for picture in pictures]
    batches = [[pair] for pair in fitted] if kind in SINGLE else [fitted]
    results = []
    for batch in batches:
        computed = session.run(names, {"images": np.stack([values for values, _ in batch])})
        outputs = dict(zip(names, computed, strict=True))
        for n, (_, geometry) in enumerate(batch):
            boxes = find_detections(classes, outputs, n, geometry)
            assert boxes is not None
            results.append(boxes)
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_of_each_picture_lie_where_its_squares_are(kind: str) -> None:
    first, second, none = bright_picture([(3, 5, 0), (6, 2, 2)]), bright_picture([(0, 7, 1)]), bright_picture([])
    large = np.zeros((288, 192, 3), dtype=np.uint8)  # bars left and right of it
    large[:192] = cv2.resize(first, (192, 192), interpolation=cv2.INTER_NEAREST)
    one, other, empty, tall = found(kind, first, second, none, large)
    assert sorted((box.title, *np.round(box.box, 3)) for box in one) == [
        ("blue thing", 16, 48, 24, 56),
        ("red thing", 40, 24, 48, 32),
    ]
    assert [(box.title, *np.round(box.box, 3)) for box in other] == [("green thing", 56, 0, 64, 8)]
    assert empty == ()
    assert all(box.score > 0.999 for box in (*one, *other))
    for box in tall:  # resized to two thirds: cells hold parts of squares, boxes are still those of cells
        height, width = tall_cells = (288 / 8, 288 / 8)
        assert (box.box[3] - box.box[1], box.box[2] - box.box[0]) == pytest.approx(tall_cells)
        assert 0 <= box.box[0] < box.box[2] <= 192 + width / 8
        assert 0 <= box.box[1] < box.box[3] <= 288 + height / 8


def test_boxes_are_in_pixels_of_the_original_through_every_resize() -> None:
    """A square of 64 x 64 pixels in the middle of a picture of 256 x 128."""
    picture = np.zeros((128, 256, 3), dtype=np.uint8)
    picture[32:96, 96:160, 0] = 255
    for resize in ("stretch", "letterbox:0", "crop:1"):
        (boxes,) = found("yolov8", picture, spec=replace(SPEC, resize=resize))
        edges = np.array([box.box for box in boxes])
        assert {box.title for box in boxes} == {"red thing"}
        np.testing.assert_allclose([*edges[:, :2].min(0), *edges[:, 2:].max(0)], (96, 32, 160, 96))


def plain(detector: Detector, **outputs: NDArray[Any]) -> tuple[Detection, ...] | None:
    listed = tuple(
        Output(name, str(v.dtype), None if detector.alone else 0, False, False, None, "other", name, v.shape)
        for name, v in outputs.items()
    )
    classes = Classes(Classifier(listed, None, "none", None, ""), ("a", "b"), detector)
    geometry = Geometry((SIZE, SIZE), (SIZE, SIZE), np.eye(2, 3))
    return find_detections(classes, outputs, 0, geometry)


def rows(*lines: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(lines, dtype=np.float32)[None]


END = Detector("end2end", {"predictions": "y"})


def test_weak_broken_and_outside_boxes_are_left_out_and_the_others_clipped_and_sorted() -> None:
    y = rows(
        (0, 0, 10, 10, 0.3, 0), (5, 5, 90, 20, 0.9, 1), (1, 1, 2, 2, 0.2, 0), (np.nan, 0, 1, 1, 0.9, 0),
        (70, 70, 80, 80, 0.9, 0), (1, 1, 5, 5, np.nan, 0), (30, 30, 20, 20, 0.5, 7),
    )  # fmt: skip
    boxes = plain(END, y=y)
    assert boxes is not None
    assert [(box.title, round(box.score, 2), box.box) for box in boxes] == [
        ("b", 0.9, (5, 5, 64, 20)),
        ("class 7", 0.5, (20, 20, 30, 30)),
        ("a", 0.3, (0, 0, 10, 10)),
    ]


def test_overlapping_boxes_of_one_class_are_suppressed_and_of_two_are_kept() -> None:
    detector = Detector("boxes-scores", {"boxes": "b", "scores": "s"}, classes=2, suppress=True)
    boxes = rows((0, 0, 20, 20), (1, 0, 20, 20), (0, 0, 20, 20), (40, 40, 60, 60))
    scores = rows((0.9, 0), (0.8, 0), (0, 0.7), (0.6, 0))
    found = plain(detector, b=boxes, s=scores)
    assert found is not None
    assert [(box.title, round(box.score, 1)) for box in found] == [("a", 0.9), ("b", 0.7), ("a", 0.6)]


def test_logits_become_probabilities_and_the_background_is_no_object() -> None:
    boxes = rows((0, 0, 20, 20), (40, 40, 60, 60))
    kind = Detector("boxes-scores", {"boxes": "b", "scores": "s"}, classes=3, suppress=True)
    soft = replace(kind, squash="softmax", background=0, first_label=1)
    found = plain(soft, b=boxes, s=rows((9, 0, 0), (0, 0, 9)))
    assert found is not None
    assert [(box.index, box.title) for box in found] == [(2, "b")]
    found = plain(replace(kind, squash="sigmoid"), b=boxes, s=rows((0, -9, -9), (-9, -9, -9)))
    assert found is not None
    assert [(box.index, box.score) for box in found] == [(0, 0.5)]


def test_counts_and_images_of_lists_are_heeded() -> None:
    lists = Detector("efficientnms", {"boxes": "b", "scores": "s", "classes": "c", "count": "n"})
    found = plain(
        lists, b=rows((0, 0, 1, 1), (2, 2, 3, 3)), s=rows((0.9, 0.8))[0], c=np.array([[1, 0]]), n=np.array([[1]])
    )
    assert found is not None
    assert [box.title for box in found] == ["b"]
    seven = Detector("end2end", {"predictions": "y"}, columns=(1, 6, 5, 0), alone=True)
    found = plain(seven, y=rows((0, 0, 0, 9, 9, 1, 0.9), (1, 0, 0, 9, 9, 0, 0.9))[0])
    assert found is not None
    assert [box.title for box in found] == ["b"]


@pytest.mark.parametrize(
    ("detector", "outputs"),
    [
        (END, {"y": np.zeros((1, 0, 6), np.float32)}),
        (END, {"y": np.zeros((1, 3, 2), np.float32)}),
        (END, {"y": np.zeros((1, 6), np.float32)}),
        (replace(END, alone=True), {"y": np.zeros((0, 6), np.float32)}),
        (replace(END, alone=True), {"y": np.zeros((), np.float32)}),
        (Detector("torchvision", {"boxes": "b", "scores": "s", "classes": "c"}, alone=True),
         {"b": np.zeros((0, 4), np.float32), "s": np.zeros(0, np.float32), "c": np.zeros(0, np.int64)}),
        (Detector("selected", {"boxes": "b", "scores": "s", "selected": "i"}, swapped=True, alone=True),
         {"b": np.zeros((1, 5, 4), np.float32), "s": np.ones((1, 2, 5), np.float32),
          "i": np.array([[0, 9, 9], [3, 0, 0]])}),
        (Detector("yolox", {"predictions": "y"}, unit="grid", suppress=True, corners="cxcywh", columns=(0, 5, 5, None)),
         {"y": np.ones((1, 7, 9), np.float32)}),
        (Detector("boxes-scores", {"boxes": "b", "scores": "s"}, suppress=True),
         {"b": np.ones((1, 5, 4), np.float32), "s": np.ones((1, 4, 2), np.float32)}),
    ],
)  # fmt: skip
def test_nothing_found_and_numbers_that_do_not_fit_give_no_box(
    detector: Detector, outputs: dict[str, NDArray[Any]]
) -> None:
    assert plain(detector, **outputs) == ()


def test_a_detector_whose_outputs_are_not_there_says_nothing() -> None:
    assert plain(END, z=np.zeros((1, 3, 6), np.float32)) is None


def test_the_number_of_boxes_is_bounded() -> None:
    many = np.tile(rows((0, 0, 9, 9, 0.9, 0)), (1, 5000, 1))
    boxes = plain(END, y=many)
    assert boxes is not None
    assert len(boxes) == MOST_BOXES


def test_labels_that_belong_to_something_else_name_no_box() -> None:
    detector = Detector("yolov8", {"predictions": "y"}, swapped=True, suppress=True, columns=(0, 4, 4, None), classes=3,
                        corners="cxcywh")  # fmt: skip
    y = np.array([[[8.0], [8], [4], [4], [0.9], [0], [0]]], dtype=np.float32)
    boxes = plain(detector, y=y)
    assert boxes is not None
    assert (boxes[0].label, boxes[0].title, boxes[0].box) == (None, "class 0", (6, 6, 10, 10))
