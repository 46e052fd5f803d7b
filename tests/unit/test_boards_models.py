"""The boards' network and explainer that ship are the ones that the manifest describes, and do what is said of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsagn_onnx.evaluation.decision import AnsweringModel, exchanged, highest_places, iou
from fsagn_onnx.model import load_model
from fsagn_onnx.models.boards import LABELS, Pair, read_pairs
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.masks import from_rank, upsample

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return read_pairs(ROOT / "examples" / "pcb")


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("name", ["boards_cnn", "boards_explainer"])
def test_the_manifest_describes_the_file(name: str) -> None:
    entry: dict[str, Any] = json.loads((MODELS / "manifest.json").read_text())[name]
    content = (MODELS / entry["file"]).read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["bytes"] == len(content) <= 2_000_000


def test_the_network_keeps_the_bars_on_unseen_boards() -> None:
    quality = json.loads((MODELS / "manifest.json").read_text())["boards_cnn"]["quality"]
    assert quality["defects"] >= 0.95
    assert min(quality["good"], quality["exchanged"]) >= 0.98


def test_the_examples_are_read_and_exchange_makes_them_good(pairs: list[Pair]) -> None:
    """Two in three of the 30 would be far off the .978 and .988 of the whole test split."""
    model = load_model(MODELS / "boards_cnn.onnx")
    assert model.labels == LABELS
    with AnsweringModel(model, threads=1) as answers:
        found = answers.winners(np.stack([rgb(pair.defect) for pair in pairs]))
        good = answers.winners(np.stack([rgb(pair.good) for pair in pairs]))
    assert np.mean([number == pair.box.type + 1 for number, pair in zip(found.tolist(), pairs, strict=True)]) >= 0.9
    assert np.mean(good == 0) >= 0.9


def test_the_evidence_is_the_defect(pairs: list[Pair]) -> None:
    """One pass: the area as large as the box covers it, and exchanged for the good board it makes the answer good."""
    model = load_model(MODELS / "boards_cnn.onnx")
    engine = FileEngine(MODELS / "boards_explainer.onnx", threads=1)
    engine.require_model(model)
    batch = np.stack([model.input_spec.normalise(rgb(pair.defect)) for pair in pairs]).astype(np.float32)
    decided = engine.decide(batch, np.full((len(pairs), 5), -2), np.full((len(pairs), 1), -1)).decisions
    assert decided is not None
    overlaps, turned = [], []
    with AnsweringModel(model, threads=1) as answers:
        for pair, rank in zip(pairs, decided.evidence_rank[:, 0], strict=True):
            mask = highest_places(upsample(from_rank(rank), pair.mask.shape), float(pair.mask.mean()))
            overlaps.append(iou(mask, pair.mask))
            turned += answers.winners(exchanged(rgb(pair.defect), rgb(pair.good), [mask])).tolist()
    engine.close()
    assert np.mean(overlaps) > 0.6
    assert np.mean(np.array(turned) == 0) >= 0.9
    share = decided.contributions[:, 0].sum(axis=1) / decided.support[:, 0, 0]
    assert np.median(share) > 3 * 5 / 128, "five of 128 filters carry far more than theirs of the support"
