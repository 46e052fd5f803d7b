"""Training-free methods, held to the planted CNN: filter k looks at pattern k and nowhere else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fsagn_onnx.errors import ExplainerError, UsageError
from fsagn_onnx.evaluation.probe import Probe
from fsagn_onnx.methods import METHODS, Passes, engine_for, make_method
from fsagn_onnx.methods.optimise import Optimise
from fsagn_onnx.methods.refine import RefinedEngine
from fsagn_onnx.methods.rise import rise_masks
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.masks import area_rank, from_rank, pixel_mask, to_common_granularity
from fsagn_onnx.testing.planted import TAP, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer

SEEING = [
    name
    for name in METHODS
    if name not in ("random", "centre") and (name != "dianna-rise" or importlib.util.find_spec("dianna"))
]
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_planted(tmp_path_factory.mktemp("planted") / "planted.onnx"))


def maps_of(name: str, model: Model, seed: int) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Saliency, filter ids and the feature map."""
    picture = planted_picture(seed)
    ids = sorted(picture.boxes)
    feature_map = Probe(model, TAP, threads=1).features(picture.image[None])
    batch = model.input_spec.normalise(picture.image)[None]
    made = make_method(name, model, TAP).saliency(batch, feature_map, np.array([ids], dtype=np.int64))
    return made[0], ids, feature_map


@pytest.mark.parametrize("name", SEEING)
def test_a_method_finds_the_planted_pattern(name: str, model: Model) -> None:
    shares = []
    for seed in SEEDS:
        maps, ids, _ = maps_of(name, model, seed)
        assert maps.shape[0] == len(ids)
        assert np.isfinite(maps).all()
        ranks = area_rank(to_common_granularity(maps, (64, 64)))
        for rank, k in zip(ranks, ids, strict=True):
            mask = pixel_mask(rank, 0.0625, (64, 64))  # as many pixels as the pattern has
            shares.append((mask & planted_picture(seed).box_mask(k)).sum() / mask.sum())
    assert np.mean(shares) > 0.55, f"{name}: a random mask of this area holds 6 % of the pattern"


@pytest.mark.parametrize("name", ["random", "centre"])
def test_controls_know_nothing_of_the_filter(name: str, model: Model) -> None:
    maps, ids, _ = maps_of(name, model, 0)
    again, *_ = maps_of(name, model, 0)
    np.testing.assert_array_equal(maps, again)
    if name == "centre":
        assert maps[0].argmax() in (27, 28, 35, 36)
    else:
        assert not np.array_equal(maps[0], maps[1])
        other, *_ = maps_of(name, model, 1)
        assert not np.array_equal(maps[0], other[0])
    assert len(ids) >= 2


def test_gradients_are_those_of_finite_differences(model: Model) -> None:
    """Input x gradient of E = ||F_k||^2 / 2, against central differences in onnxruntime."""
    maps, ids, _ = maps_of("input-x-gradient", model, 0)
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    probe = Probe(model, TAP, threads=1)
    picture = planted_picture(0)
    x = model.input_spec.normalise(picture.image)
    x0, y0, x1, y1 = picture.boxes[ids[0]]
    row, column = (y0 + y1) // 2 - 4, (x0 + x1) // 2 - 4

    def energy(values: np.ndarray) -> float:
        made = probe._maps.maps(values[None].astype(np.float32))[0, ids[0]]
        return float(np.square(made.astype(np.float64)).sum() / 2)

    expected = 0.0
    for colour in range(3):
        step = np.zeros_like(x)
        step[colour, row, column] = 0.5
        expected += abs(x[colour, row, column] * (energy(x + step) - energy(x - step)) / 1.0)
    assert maps[0, row, column] == pytest.approx(expected, rel=0.05)
    assert session.get_inputs()[0].name == "image"


def test_rise_masks() -> None:
    masks = rise_masks(300, (64, 48), np.random.default_rng(0))
    assert masks.shape == (300, 64, 48)
    assert masks.min() >= 0
    assert masks.max() <= 1
    np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.12)
    assert masks.mean() == pytest.approx(0.5, abs=0.02)


def test_costs(model: Model) -> None:
    assert make_method("activation", model, TAP).passes(5) == Passes(0, 0)
    assert make_method("rise", model, TAP).passes(5) == Passes(500, 0)
    assert make_method("optimise", model, TAP).passes(5) == Passes(400, 400)
    assert make_method("gradient", model, TAP).passes(5) == Passes(5, 5)
    assert make_method("captum-occlusion", model, TAP).passes(2) == Passes(100, 0)


