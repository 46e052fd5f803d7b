"""What an explainer says about itself: measured on left-out pictures, stored in its file, said in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsagn_onnx.evaluation import evaluate
from fsagn_onnx.evaluation.run import Options
from fsagn_onnx.generator import TrainingOptions, export_explainer, load_checkpoint, train
from fsagn_onnx.generator.left_out import leave_out
from fsagn_onnx.generator.training_run import checkpoint_path
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime import Explainer, trust_measurement
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.trust import Trust, verdict
from fsagn_onnx.runtime.trust_measurement import affordable_pictures, measure_trust
from fsagn_onnx.runtime.variant import Variant
from fsagn_onnx.testing.planted import write_planted_folder
from fsagn_onnx.testing.synthetic import write_folder

MODELS = Path(__file__).resolve().parents[2] / "models"
OPTIONS = TrainingOptions(
    pairs=64, images_per_step=8, questions=("filters",), ramp=(), jitter=0, crop=0.9, flip=False, active=4
)
KNOWN = Trust(
    pictures=40, filters=4, random=(0.03, 0.2), error=0.09, auc=(0.64, 0.6, 0.68), gain=(0.14, 0.12, 0.16),
    specificity=(0.13, 0.11, 0.15), infill="inpaint",
)  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted_folder(tmp_path_factory.mktemp("planted"), 40)


def test_the_figures_are_those_of_evaluate(tmp_path: Path) -> None:
    write_folder(tmp_path / "test", "test", 6)
    pictures = sorted((tmp_path / "test" / "images").iterdir())
    model, explainer = load_model(MODELS / "demo_cnn.onnx"), MODELS / "demo_explainer.onnx"
    found = measure_trust(FileEngine(explainer, "cpu"), model.proto, pictures)
    assert found is not None
    options = Options(filters=4, methods=("activation",), metrics=("retention", "specificity"), infills=("inpaint",))
    rows = {(row.metric, row.method): row.value.mean for row in evaluate(model, explainer, pictures, options).rows}
    assert found.auc[0] == pytest.approx(rows["retention AUC", "generator"], abs=1e-3)
    assert found.gain[0] == pytest.approx(rows["AUC - activation", "generator"], abs=1e-3)
    assert found.specificity[0] == pytest.approx(rows["specificity", "generator"], abs=1e-3)
    assert found.gain[1] <= found.gain[0] <= found.gain[2]
    assert 0 < found.random[0] < found.random[-1] < 0.6


def test_too_few_pictures_are_not_measured(tmp_path: Path) -> None:
    write_folder(tmp_path / "test", "test", 3)
    pictures = [*sorted((tmp_path / "test" / "images").iterdir()), tmp_path / "missing.png"]
    model = load_model(MODELS / "demo_cnn.onnx")
    assert measure_trust(FileEngine(MODELS / "demo_explainer.onnx", "cpu"), model.proto, pictures) is None


@pytest.mark.parametrize(
    ("pictures", "pairs", "count"),
    [(31, 40_000, 0), (32, 40_000, 4), (32, 3_999, 0), (35, 40_000, 4), (320, 40_000, 40), (9_000, 10**6, 40),
     (9_000, 7_000, 7)],
)  # fmt: skip
def test_pictures_are_left_out_evenly_where_measuring_is_paid_for(pictures: int, pairs: int, count: int) -> None:
    paths = [Path(f"{number:05}") for number in range(pictures)]
    kept, out = leave_out(paths, pairs)
    assert len(out) == count
    assert sorted([*kept, *out]) == paths
    if count:
        places = np.array([int(path.name) for path in out])
        assert np.ptp(np.diff(places)) <= 1


def test_measuring_costs_less_than_a_twentieth_of_the_passes_of_a_training() -> None:
    areas = 9
    per_picture = 2 + 2 * 4 * 5 + 4 * areas + 3 * areas  # looks; masks of both methods; error; random areas
    for pairs in (4_000, 40_000, 10**6):
        training = 2 * 3 * pairs  # a masked forward pass and a backward one of about two
        assert affordable_pictures(pairs) * per_picture < 0.05 * training


@pytest.fixture(scope="module")
def model(planted: Path) -> Model:
    return load_model(planted / "planted.onnx")


def test_a_training_says_how_good_its_explainer_is(
    planted: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_measurement, "PAIRS_PER_PICTURE", 10)
    monkeypatch.setattr("fsagn_onnx.generator.training_run.PAIRS_PER_PICTURE", 10)
    monkeypatch.setattr(trust_measurement, "FILTERS", 2)
    seen: list[str] = []
    out = tmp_path / "x.onnx"
    train(model, [planted / "images"], out, options=OPTIONS, on_phase=seen.append)
    assert "measuring the explainer on pictures left out of the training" in seen
    about = FileEngine(out).metadata
    assert about.training["images"] == 35
    assert about.trust is not None
    assert about.trust.pictures == 5
    assert inspect_file(out)["trust"] == verdict(about.trust, about.training)
    checkpoint = checkpoint_path(out)
    assert load_checkpoint(checkpoint).description["trust"] == json.loads(about.to_json())["trust"]
    export_explainer(model, checkpoint, tmp_path / "few.onnx", variant=Variant(filters=(1, 2)))
    assert FileEngine(tmp_path / "few.onnx").metadata.trust == about.trust
    train(model, [planted / "images"], out, options=replace(OPTIONS, pairs=96), resume=True)
    further = FileEngine(out).metadata
    assert (further.training["images"], further.training["pairs"]) == (35, 96)
    assert further.trust is not None
    assert further.trust != about.trust
    with Explainer(out) as opened:
        (explanation,) = opened.explain(planted / "images" / "00.png", "top:2")
    assert all(found.prediction_error == further.trust.error for found in explanation.filters)


def test_a_run_that_left_none_out_goes_on_with_all(
    planted: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.onnx"
    train(model, [planted / "images"], out, options=OPTIONS)
    assert FileEngine(out).metadata.trust is None
    assert inspect_file(out)["trust"].startswith("not measured; 'fsagn-onnx evaluate' tells")
    monkeypatch.setattr(trust_measurement, "PAIRS_PER_PICTURE", 10)
    monkeypatch.setattr("fsagn_onnx.generator.training_run.PAIRS_PER_PICTURE", 10)
    train(model, [planted / "images"], out, options=replace(OPTIONS, pairs=96), resume=True)
    assert FileEngine(out).metadata.training["images"] == 40


@pytest.mark.parametrize(
    ("gain", "specificity", "expected"),
    [
        (
            (0.14, 0.12, 0.16),
            (0.13, 0.11, 0.15),
            "keeps filters' answers better than their feature map by .14 [.12, .16] on 40 left-out pictures; "
            "tells filters apart by .13; predicted retention is off by .09; "
            "trained on 253,312 pairs, 6.3 times the default",
        ),
        (
            (0.004, -0.01, 0.02),
            (0.01, -0.01, 0.03),
            "keeps filters' answers no better than their feature map (+0.00 [-.01, .02]) on 40 left-out pictures; "
            "does not tell filters apart; predicted retention is off by .09; "
            "trained on 253,312 pairs, 6.3 times the default",
        ),
        (
            (-0.04, -0.06, -0.02),
            (0.13, 0.11, 0.15),
            "keeps filters' answers worse than their feature map, by .04 [-.06, -.02] on 40 left-out pictures; "
            "tells filters apart by .13; predicted retention is off by .09; "
            "trained on 253,312 pairs, 6.3 times the default",
        ),
    ],
)
def test_the_verdict_in_words(
    gain: tuple[float, float, float], specificity: tuple[float, float, float], expected: str
) -> None:
    assert verdict(replace(KNOWN, gain=gain, specificity=specificity), {"pairs": 253_312}) == expected


def test_the_verdict_of_what_was_not_measured() -> None:
    assert verdict(None, {}) == "not measured; 'fsagn-onnx evaluate' tells"
    said = "not measured; 'fsagn-onnx evaluate' tells; trained on 40,000 pairs, as many as by default"
    assert verdict(None, {"pairs": 40_000}) == said
