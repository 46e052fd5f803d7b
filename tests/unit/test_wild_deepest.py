"""The independent lines that find a network's default layer, on graphs whose layer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.coverage.wild_deepest import deepest
from fsagn_onnx.testing.graph_builder import GraphBuilder

PICTURE = {"image": np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)}


def weights(b: GraphBuilder, *shape: int) -> str:
    return b.constant(b.rng.normal(size=shape).astype(np.float32))


def found(b: GraphBuilder, path: Path, outputs: list[str]) -> str:
    return deepest(b.save(path / "m.onnx", outputs), "image", PICTURE).get("value", "")


def swish(b: GraphBuilder, value: str) -> str:
    return b.op("Mul", value, b.op("Sigmoid", value))


@pytest.mark.parametrize("shortcut_last", [False, True])
def test_a_shortcut_is_not_the_deepest_whatever_the_files_order(tmp_path: Path, shortcut_last: bool) -> None:
    b = GraphBuilder()
    base = b.conv("image", 3, 8)
    made: dict[str, str] = {}
    for name in ("main", "short") if shortcut_last else ("short", "main"):
        if name == "short":
            made[name] = b.op("Conv", base, weights(b, 8, 8, 1, 1))
        else:
            inner = b.op("Relu", b.op("Conv", base, weights(b, 8, 8, 3, 3), pads=[1] * 4))
            made[name] = b.op("Conv", inner, weights(b, 8, 8, 3, 3), pads=[1] * 4, out="main")
    b.head(b.op("Relu", b.op("Add", made["main"], made["short"])), 8)
    assert found(b, tmp_path, ["logits"]) == "main"


def test_behind_norm_and_activation_and_swish(tmp_path: Path) -> None:
    b = GraphBuilder()
    first = b.op("Clip", b.op("Relu", b.op("Conv", "image", weights(b, 8, 3, 3, 3))), "", b.constant(np.float32(6)))
    norm = [weights(b, 8), weights(b, 8), weights(b, 8), b.constant(np.ones(8, np.float32))]
    last = swish(b, b.op("BatchNormalization", b.op("Conv", first, weights(b, 8, 8, 3, 3)), *norm))
    b.head(last, 8)
    assert found(b, tmp_path, ["logits"]) == last


def test_what_all_predictions_are_computed_from(tmp_path: Path) -> None:
    b = GraphBuilder()
    shared = b.conv("image", 3, 8)
    deeper = b.conv(shared, 8, 8)
    boxes = b.op("Conv", deeper, weights(b, 4, 8, 1, 1), out="boxes")
    scores = b.op("Sigmoid", b.op("Conv", shared, weights(b, 2, 8, 1, 1)), out="scores")
    assert found(b, tmp_path, [boxes, scores]) == shared
    assert found(b, tmp_path, [boxes]) == deeper


def test_deep_supervision_counts_once(tmp_path: Path) -> None:
    b = GraphBuilder()
    shared = b.conv("image", 3, 8)
    deeper = b.conv(shared, 8, 8)
    outputs = [b.op("Sigmoid", b.op("Conv", value, weights(b, 1, 8, 1, 1))) for value in (deeper, shared)]
    b.op("Resize", outputs[1], "", b.constant(np.array([1, 1, 0.5, 0.5], np.float32)), out="early")
    assert found(b, tmp_path, [outputs[0], "early"]) == deeper


def test_no_layer_at_all(tmp_path: Path) -> None:
    b = GraphBuilder()
    b.op("Relu", "image", out="y")
    assert found(b, tmp_path, ["y"]) == ""
