"""Re-initialisation and rank correlation of masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.stats import spearmanr

from fsagn_onnx.errors import ModelError
from fsagn_onnx.evaluation.sanity import compare_masks, overlap, rank_correlation, reinitialise
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.masks import area_rank
from fsagn_onnx.testing.planted import planted_model, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer


def weights(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_the_last_layers_forget() -> None:
    proto = planted_model()
    before = weights(proto)
    after = weights(reinitialise(proto, 2))
    changed = {name for name in before if name.endswith("weight") and not np.array_equal(before[name], after[name])}
    assert changed == {"pairs.weight", "patterns.weight"}
    for name, array in before.items():
        np.testing.assert_array_equal(array, weights(proto)[name], err_msg="the model handed in is as before")
        assert after[name].std() == pytest.approx(array.std(), rel=0.2, abs=1e-7)
    np.testing.assert_array_equal(after["pairs.weight"], weights(reinitialise(proto, 1 + 1))["pairs.weight"])
    with pytest.raises(ModelError, match="has 3 conv layers, cannot re-initialise 4"):
        reinitialise(proto, 4)


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 8, 8)), rng.random((2, 3, 8, 8))
    second[0] += first[0]
    found = rank_correlation(area_rank(first), area_rank(second))
    for place in np.ndindex(2, 3):
        expected = spearmanr(first[place].ravel(), second[place].ravel()).statistic
        assert found[place] == pytest.approx(expected, abs=1e-6)
    assert rank_correlation(area_rank(first[0, 0]), area_rank(-first[0, 0])) == pytest.approx(-1)


def test_overlap_is_the_share_covered_twice() -> None:
    rank = np.arange(1, 17).reshape(4, 4) / 16
    assert overlap(rank, rank, 0.25) == 1
    assert overlap(rank, rank.T, 0.25) == 0.25, "first row and first column share their corner"
    assert overlap(rank, 17 / 16 - rank, 0.25) == 0


def test_the_same_model_has_the_same_masks(tmp_path: Path) -> None:
    model = load_model(write_planted(tmp_path / "planted.onnx"))
    engine = FileEngine(write_planted_explainer(tmp_path / "explainer.onnx"))
    images = []
    for seed in range(3):
        images.append(tmp_path / f"{seed}.png")
        cv2.imwrite(str(images[-1]), planted_picture(seed).image[..., ::-1])
    found = compare_masks((engine, engine), (model, model), images, filters=2, methods=("gradient",))
    for name in ("generator", "activation", "gradient", "generator, overlap at area .1"):
        assert found[name].mean == pytest.approx(1), name
    assert found["generator, another filter"].mean < 0.9, "two filters have two masks"
    onnx.save(reinitialise(model.proto, 1), tmp_path / "other.onnx")
    other = load_model(tmp_path / "other.onnx")
    forgot = compare_masks((engine, engine), (model, other), images, filters=2)
    assert forgot["activation"].mean < 0.9
    assert forgot["generator"].mean == pytest.approx(1), "an explainer that is not retrained knows nothing of it"
