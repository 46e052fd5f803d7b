"""The demo CNN that ships with the package is the one its manifest describes, and reads the synthetic set."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from fsagn_onnx.testing.synthetic import CLASSES, SyntheticParts, render, variants_of
from fsagn_onnx.testing.synthetic.objects import TWINS

MODELS = Path(__file__).parents[2] / "models"
MODEL = MODELS / "demo_cnn.onnx"
Values = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])


def classes(session: onnxruntime.InferenceSession, images: list[npt.NDArray[np.uint8]]) -> list[int]:
    batch = (np.stack(images).astype(np.float32) / 255 - 0.5) / 0.25
    (logits,) = session.run(["logits"], {"image": batch.transpose(0, 3, 1, 2)})
    winners: list[int] = np.asarray(logits).argmax(axis=1).tolist()
    return winners


def test_the_manifest_describes_the_file() -> None:
    entry: dict[str, Any] = json.loads((MODELS / "manifest.json").read_text())["demo_cnn"]
    content = MODEL.read_bytes()
    assert entry["file"] == MODEL.name
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["bytes"] == len(content) < 2_000_000
    assert min(entry["accuracy"][split] for split in ("val", "test")) >= 0.95


def test_the_model_describes_itself() -> None:
    proto = onnx.load(MODEL)
    described = json.loads({p.key: p.value for p in proto.metadata_props}["fsagn_model"])
    assert described["labels"] == list(CLASSES)
    assert described["input"]["size"] == [128, 128]
    assert {node.op_type for node in proto.graph.node if node.op_type not in ("Conv", "Relu")} == {
        "ReduceMean",
        "Gemm",
    }
    assert [f"block{i}" for i in range(7)] == [n.output[0] for n in proto.graph.node if n.op_type == "Relu"]
    assert "/" not in "".join(p.value for n in proto.graph.node for p in n.metadata_props)


def test_it_reads_held_out_pictures(session: onnxruntime.InferenceSession) -> None:
    samples = list(SyntheticParts("test", 200))
    right = [
        label == sample.label
        for label, sample in zip(classes(session, [s.image for s in samples]), samples, strict=True)
    ]
    assert np.mean(right) >= 0.95


def test_exchanging_one_part_turns_a_class_into_its_twin(session: onnxruntime.InferenceSession) -> None:
    start = SyntheticParts("test", 1).seed(0)
    for part, (a, b) in TWINS.items():
        seeds = range(start + a, start + a + 300, 10)
        turned = [render(seed, exchange={part: variants_of(b)[part]}).image for seed in seeds]
        assert np.mean(np.array(classes(session, turned)) == b) >= 0.85, part
