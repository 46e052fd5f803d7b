"""How far what is particular to a filter is brought out is chosen after learning, by what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fsagn_onnx.data.images import list_images
from fsagn_onnx.errors import ExplainerError, UsageError
from fsagn_onnx.generator import (
    Checkpoint,
    ExportReport,
    TrainingOptions,
    load_checkpoint,
    particular_choice,
    training_run,
)
from fsagn_onnx.generator.particular_choice import CANDIDATES, choose_particular
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.testing.synthetic import write_folder

MODEL = Path(__file__).parents[2] / "models" / "demo_cnn.onnx"
FEW = TrainingOptions(pairs=8, images_per_step=2, questions=("filters",), ramp=(), crop=0.9)


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[[TrainingOptions], Trainer]:
    write_folder(tmp_path / "set", "train", 4)
    images = list(list_images([tmp_path / "set" / "images"]))
    model = load_model(MODEL)
    return lambda options: Trainer(model, model.default_layer, images, tmp_path / "x.safetensors", options=options)


@pytest.mark.parametrize(
    ("gain", "chosen"),
    [
        (lambda weight: 0.2, CANDIDATES[-1]),
        (lambda weight: 0.2 - 0.1 * weight, 0.3),
        (lambda weight: 0.2 if weight < 0.15 else 0.0, 0.1),
        (lambda weight: 0.2 if not weight else 0.1, 0.0),
        (lambda weight: -0.1 + weight, 0.0),
    ],
)
def test_as_much_as_leaves_most_of_the_gain(
    gain: Callable[[float], float], chosen: float, trainer: Callable[[TrainingOptions], Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(particular_choice, "_gains", lambda stepper, options, count: gain)
    run = trainer(FEW)
    before = run.generator.config
    phases: list[str] = []
    assert choose_particular(run.stepper, replace(FEW, pairs=9_999), on_phase=phases.append) == 0, "too short to tell"
    assert not phases
    assert choose_particular(run.stepper, replace(FEW, pairs=10_000), on_phase=phases.append) == chosen
    assert len(phases) == 1
    assert run.generator.config is before
    assert run.generator.training


def test_what_a_training_chose_stands_in_its_checkpoint(
    trainer: Callable[[TrainingOptions], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(particular_choice, "PAIRS_PER_PICTURE", 1)
    measured: list[float] = []
    real = particular_choice._gains

    def noted(*arguments: object) -> Callable[[float], float]:
        gain = real(*arguments)  # type: ignore[arg-type]

        def note(weight: float) -> float:
            measured.append(gain(weight))
            return 1.0 - weight  # after so few pairs there is no gain to keep

        return note

    monkeypatch.setattr(particular_choice, "_gains", noted)
    whole = trainer(FEW).run()
    assert whole.description["generator"]["particular"] == 0.1
    assert len(measured) == 4
    assert all(-1 < gain < 1 for gain in measured)
    assert len(set(measured)) == 4, "what is brought out changes what is kept"
    monkeypatch.setattr(particular_choice, "_gains", lambda *arguments: pytest.fail("chosen before"))
    again = trainer(FEW)
    again.restore(load_checkpoint(again.checkpoint))
    assert again.generator.config.particular == again.config.particular == 0.1
    assert again.snapshot().description["generator"] == whole.description["generator"]
    told = trainer(replace(FEW, particular=0.0)).run()
    assert told.description["generator"]["particular"] == 0


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match="particular must be in"):
        TrainingOptions(particular=float("nan"))


def test_what_nobody_wished_for_does_not_stop_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "set", "train", 4)
    monkeypatch.setattr(particular_choice, "PAIRS_PER_PICTURE", 1)
    monkeypatch.setattr(particular_choice, "_gains", lambda *arguments: lambda weight: 1.0 - weight)
    real, tried = training_run.export_explainer, []

    def unlike(model: Model, checkpoint: Checkpoint, out: Path) -> ExportReport:
        tried.append(checkpoint.description["generator"]["particular"])
        if tried[-1]:
            raise ExplainerError("export: area_rank in onnxruntime differ by 1 from torch")
        return real(model, checkpoint, out)

    monkeypatch.setattr(training_run, "export_explainer", unlike)
    out = tmp_path / "x.onnx"
    training_run.train(MODEL, [tmp_path / "set" / "images"], out, options=FEW)
    assert tried == [0.1, 0.0]
    assert "particular" not in FileEngine(out, "cpu").metadata.training
    assert load_checkpoint(training_run.checkpoint_path(out)).description["generator"]["particular"] == 0
    with pytest.raises(ExplainerError, match="differ by 1"):
        training_run.train(
            MODEL, [tmp_path / "set" / "images"], tmp_path / "y.onnx", options=replace(FEW, particular=0.2)
        )
