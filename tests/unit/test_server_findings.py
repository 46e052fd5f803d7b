"""What a server answers beside the graph's outputs: boxes and segments of detectors and segmentation networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.server import Settings
from fsagn_onnx.server.findings import findings_of
from fsagn_onnx.server.jobs import make_job, make_order
from fsagn_onnx.server.tensors import InferRequest, Tensor
from fsagn_onnx.testing.planted_explainer import planted_explainer

BOXES = [[[2, 4, 10, 12], [0, 0, 32, 16], [1, 1, 2, 2]]]
SCORES = [[0.9, 0.6, 0.1]]


def detector(path: Path, kind: str) -> Path:
    """The planted explainer with outputs of a detector, (N, M, ...) or for one image, or with a map of classes."""
    proto = planted_explainer({"labels": ["cat", "dog"]})
    del proto.graph.output[0]  # that which classifies
    constants = {
        "b0": np.array(BOXES, np.float32), "s0": np.array(SCORES, np.float32), "c0": np.array([[1, 0, 0]], np.float32),
        "z0": np.zeros(1, np.float32), "two": np.array([0, 1], np.float32).reshape(1, 2, 1, 1),
    }  # fmt: skip
    proto.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    nodes = [helper.make_node("ReduceMean", ["image"], ["mean0"], axes=[1, 2, 3], keepdims=0)]
    nodes.append(helper.make_node("Mul", ["mean0", "z0"], ["naught"]))
    if kind == "map":
        nodes.append(helper.make_node("Slice", ["image", "zero_at", "one_at", "axis_at"], ["red0"]))
        nodes.append(helper.make_node("Mul", ["red0", "two"], ["both"]))
        nodes.append(helper.make_node("Softmax", ["both"], ["map"], axis=1))
        for name, value in (("zero_at", 0), ("one_at", 1), ("axis_at", 1)):
            proto.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        proto.graph.output.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", 2, 64, 64]))
    else:
        lists = (("det_boxes", "b0", [-1, 1, 1]), ("det_scores", "s0", [-1, 1]), ("more", "c0", [-1, 1]))
        for name, source, shape in lists:
            proto.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}/shape"))
            nodes.append(helper.make_node("Reshape", ["naught", f"{name}/shape"], [f"{name}/zero"]))
            nodes.append(helper.make_node("Add", [f"{name}/zero", source], [name]))
        nodes.append(helper.make_node("Cast", ["more"], ["det_classes"], to=TensorProto.INT32))
        for name, end, of in (("det_boxes", [4], 1), ("det_scores", [], 1), ("det_classes", [], TensorProto.INT32)):
            proto.graph.output.append(helper.make_tensor_value_info(name, of, ["N", 3, *end]))
    proto.graph.node.extend(nodes)
    onnx.save(proto, path)
    return path


def answers(path: Path, count: int, wanted: list[str] | None = None) -> dict[str, Any]:
    engine = FileEngine(path, threads=1)
    pictures = np.zeros((count, 64, 32, 3), np.uint8)
    pictures[:, :16, :, 0] = 255
    tensor = Tensor("image", "UINT8", pictures.shape, pictures.ravel())
    order = make_order(InferRequest(inputs=[]), {"image": tensor}, engine, Settings())
    job = make_job(order, engine, Settings())
    found = findings_of(job, engine.run(job.values, job.filters), engine, [], wanted)
    engine.close()
    return {name: [json.loads(text) for (text,) in rows] for name, rows in found.items()}


def test_boxes_are_answered_per_picture_in_its_own_pixels(tmp_path: Path) -> None:
    path = detector(tmp_path / "e.onnx", "lists")
    found = answers(path, 2)
    assert list(found) == ["detections"]
    for boxes in found["detections"]:
        assert [(box["label"], box["box"]) for box in boxes] == [("dog", [1, 4, 5, 12]), ("cat", [0, 0, 16, 16])]
    assert answers(path, 1, ["area_rank"]) == {}
    assert list(answers(path, 1, ["detections"])) == ["detections"]


def test_segments_are_answered_per_picture(tmp_path: Path) -> None:
    found = answers(detector(tmp_path / "e.onnx", "map"), 2)
    assert list(found) == ["segments"]
    for segments in found["segments"]:
        assert [segment["label"] for segment in segments] == ["cat", "dog"]
        assert [segment["share"] for segment in segments] == pytest.approx([0.75, 0.25])
