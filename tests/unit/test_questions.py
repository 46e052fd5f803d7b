"""Questions about directions and classes: decision values, directions of filters, training judged by decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from fsagn_onnx.conversion import convert
from fsagn_onnx.data.images import list_images
from fsagn_onnx.errors import UsageError
from fsagn_onnx.generator import Generator, TrainingOptions, load_generator, make_config
from fsagn_onnx.generator.class_pairs import ClassJudge, decision_loss, draw_classes, share_kept
from fsagn_onnx.generator.decision import DecisionValue, decision_value
from fsagn_onnx.generator.questions import ask_directions
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.testing.synthetic import SyntheticParts, write_folder

MODEL = Path(__file__).parents[2] / "models" / "demo_cnn.onnx"
SMALL = TrainingOptions(pairs=24, images_per_step=4, ramp=(), visits=2, checkpoint_every=50, teacher=0.5)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(MODEL)


@pytest.fixture(scope="module")
def generator(model: Model) -> Generator:
    torch.manual_seed(0)
    made = Generator(make_config(model, model.default_layer, classes=True)).eval()
    for layer in (made.shift, made.query):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return made


@pytest.fixture(scope="module")
def seen(model: Model) -> dict[str, torch.Tensor]:
    images = np.stack([model.input_spec.preprocess(sample.image)[0] for sample in SyntheticParts("val", 2)])
    batch = torch.from_numpy(images)
    taps = make_config(model, model.default_layer).taps
    return {"image": batch, **convert(model, [tap.value for tap in taps], check=False)(batch)}


@pytest.mark.parametrize(
    ("kind", "scale", "values", "expected"),
    [
        ("exclusive", "logit", [1.0, 2.0, -1.0], lambda p: np.log(p / (1 - p))),
        ("exclusive", "probability", [0.2, 0.5, 0.3], lambda p: np.log(p / (1 - p))),
        ("several", "logit", [1.0, -2.0], None),
        ("several", "probability", [0.2, 0.9], lambda p: np.log(p / (1 - p))),
        ("single", "logit", [1.5], None),
        ("single", "probability", [0.8], None),
    ],
)
def test_the_decision_value_is_the_log_odds(kind: str, scale: str, values: list[float], expected: object) -> None:
    read = DecisionValue("z", kind, scale, len(values))  # type: ignore[arg-type]
    numbers = torch.tensor([values])
    if expected is not None:
        p = np.array(values) if scale == "probability" else np.exp(values) / np.exp(values).sum()
        wanted = expected(p)  # type: ignore[operator]
    elif kind == "several":
        wanted = np.array(values)
    else:
        z = values[0] if scale == "logit" else np.log(values[0] / (1 - values[0]))
        wanted = np.array([-z, z])
    found = read(numbers)
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-5, atol=1e-6)
    for c in range(len(wanted)):
        np.testing.assert_allclose(read.of(numbers, torch.tensor([c])).numpy(), wanted[c], rtol=1e-5, atol=1e-6)


def test_the_direction_of_one_filter_is_that_filter(generator: Generator, seen: dict[str, torch.Tensor]) -> None:
    feature_map = seen[generator.config.layer]
    peaks = feature_map.amax(dim=(-2, -1))
    active = torch.nonzero((peaks > 0).all(dim=0)).flatten()[:3]
    questions = ask_directions(feature_map, torch.eye(feature_map.shape[1])[active])
    with torch.no_grad():
        made = generator(seen, active.expand(2, -1), questions)
        alone = generator(seen, active.expand(2, -1))
    assert torch.equal(made.saliency, alone.saliency), "filters do not hang on the questions"
    assert torch.equal(made.retention, alone.retention)
    torch.testing.assert_close(made.evidence, made.saliency, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.kept, made.retention, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (torch.zeros(1, 96), "not all zero"),
        (torch.ones(1, 95), r"\(J, 96\)"),
        (torch.full((1, 96), torch.nan), "finite"),
    ],
)
def test_directions_that_ask_nothing_are_refused(
    directions: torch.Tensor, message: str, seen: dict[str, torch.Tensor], generator: Generator
) -> None:
    with pytest.raises(UsageError, match=message):
        ask_directions(seen[generator.config.layer], directions)


def test_at_the_start_evidence_is_gradient_x_activation(model: Model, seen: dict[str, torch.Tensor]) -> None:
    config = make_config(model, model.default_layer, classes=True)
    torch.manual_seed(0)
    untrained = Generator(config).eval()
    read = decision_value(model, classes_of(model), config.layer)
    assert read == DecisionValue("logits", "exclusive", "logit", 10)
    module = convert(model, [*(tap.value for tap in config.taps), read.value], check=False)
    taps, asked = ClassJudge(module, read, config.layer).look(seen["image"], 1, np.random.default_rng(0))
    numbers = taps["logits"]
    chosen = read.of(numbers, asked.ids[:, 0])
    torch.testing.assert_close(asked.decision[:, 0], chosen)
    with torch.no_grad():
        made = untrained({"image": seen["image"], **taps}, torch.zeros(2, 0, dtype=torch.int64), asked.questions)
    weights = next(t for t in model.proto.graph.initializer if t.name == "classifier.weight")
    dense = torch.from_numpy(numpy_helper.to_array(weights).copy())
    odds = torch.softmax(numbers.scatter(1, asked.ids, -torch.inf), dim=1)
    direction = dense[asked.ids[:, 0]] - odds @ dense  # exact for pooling and a linear layer
    product = (taps[config.layer] * direction[:, :, None, None]).sum(dim=1).clamp_min(0)
    found = asked.questions.maps[:, 0]
    torch.testing.assert_close(found / found.amax(), product / product.amax(), rtol=1e-3, atol=1e-5)
    own = product / product.amax(dim=(-2, -1), keepdim=True)
    up = torch.nn.functional.interpolate(own[:, None], size=config.grid, mode="bilinear", align_corners=False)
    base = torch.log(up[:, 0] + 0.01)
    correlation = np.corrcoef(base.flatten(), made.evidence[:, 0].flatten())[0, 1]
    assert correlation > 0.95, "smoothed by the Gaussian alone"


def test_shares_are_of_what_the_infill_takes() -> None:
    share, told = share_kept(
        torch.tensor([3.0, 0.0, 9.0]), torch.tensor([4.0, 4.0, 0.5]), torch.tensor([0.0, 0.0, 0.0])
    )
    torch.testing.assert_close(share[:2], torch.tensor([0.75, 0.0]))
    assert told.tolist() == [1, 1, 0], "a decision that the infill hardly moves teaches nothing"
    removed = torch.tensor([False, True, False])
    torch.testing.assert_close(decision_loss(share, told, removed), torch.tensor((0.25 + 0.0) / 2))


def test_plausible_classes_are_drawn() -> None:
    numbers = torch.arange(40.0).view(2, 20)
    drawn = draw_classes(numbers, 2, np.random.default_rng(0))
    assert drawn.shape == (2, 2)
    assert (drawn >= 15).all(), "among the five best"
    assert draw_classes(numbers[:, :1], 2, np.random.default_rng(0)).eq(0).all()


def test_training_with_classes_moves_their_weights_and_resumes(model: Model, tmp_path: Path) -> None:
    write_folder(tmp_path / "set", "train", 6)
    images = list(list_images([tmp_path / "set" / "images"]))

    def trainer(options: TrainingOptions = SMALL) -> Trainer:
        return Trainer(model, model.default_layer, images, tmp_path / "x.safetensors", options=options)

    run = trainer()
    assert run.options.questions == ("filters", "classes")
    assert run.stepper.classes is not None
    assert run.stepper.classes.depths == ("block4", "block2")
    whole = run.run()
    assert {"kept", "removed"} <= set(run.running)
    assert whole.tensors["weights/class_embedding"].abs().max() > 0
    assert load_generator(whole).config.classes
    again = trainer()
    again.run(resume=True)
    assert again.step == run.step
    alone = trainer(replace(SMALL, questions=("filters",)))
    assert alone.stepper.classes is None
    assert not alone.config.classes


def test_questions_about_classes_need_a_decision(model: Model, tmp_path: Path) -> None:
    write_folder(tmp_path / "set", "train", 2)
    images = list(list_images([tmp_path / "set" / "images"]))
    wanted = replace(SMALL, questions=("filters", "classes"))
    with pytest.raises(UsageError, match="encoder of its own"):
        Trainer(model, model.default_layer, images, tmp_path / "x.safetensors", encoder="own", options=wanted)
    with pytest.raises(UsageError, match="does not classify"):
        Trainer(
            model, model.default_layer, images, tmp_path / "x.safetensors", options=wanted, classes={"scores": "none"}
        )
    with pytest.raises(UsageError, match="questions must be"):
        replace(SMALL, questions=("classes",))
