"""Nodes exported in training mode: said once, and each picture gets the same answers alone and among others."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import helper

from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder


def batch_norm(b: GraphBuilder, value: str, opset: int) -> str:
    """With running statistics that are not those of the batch."""
    numbers = [b.constant(b.rng.uniform(0.5, 1.5, 8).astype(np.float32)) for _ in range(4)]
    outputs, mode = (["bn", "m", "v"], {"training_mode": 1}) if opset > 13 else (["bn", "m", "v", "sm", "sv"], {})
    b.nodes.append(helper.make_node("BatchNormalization", [value, *numbers], outputs, **mode))
    return "bn"


def dropout(b: GraphBuilder, value: str, opset: int) -> str:
    return b.op("Dropout", value, b.constant(np.float32(0.5)), b.constant(np.array(True)), out="dropped")


def noise(b: GraphBuilder, value: str, opset: int) -> str:
    """Of every picture and place, or the same for all."""
    if opset > 13:
        return b.op("Add", value, b.op("RandomNormalLike", value, mean=0.25, out="noise"))
    return b.op("Mul", value, b.op("RandomUniform", shape=[1, 8, 1, 1], low=0.5, high=2.0, out="noise"))


def network(path: Path, kind: str, opset: int, outputs: tuple[str, ...] = ()) -> Path:
    b = GraphBuilder()
    first = b.conv("image", 3, 8)
    value = {"BatchNormalization": batch_norm, "Dropout": dropout}.get(kind, noise)(b, first, opset)
    b.head(b.conv(value, 8, 16), 16)
    return b.save(path, ["logits", *outputs], opset=opset)


KINDS = [("BatchNormalization", 9), ("BatchNormalization", 15), ("Dropout", 12), ("Dropout", 17)]
KINDS += [("RandomUniform", 11), ("RandomNormalLike", 17)]


@pytest.mark.parametrize(("kind", "opset"), KINDS)
def test_it_is_said_once_and_what_to_do(tmp_path: Path, kind: str, opset: int) -> None:
    file = network(tmp_path / "m.onnx", kind, opset)
    model = load_model(file)
    assert f"{kind} '" in str(model.training_mode)
    assert "model.eval()" in str(model.training_mode)
    assert sum("training mode" in line for line in inspect_file(file, conversion=False)["warnings"]) == 1


@pytest.mark.parametrize(("kind", "opset"), KINDS)
def test_a_picture_has_the_same_answers_alone_and_among_others(tmp_path: Path, kind: str, opset: int) -> None:
    file = network(tmp_path / "m.onnx", kind, opset)
    model = load_model(file)
    pictures = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.proto.SerializeToString())
    (together,) = session.run(None, {"image": pictures})
    for index in range(3):
        (alone,) = session.run(None, {"image": pictures[index : index + 1]})
        np.testing.assert_allclose(alone[0], together[index], atol=1e-5)
    if kind == "BatchNormalization":
        (theirs,) = onnxruntime.InferenceSession(str(file)).run(None, {"image": pictures[:1]})
        np.testing.assert_allclose(theirs[0], together[0], atol=1e-5)


@pytest.mark.parametrize(("kind", "opset"), [KINDS[0], KINDS[3]])
def test_it_trains_and_exports(tmp_path: Path, kind: str, opset: int) -> None:
    file = network(tmp_path / "m.onnx", kind, opset)
    document = inspect_file(file)
    assert document["trainable"] is True, document["trial"]
    cv2.imwrite(str(tmp_path / "p.png"), np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    options = TrainingOptions(pairs=8, images_per_step=2)
    report = train(load_model(file), [tmp_path / "p.png"], tmp_path / "explainer.onnx", options=options)
    assert report.outputs < 1e-4


def test_statistics_that_are_outputs_stay(tmp_path: Path) -> None:
    file = network(tmp_path / "m.onnx", "BatchNormalization", 15, ("m", "v"))
    picture = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    model = load_model(file)
    ours = onnxruntime.InferenceSession(model.proto.SerializeToString()).run(["logits", "m", "v"], {"image": picture})
    theirs = onnxruntime.InferenceSession(str(file)).run(["logits", "m", "v"], {"image": picture})
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
