"""Training-free methods and the engine that runs them on a plain model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fsagn_onnx.errors import LayerError, UsageError
from fsagn_onnx.explanations import subject
from fsagn_onnx.methods import engine_for, make_method
from fsagn_onnx.methods.activation import Activation
from fsagn_onnx.methods.controls import Random
from fsagn_onnx.methods.interface import Passes
from fsagn_onnx.methods.method_engine import MethodEngine, strongest
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.masks import to_grid
from fsagn_onnx.testing.graph_builder import GraphBuilder

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo_cnn.onnx"


def test_strongest_by_peak_then_mean_then_id() -> None:
    maps = np.zeros((1, 4, 1, 2), np.float32)
    maps[0, :, 0] = [[1, 0], [2, 0], [2, 1], [2, 0]]
    ids, peaks = strongest(maps, np.array([[-1, -1, -1, -1, -1]]))
    assert ids.tolist() == [[2, 1, 3, 0, -1]]
    assert peaks.tolist() == [[2, 2, 2, 1, 0]]
    ids, _ = strongest(maps, np.array([[-1, 2, -1]]))
    assert ids.tolist() == [[1, 2, 3]]


def test_activation_is_the_feature_map() -> None:
    maps = np.random.default_rng(0).random((2, 5, 3, 4), dtype=np.float32)
    ids = np.array([[4, 0], [1, 1]])
    found = Activation().saliency(np.zeros((2, 3, 8, 8), np.float32), maps, ids)
    assert np.array_equal(found, np.stack([maps[0, [4, 0]], maps[1, [1, 1]]]))


def test_random_repeats_with_its_seed() -> None:
    ids = np.zeros((2, 3), np.int64)
    first, second = (Random((4, 5), 7).saliency(np.zeros((2, 3, 8, 8), np.float32), np.empty(0), ids) for _ in range(2))
    assert first.shape == (2, 3, 4, 5)
    assert np.array_equal(first, second)
    assert np.array_equal(first[0, 0], first[1, 0]), "one image, one filter: one map"
    other = Random((4, 5), 8).saliency(np.zeros((2, 3, 8, 8), np.float32), np.empty(0), ids)
    assert not np.array_equal(first, other)


def test_the_engine_ranks_the_method_s_maps_and_keeps_the_model_s_outputs() -> None:
    model = load_model(MODEL)
    engine = engine_for(model, method="activation", providers="cpu", threads=1)
    batch = np.random.default_rng(0).normal(size=(2, 3, *model.input_spec.size)).astype(np.float32)
    made = engine.run(batch, np.array([[-1, 3], [5, -1]]))
    assert set(made.outputs) == {item.name for item in model.outputs}
    assert made.retention is None
    assert made.filter_ids[0, 1] == 3
    assert made.filter_ids[1, 0] == 5
    cells = made.area_rank.shape[2] * made.area_rank.shape[3]
    expected = np.arange(1, cells + 1) / cells
    assert np.allclose(np.sort(made.area_rank.reshape(4, cells), axis=1), expected)
    feature_map = engine._maps.maps(batch)
    smooth = to_grid(feature_map[0, 3], made.area_rank.shape[2:])
    assert made.area_rank[0, 1].argmin() == smooth.argmax()
    engine.close()


def test_wrong_methods_and_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(MODEL)
    with pytest.raises(UsageError, match=r"no method 'magic'; there are activation, .*gradient"):
        engine_for(model, method="magic")
    with pytest.raises(LayerError, match="nearest"):
        engine_for(model, layer="block5x", method="activation")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs torch"):
        make_method("optimise", model, model.default_layer.value)
    assert engine_for(model, providers="cpu").method.name == "activation"


def test_a_method_measures_retention_on_its_own_model() -> None:
    model = load_model(MODEL)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    engine = engine_for(model, method="activation", providers="cpu", threads=1)
    with Explainer(engine, providers="cpu", threads=1) as explainer:
        (alone,) = explainer.explain(picture, "top:2", 0.3, verify=True)
        (given,) = explainer.explain(picture, "top:2", 0.3, verify=True, model=model)
    engine.close()
    assert [one.retention_measured for one in alone.filters] == [one.retention_measured for one in given.filters]
    assert all(one.retention_measured is not None for one in alone.filters)


class Slow:
    """A method that says what it costs."""

    name = "slow"

    def __init__(self, passes: int) -> None:
        self._passes = passes

    def passes(self, filters: int) -> Passes:
        return Passes(self._passes * filters, self._passes * filters)


@pytest.mark.parametrize(("passes", "told"), [(10**9, True), (0, False)])
def test_minutes_per_image_are_said_before_they_are_spent(
    passes: int, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = GraphBuilder()
    b.head(b.conv("image", 3, 8), 8)
    file = b.save(tmp_path / "m.onnx", ["logits"])
    engine = MethodEngine(load_model(file), None, Slow(passes))  # type: ignore[arg-type]
    monkeypatch.setattr(subject, "_engine_for", lambda: lambda *a, **k: engine)
    opened = subject.open_explainer(file)
    assert any("'slow' takes about" in hint and "--method activation" in hint for hint in opened.hints) is told
    opened.explainer.close()
