"""Detectors built by hand, in every layout that is known: they find squares of one colour, whose places are known.

A picture of 64 x 64 pixels has 8 x 8 cells. A cell that is red holds an object of class 0, a green one of class 1, a
blue one of class 2; its box is the cell. Cells of coarser maps never hold one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["CLASSES", "SIZE", "bright_detector", "bright_picture"]

SIZE: Final = 64
CLASSES: Final = ("red thing", "green thing", "blue thing")
STRIDES: Final = (8, 16, 32)
STEEP: Final = 40.0
"""Logit of a wholly coloured cell: half of it above zero, of a black one below."""


def bright_picture(cells: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """A black picture with cells (row, column, class) in colour, uint8 (64, 64, 3)."""
    picture = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    for row, column, kind in cells:
        picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8, kind] = 255
    return picture


def bright_detector(layout: str, batch: int | str = "N", labels: Sequence[str] | None = CLASSES) -> onnx.ModelProto:
    """A detector in a layout.

    Args:
        layout: one of `LAYOUTS`, ``paddle`` (rows of class, score, box), ``yolov7`` (rows of 7), ``rtdetr`` (few rows
            of a box in shares and a number per class) or ``rtdetr-rows`` (of a box in shares, score and class).
        batch: fixed number or name; the lists without an axis of images have a batch of 1.
        labels: of its metadata, in Ultralytics' words; None: none.
    """
    made = _Builder("1" if layout in ("torchvision", "selected", "paddle", "yolov7") else str(batch))
    getattr(made, f"_{layout.replace('-', '_')}")()
    return made.model(labels)


class _Builder:
    def __init__(self, batch: str) -> None:
        self._batch: int | str = int(batch) if batch.isdigit() else batch
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        eye = np.zeros((6, 3, 3, 3), dtype=np.float32)
        eye[range(3), range(3), 1, 1] = 1
        eye[range(3, 6), range(3)] = 1 / 9
        self._map = self.op("Relu", self.op("Conv", "images", self.constant(eye), pads=[1] * 4), out="features")
        self._classes = len(CLASSES)

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"c{len(self._constants)}"))
        return self._constants[-1].name

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        return self.ops(kind, inputs, [out or f"v{len(self._nodes)}"], **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Sequence[str]:
        self._nodes.append(helper.make_node(kind, list(inputs), list(outputs), **attributes))
        return outputs

    def split(self, value: str, axis: int, *widths: int) -> Sequence[str]:
        names = [f"{value}/{place}" for place in range(len(widths))]
        return self.ops("Split", [value, self.constant(widths, np.int64)], names, axis=axis)

    def output(self, value: str, name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> None:
        self.op("Identity", value, out=name)
        self._outputs.append(helper.make_tensor_value_info(name, kind, [self._batch if s == "N" else s for s in shape]))

    def model(self, labels: Sequence[str] | None) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [self._batch, 3, SIZE, SIZE])
        graph = helper.make_graph(self._nodes, "detector", [image], self._outputs, self._constants)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        spec = {"name": "images", "layout": "NCHW", "color": "RGB", "size": [SIZE, SIZE], "scale": 1 / 255, "mean": 0,
                "std": 1, "resize": "letterbox:0"}  # fmt: skip
        described = {"input": spec, "labels": None if labels is None else list(labels)}
        helper.set_model_props(proto, {"fsagn_model": json.dumps(described)})
        return proto

    def head(self, stride: int, before: Sequence[float], anchors: int = 1, first: Sequence[float] = ()) -> str:
        """A conv (N, anchors * (before + classes), h, w): constants, then the classes' logits of every cell.

        Args:
            stride: edge of a cell.
            before: what stands before the classes.
            anchors: so many times.
            first: what stands before the classes of the first anchor of the finest map, if it differs.
        """
        width = len(before) + self._classes
        weights = np.zeros((anchors * width, 6, stride, stride), dtype=np.float32)
        bias = np.full(anchors * width, -STEEP / 2, dtype=np.float32)
        for anchor in range(anchors):
            start = anchor * width
            bias[start : start + len(before)] = first if first and anchor == 0 and stride == 8 else before
            for kind in range(self._classes if stride == 8 else 0):
                weights[start + len(before) + kind, kind] = STEEP / stride**2
        return self.op("Conv", self._map, self.constant(weights), self.constant(bias), strides=[stride, stride])

    def cells(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Centres (2, A) in cells, x first, and strides (1, A), of all maps."""
        centres, strides = [], []
        for stride in STRIDES:
            side = SIZE // stride
            row, column = np.mgrid[:side, :side] + 0.5
            centres.append(np.stack([column.ravel(), row.ravel()]))
            strides.append(np.full((1, side * side), stride))
        return np.concatenate(centres, 1).astype(np.float32), np.concatenate(strides, 1).astype(np.float32)

    def decoded(self, *, corners: bool) -> tuple[str, str]:
        """Boxes (N, 4, A) in pixels and logits (N, classes, A), as Ultralytics' later heads decode them."""
        width = 4 + self._classes
        shape = self.constant([0, width, -1], np.int64)
        levels = [self.op("Reshape", self.head(stride, [0.5] * 4), shape) for stride in STRIDES]
        box, logits = self.split(self.op("Concat", *levels, axis=2), 1, 4, self._classes)
        left, right = self.split(box, 1, 2, 2)
        centres, strides = self.cells()
        middle = self.constant(centres[None])
        one, other = self.op("Sub", middle, left), self.op("Add", middle, right)
        if not corners:
            half = self.op("Div", self.op("Add", one, other), self.constant(2))
            one, other = half, self.op("Sub", other, one)
        return self.op("Mul", self.op("Concat", one, other, axis=1), self.constant(strides)), logits

    def _yolov8(self) -> None:
        box, logits = self.decoded(corners=False)
        made = self.op("Concat", box, self.op("Sigmoid", logits), axis=1)
        self.output(made, "output0", ["N", 4 + self._classes, 84])

    def _yolov5(self) -> None:
        width, levels = 5 + self._classes, []
        for stride in STRIDES:
            side = SIZE // stride
            made = self.head(stride, [0, 0, 0, 0, -20], 3, [0, 0, 0, 0, 20])
            made = self.op("Reshape", made, self.constant([0, 3, width, side, side], np.int64))
            made = self.op("Sigmoid", self.op("Transpose", made, perm=[0, 1, 3, 4, 2]))
            xy, wh, rest = self.split(made, 4, 2, 2, 1 + self._classes)
            row, column = np.mgrid[:side, :side]
            grid = self.constant(np.stack([column, row], -1)[None, None] - 0.5)
            xy = self.op("Mul", self.op("Add", self.op("Mul", xy, self.constant(2)), grid), self.constant(stride))
            wide = self.op("Pow", self.op("Mul", wh, self.constant(2)), self.constant(2))
            wide = self.op("Mul", wide, self.constant(np.reshape([stride, 2 * stride, 3 * stride], (1, 3, 1, 1, 1))))
            made = self.op("Concat", xy, wide, rest, axis=4)
            levels.append(self.op("Reshape", made, self.constant([0, 3 * side * side, width], np.int64)))
        self.output(self.op("Concat", *levels, axis=1), "output0", ["N", 252, width])

    def _yolox(self) -> None:
        width = 5 + self._classes
        levels = []
        for stride in STRIDES:
            box, thing, kinds = self.split(self.head(stride, [0.5, 0.5, 0, 0, 20]), 1, 4, 1, self._classes)
            made = self.op("Concat", box, self.op("Sigmoid", thing), self.op("Sigmoid", kinds), axis=1)
            levels.append(self.op("Reshape", made, self.constant([0, width, -1], np.int64)))
        made = self.op("Transpose", self.op("Concat", *levels, axis=2), perm=[0, 2, 1])
        self.output(made, "output", ["N", 84, width])

    def _picodet(self) -> None:
        """Distances of half a stride: of the bins 0 to 7, the first two as likely, the others not at all."""
        bins = [0.0, 0.0, *[-99.0] * 6]
        width = 32 + self._classes
        for stride in STRIDES:
            made = self.op("Reshape", self.head(stride, bins * 4), self.constant([0, width, -1], np.int64))
            sides, kinds = self.split(self.op("Transpose", made, perm=[0, 2, 1]), 2, 32, self._classes)
            cells = (SIZE // stride) ** 2
            self.output(self.op("Sigmoid", kinds), f"scores_{stride}", ["N", cells, self._classes])
            self.output(sides, f"sides_{stride}", ["N", cells, 32])

    def _boxes_scores(self) -> None:
        box, logits = self.decoded(corners=True)
        self.output(self.op("Transpose", box, perm=[0, 2, 1]), "boxes", ["N", 84, 4])
        self.output(
            self.op("Transpose", self.op("Sigmoid", logits), perm=[0, 2, 1]), "scores", ["N", 84, self._classes]
        )

    def best(self, count: int = 10) -> tuple[str, str, str]:
        """The best boxes (N, M, 4) in corners, their scores (N, M, 1) and classes (N, M, 1) as int64."""
        box, logits = self.decoded(corners=True)
        scores = self.op("Transpose", self.op("Sigmoid", logits), perm=[0, 2, 1])
        best = self.op("ReduceMax", scores, axes=[2], keepdims=1)
        kinds = self.op("ArgMax", scores, axis=2, keepdims=1)
        top, places = self.ops("TopK", [best, self.constant([count], np.int64)], ["top", "places"], axis=1)
        four = self.op("Tile", places, self.constant([1, 1, 4], np.int64))
        box = self.op("GatherElements", self.op("Transpose", box, perm=[0, 2, 1]), four, axis=1)
        return box, top, self.op("GatherElements", kinds, places, axis=1)

    def _end2end(self) -> None:
        box, score, kind = self.best()
        made = self.op("Concat", box, score, self.op("Cast", kind, to=TensorProto.FLOAT), axis=2)
        self.output(made, "output0", ["N", 10, 6])

    def _shares(self) -> tuple[str, str]:
        """The ten best boxes (N, 10, 4), centre and size as shares behind a sigmoid, and scores (N, 10, classes)."""
        box, logits = self.decoded(corners=False)
        box, logits = self.op("Transpose", box, perm=[0, 2, 1]), self.op("Transpose", logits, perm=[0, 2, 1])
        best = self.op("ReduceMax", logits, axes=[2], keepdims=1)
        _, places = self.ops("TopK", [best, self.constant([10], np.int64)], ["top", "places"], axis=1)
        chosen = []
        for value, width in ((box, 4), (logits, self._classes)):
            wide = self.op("Tile", places, self.constant([1, 1, width], np.int64))
            chosen.append(self.op("GatherElements", value, wide, axis=1))
        share = self.op(
            "Clip", self.op("Div", chosen[0], self.constant(SIZE)), self.constant(1e-5), self.constant(0.99999)
        )
        odds = self.op("Log", self.op("Div", share, self.op("Sub", self.constant(1), share)))
        return self.op("Sigmoid", odds), self.op("Sigmoid", chosen[1])

    def _rtdetr(self) -> None:
        self.output(self.op("Concat", *self._shares(), axis=2), "output0", ["N", 10, 4 + self._classes])

    def _rtdetr_rows(self) -> None:
        box, scores = self._shares()
        kind = self.op("Cast", self.op("ArgMax", scores, axis=2, keepdims=1), to=TensorProto.FLOAT)
        made = self.op("Concat", box, self.op("ReduceMax", scores, axes=[2], keepdims=1), kind, axis=2)
        self.output(made, "output0", ["N", 10, 6])

    def _lists(self, box: str, score: str, kind: str) -> tuple[str, str]:
        last = self.constant([2], np.int64)
        return self.op("Squeeze", score, last), self.op("Squeeze", kind, last)

    def _tensorflow(self) -> None:
        box, score, kind = self.best()
        score, kind = self._lists(box, score, kind)
        x0, y0, x1, y1 = self.split(self.op("Div", box, self.constant(SIZE)), 2, 1, 1, 1, 1)
        self.output(self.op("Concat", y0, x0, y1, x1, axis=2), "detection_boxes:0", ["N", 10, 4])
        self.output(score, "detection_scores:0", ["N", 10])
        one = self.constant(1)
        first = self.op("Add", self.op("Cast", kind, to=TensorProto.FLOAT), one)
        self.output(first, "detection_classes:0", ["N", 10])
        many = self.op("ReduceSum", self.op("Clip", score, one, one), self.constant([1], np.int64), keepdims=0)
        self.output(many, "num_detections:0", ["N"])

    def _efficientnms(self) -> None:
        box, score, kind = self.best()
        score, kind = self._lists(box, score, kind)
        found = self.op("Cast", self.op("Greater", score, self.constant(0.5)), to=TensorProto.INT32)
        self.output(self.op("ReduceSum", found, self.constant([1], np.int64)), "num_dets", ["N", 1], TensorProto.INT32)
        self.output(box, "det_boxes", ["N", 10, 4])
        self.output(score, "det_scores", ["N", 10])
        self.output(self.op("Cast", kind, to=TensorProto.INT32), "det_classes", ["N", 10], TensorProto.INT32)

    def suppressed(self) -> tuple[str, str, str]:
        """Boxes (1, A, 4), scores (1, classes, A), and the indices (M, 3) of what is kept."""
        box, logits = self.decoded(corners=True)
        box, scores = self.op("Transpose", box, perm=[0, 2, 1]), self.op("Sigmoid", logits)
        limits = (self.constant([10], np.int64), self.constant([0.45]), self.constant([0.25]))
        return box, scores, self.op("NonMaxSuppression", box, scores, *limits)

    def _selected(self) -> None:
        box, scores, kept = self.suppressed()
        self.output(kept, "selected_indices", ["M", 3], TensorProto.INT64)
        self.output(box, "boxes", ["N", 84, 4])
        self.output(scores, "scores", ["N", self._classes, 84])

    def kept(self) -> tuple[str, str, str]:
        """Boxes (M, 4), scores (M, 1) and classes (M, 1) of what is kept."""
        box, scores, kept = self.suppressed()
        _, kind, place = self.split(kept, 1, 1, 1, 1)
        where = self.op("Concat", self.op("Sub", kind, kind), place, axis=1)
        by_class = self.op("Concat", self.op("Sub", kind, kind), kind, place, axis=1)
        last = self.constant([1], np.int64)
        return self.op("GatherND", box, where), self.op("Unsqueeze", self.op("GatherND", scores, by_class), last), kind

    def _torchvision(self) -> None:
        box, score, kind = self.kept()
        last = self.constant([1], np.int64)
        self.output(box, "2613", ["M", 4])
        self.output(self.op("Squeeze", kind, last), "2614", ["M"], TensorProto.INT64)
        self.output(self.op("Squeeze", score, last), "2615", ["M"])

    def _paddle(self) -> None:
        box, score, kind = self.kept()
        made = self.op("Concat", self.op("Cast", kind, to=TensorProto.FLOAT), score, box, axis=1)
        self.output(made, "multiclass_nms3_0.tmp_0", ["M", 6])

    def _yolov7(self) -> None:
        box, score, kind = self.kept()
        kind = self.op("Cast", kind, to=TensorProto.FLOAT)
        self.output(self.op("Concat", self.op("Sub", kind, kind), box, kind, score, axis=1), "output", ["M", 7])