def test_refinement_starts_from_the_generators_map(model: Model, tmp_path: Path) -> None:
    engine = FileEngine(write_planted_explainer(tmp_path / "explainer.onnx"))
    refined = RefinedEngine(engine, model, 12)
    batch = model.input_spec.normalise(planted_picture(2).image)[None]
    filters = np.full((1, 2), -1, dtype=np.int64)
    before, after = engine.run(batch, filters), refined.run(batch, filters)
    np.testing.assert_array_equal(before.filter_ids, after.filter_ids)
    assert after.area_rank.shape == before.area_rank.shape
    assert not np.array_equal(after.area_rank, before.area_rank)
    same = np.corrcoef(after.area_rank.ravel(), before.area_rank.ravel())[0, 1]
    assert same > 0.5, "a few steps do not lose the map"
    assert refined.passes(2) == Passes(24, 24)
    refined.close()
    order = np.argsort(-from_rank(before.area_rank[0, 0]).ravel(), kind="stable")
    np.testing.assert_array_equal(before.area_rank[0, 0].ravel()[order], np.sort(before.area_rank[0, 0].ravel()))
    with pytest.raises(UsageError, match="at least 1"):
        RefinedEngine(engine, model, 0)


def test_a_refined_explainer_must_belong_to_the_model(tmp_path: Path, repository: Path) -> None:
    engine = FileEngine(write_planted_explainer(tmp_path / "explainer.onnx"))
    with pytest.raises(ExplainerError, match="made for another model"):
        RefinedEngine(engine, load_model(repository / "models" / "demo_cnn.onnx"), 1)


def test_optimisation_raises_retention(model: Model) -> None:
    """Both objectives end above their start, on the very infills that they see."""
    picture = planted_picture(1)
    probe = Probe(model, TAP, threads=1)
    feature_map = probe.features(picture.image[None])
    ids = np.array([sorted(picture.boxes)], dtype=np.int64)
    batch = model.input_spec.normalise(picture.image)[None]
    blank = np.random.default_rng(0).random((1, ids.shape[1], 16, 16), dtype=np.float32)
    for objective in ("budget", "fsagn"):
        method = Optimise(model, TAP, steps=40, objective=objective)  # type: ignore[arg-type]
        made = method.refine(batch, feature_map, ids, blank)[0]
        kept = []
        for maps in (blank[0], made):
            ranks = area_rank(to_common_granularity(maps, (64, 64)))
            masks = [pixel_mask(rank, 0.2, (64, 64)) for rank in ranks]
            whole = feature_map[0, ids[0]]
            after = probe.masked(picture.image, masks, "mean", ids[0])
            change = [np.linalg.norm(after[i, i] - whole[i]) / np.linalg.norm(whole[i]) for i in range(len(masks))]
            kept.append(1 - np.minimum(1, change).mean())
        assert kept[1] > kept[0] + 0.2, objective


def test_unknown_method_and_missing_packages(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no method 'magic'; there are activation, .*gradient"):
        engine_for(model, None, "magic")
    find = importlib_find(["captum"])
    monkeypatch.setattr("fsagn_onnx.methods.registry.importlib.util.find_spec", find)
    with pytest.raises(UsageError, match=r"needs captum: pip install 'fsagn-onnx\[peers\]'"):
        make_method("captum-occlusion", model, TAP)
    monkeypatch.setattr("fsagn_onnx.methods.registry.importlib.util.find_spec", importlib_find(["dianna"]))
    with pytest.raises(UsageError, match="needs dianna: pip install --no-deps"):
        make_method("dianna-rise", model, TAP)
    monkeypatch.setattr("fsagn_onnx.methods.registry.importlib.util.find_spec", importlib_find(["torch"]))
    with pytest.raises(UsageError, match=r"needs torch: pip install 'fsagn-onnx\[train\]'"):
        make_method("gradient", model, TAP)


def importlib_find(missing: list[str]):  # type: ignore[no-untyped-def]
    return lambda name: None if name in missing else object()


def test_a_narrow_place_at_the_rim_of_a_wide_one_stays_first_at_the_common_granularity() -> None:
    rows, columns = np.mgrid[:16, :16]
    wide = np.exp(-((rows - 8) ** 2 + (columns - 8) ** 2) / 40)
    narrow = (abs(rows - 8) < 2) & (columns < 4) & (columns > 0)
    rank, place = area_rank((wide + 2 * narrow)[None].astype(np.float32)), np.kron(narrow, np.ones((8, 8), bool))
    shares = []
    for saliency in (from_rank(rank), -rank):
        common = area_rank(to_common_granularity(saliency, (128, 128)))
        mask = pixel_mask(common[0], float(narrow.mean()), (128, 128))
        shares.append((mask & place).sum() / mask.sum())
    assert shares[0] > 0.4
    assert shares[1] == 0
