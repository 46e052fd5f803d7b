"""Pictures that a graph standardises by their own statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsagn_onnx.model import load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder


@pytest.mark.parametrize("by", ["mean", "mean by opset 18", "pool", "deviation", "largest", "norm"])
def test_a_picture_standardised_by_its_own_statistics_is_not_standardised_again(tmp_path: Path, by: str) -> None:
    b = GraphBuilder()
    if by == "norm":
        ones = [b.constant(np.full(3, value, np.float32)) for value in (1, 0)]
        value = b.op("InstanceNormalization", "image", *ones)
    elif by == "largest":
        value = b.op("Div", "image", b.op("ReduceMax", "image", axes=[1, 2, 3]))
    elif by == "deviation":
        mean = b.op("ReduceMean", "image", axes=[1, 2, 3])
        grey = b.op("Sub", b.op("ReduceMean", "image", axes=[1]), mean)
        spread = b.op("Sqrt", b.op("ReduceMean", b.op("Mul", grey, grey), axes=[1, 2, 3]))
        value = b.op("Div", b.op("Sub", "image", mean), b.op("Add", spread, b.constant(np.float32(1e-6))))
    elif by == "pool":
        value = b.op("Sub", "image", b.op("GlobalAveragePool", "image"))
    elif by == "mean":
        value = b.op("Sub", "image", b.op("ReduceMean", "image", axes=[2, 3]))
    else:
        value = b.op("Sub", "image", b.op("ReduceMean", "image", b.constant(np.array([2, 3], np.int64))))
    b.head(b.conv(b.conv(value, 3, 8), 8, 16), 16)
    spec = load_model(b.save(tmp_path / "m.onnx", ["logits"], opset=18 if "18" in by else 17)).input_spec
    assert (spec.scale, set(spec.mean), set(spec.std)) == (1.0, {0.0}, {1.0})
    assert "pixels in 0..255 (the graph normalises them itself)" in spec.guessed


def test_the_grey_of_each_place_is_no_statistic_of_the_picture(tmp_path: Path) -> None:
    b = GraphBuilder()
    value = b.op("Sub", "image", b.op("ReduceMean", "image", axes=[1]))
    b.head(b.conv(b.conv(value, 3, 8), 8, 16), 16)
    spec = load_model(b.save(tmp_path / "m.onnx", ["logits"])).input_spec
    assert "mean of ImageNet" in spec.guessed
