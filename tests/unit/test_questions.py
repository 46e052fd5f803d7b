"""Questions about directions and classes: decision values, directions of filters, training judged by decisions."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from fsagn_onnx.conversion import convert
from fsagn_onnx.data.images import list_images
from fsagn_onnx.errors import CheckpointError, UsageError
from fsagn_onnx.generator import (
    Checkpoint,
    Generator,
    TrainingOptions,
    export_explainer,
    load_generator,
    make_config,
    save_checkpoint,
)
from fsagn_onnx.generator.class_pairs import ClassJudge, decision_loss, draw_classes, share_kept
from fsagn_onnx.generator.decision import DecisionValue, decision_value
from fsagn_onnx.generator.network import choose_filters
from fsagn_onnx.generator.questions import ask_directions
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.filter_request import FilterRequest
from fsagn_onnx.runtime.variant import Variant
from fsagn_onnx.testing.synthetic import SyntheticParts, write_folder

MODEL = Path(__file__).parents[2] / "models" / "demo_cnn.onnx"
SMALL = TrainingOptions(pairs=24, images_per_step=4, ramp=(), visits=2, checkpoint_every=50)


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
    torch.testing.assert_close(made.retention, alone.retention, rtol=0, atol=1e-6)  # threads may add in another order
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
    assert run.stepper.classes.teacher is not None
    assert run.stepper.classes.teacher.depths == ("block6", "block4", "block2", "block0")
    whole = run.run()
    chosen = run.stepper.classes.teacher.depths
    assert whole.description["training"]["teacher"] == list(chosen)
    assert {"kept", "removed"} <= set(run.running)
    assert whole.tensors["weights/class_embedding"].abs().max() > 0
    assert load_generator(whole).config.classes
    again = trainer()
    again.run(resume=True)
    assert again.step == run.step
    assert again.stepper.classes is not None
    assert again.stepper.classes.teacher is not None
    assert again.stepper.classes.teacher.depths == chosen
    alone = trainer(replace(SMALL, questions=("filters",)))
    assert alone.stepper.classes is None
    assert not alone.config.classes


def test_the_pairs_of_classes_have_a_weight_of_their_own(model: Model, tmp_path: Path) -> None:
    write_folder(tmp_path / "set", "train", 6)
    images = list(list_images([tmp_path / "set" / "images"]))
    losses = []
    for weight in (0.0, 1.0, 2.0):
        options = replace(SMALL, classes_weight=weight)
        run = Trainer(model, model.default_layer, images, tmp_path / "x.safetensors", options=options)
        losses.append(float(run.stepper(0).loss.detach()))
    assert losses[1] - losses[0] > 0.1, "untrained, no area keeps a whole decision"
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)
    with pytest.raises(UsageError, match="classes_weight must not be negative"):
        replace(SMALL, classes_weight=-1.0)


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


@pytest.fixture(scope="module")
def checkpoint(model: Model, generator: Generator) -> Checkpoint:
    """Of a generator that was not trained, but whose weights are not zero."""
    return Checkpoint(
        {
            "content": model.content,
            "generator": generator.config.to_dict(),
            "options": TrainingOptions(questions=("filters", "classes")).to_dict(),
            "training": {},
        },
        {f"weights/{name}": value for name, value in generator.state_dict().items()},
    )


@pytest.fixture(scope="module")
def explainer(model: Model, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("questions") / "explainer.onnx"
    report = export_explainer(model, checkpoint, out)
    assert set(report.decision) == {"decision", "contributions", "support", "evidence_rank", "evidence_retention"}
    assert max(report.decision.values()) < 1e-5
    return out


@pytest.fixture(scope="module")
def filters_only(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An explainer that was not made for questions about classes."""
    out = tmp_path_factory.mktemp("filters") / "explainer.onnx"
    made = Generator(make_config(model, model.default_layer))
    description = {
        "content": model.content,
        "generator": made.config.to_dict(),
        "options": TrainingOptions(questions=("filters",)).to_dict(),
        "training": {},
    }
    weights = {f"weights/{name}": value for name, value in made.state_dict().items()}
    export_explainer(model, Checkpoint(description, weights), out)
    return out


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:  # type: ignore[type-arg]
    return [sample.image for sample in SyntheticParts("val", 2)]


def test_filters_that_contribute_are_chosen_by_contribution() -> None:
    feature_map = torch.tensor([[5.0, 4.0, 3.0, 2.0]])[:, :, None, None]
    phi = torch.tensor([[-1.0, 0.5, 2.0, 0.5]])
    asked = torch.tensor([[-2, 2, -3, -2, -1]])
    ids, peaks = choose_filters(feature_map, asked, phi)
    assert ids.tolist() == [[1, 2, 0, 3, 0]], "2 is asked for by id; 1 and 3 are tied"
    assert peaks.tolist() == [[4, 3, 5, 2, 5]]


def test_a_file_tells_decisions_as_its_outputs_say(explainer: Path, pictures: list[np.ndarray]) -> None:  # type: ignore[type-arg]
    with closing(FileEngine(explainer)) as engine:
        batch = np.stack([engine.metadata.input.preprocess(picture)[0] for picture in pictures])
        filters = np.tile(np.array([[-2, -2, -3, -1, 7]]), (2, 1))
        found = engine.decide(batch, filters, np.array([[-1, 3], [3, -1]]))
        plain = engine.run(batch, filters)
    decided = found.decisions
    assert decided is not None
    logits = found.outputs["logits"].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert decided.class_ids.tolist() == [[logits[0].argmax(), 3], [3, logits[1].argmax()]]
    p = np.take_along_axis(probabilities, decided.class_ids, axis=1)
    np.testing.assert_allclose(decided.decision, np.log(p / (1 - p)), rtol=1e-3)
    first = decided.contributions[:, 0]
    assert (first[:, 0] >= first[:, 1]).all()
    assert (first[:, 0] > first[:, 2]).all()
    assert (decided.support[..., 0] > 0).all()
    assert (decided.support[..., 1] < 0).all()
    cells = decided.evidence_rank[0, 0].size
    np.testing.assert_allclose(np.sort(decided.evidence_rank[0, 0].ravel()), np.arange(1, cells + 1) / cells, rtol=1e-6)
    assert (np.diff(decided.evidence_retention) >= 0).all()
    assert plain.decisions is None
    np.testing.assert_array_equal(plain.area_rank[1, 3:], found.area_rank[1, 3:])


def test_explanations_hold_evidence_and_shares(explainer: Path, pictures: list[np.ndarray]) -> None:  # type: ignore[type-arg]
    with Explainer(explainer) as explaining:
        whole, named, alone = (
            explaining.explain(pictures[0], **asked)[0]  # type: ignore[arg-type]
            for asked in ({}, {"classes": ["bumble", -1], "filters": "decisive:2,against:3"}, {"filters": "top:3"})
        )
        every = explaining.explain(pictures[0], filters="all", classes=-1)[0]
    assert len(whole.filters) == 5
    assert [found.index for found in whole.evidence] == [whole.predictions[0].index]
    shares = [found.share or 0 for found in whole.filters]
    assert shares == sorted(shares, reverse=True), "most contributing first"
    support = whole.evidence[0].support
    assert support is not None
    assert shares[0] == pytest.approx((whole.filters[0].contribution or 0) / support[0])
    total = sum(found.contribution or 0 for found in every.filters)
    assert total == pytest.approx(sum(support), rel=1e-4), "sums over filters keep their sign"
    assert [found.title for found in named.evidence] == ["bumble", whole.predictions[0].title]
    assert [np.sign(found.contribution or 0) for found in named.filters] == [1, 1, -1, -1, -1]
    assert (alone.evidence, alone.filters[0].contribution) == ((), None)
    assert named.input_mask(named.evidence[0], 0.1).mean() == pytest.approx(0.1, abs=1e-3)


def test_a_direction_of_one_filter_looks_where_the_filter_does(explainer: Path, pictures: list[np.ndarray]) -> None:  # type: ignore[type-arg]
    with Explainer(explainer) as explaining:
        ids = [found.id for found in explaining.explain(pictures[0], filters="top:2")[0].filters]
        found = explaining.explain(pictures[0], filters=ids, directions=np.eye(96, dtype=np.float32)[ids])[0]
    for single, direction in zip(found.filters, found.directions, strict=True):
        np.testing.assert_allclose(direction.area_rank, single.area_rank, atol=2 / single.area_rank.size)
        assert direction.retention_predicted == pytest.approx(single.retention_predicted, abs=1e-4)
        assert direction.activation > 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"classes": "nobody"}, "no class 'nobody': the model has 10 classes, 0..9: argo, bumble"),
        ({"classes": 10}, "no class 10"),
        ({"classes": -2}, "no class -2"),
        ({"classes": "top:0"}, "top:1"),
        ({"directions": np.zeros(96)}, "direction 0 is all zero"),
        ({"directions": np.ones((2, 95))}, r"must be \(D, 96\), one number per filter of layer 'block6'"),
        ({"directions": np.full(96, np.nan)}, "NaN"),
        ({"directions": "up"}, "array of numbers"),
        ({"directions": np.ones(96) * 1j}, "array of numbers"),
        ({"directions": np.full(96, 1e300)}, "NaN or infinity"),
        ({"classes": 1.5}, "names or numbers, one or several, but got 1.5"),
        ({"classes": ["argo", None]}, "names or numbers"),
        ({"filters": "decisive:0"}, "at least one"),
        ({"filters": "best:3"}, "'decisive:K'"),
    ],
)
def test_questions_without_an_answer_are_refused(
    asked: dict[str, object],
    message: str,
    explainer: Path,
    pictures: list[np.ndarray],  # type: ignore[type-arg]
) -> None:
    with Explainer(explainer) as explaining, pytest.raises(UsageError, match=message) as raised:
        explaining.explain(pictures[0], **asked)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("asked", [{"classes": -1}, {"filters": "decisive:2"}, {"directions": np.ones(96)}])
def test_files_without_questions_about_classes_say_so(
    asked: dict[str, object],
    filters_only: Path,
    pictures: list[np.ndarray],  # type: ignore[type-arg]
) -> None:
    with (
        Explainer(filters_only) as explaining,
        pytest.raises(UsageError, match="made for questions about filters only"),
    ):
        explaining.explain(pictures[0], **asked)  # type: ignore[arg-type]


def test_requests_join_their_parts() -> None:
    with closing(FileEngine(MODEL.with_name("demo_explainer.onnx"))) as engine:
        parse = lambda text: FilterRequest.parse(text, engine.metadata).slots  # noqa: E731
        assert parse("decisive:2,against:1,7,top:2") == (-2, -2, -3, 7, -1, -1)
        assert len(parse("decisive:5000")) == 96
        assert parse([3, -2, 3]) == (3, -2)


@pytest.mark.parametrize(
    "variant",
    [Variant("fp16"), Variant(preprocessing=True), Variant(top=3), Variant(filters=(3, 17))],
    ids=["fp16", "pixels", "top", "subset"],
)
def test_variants_carry_questions_or_say_that_they_do_not(
    variant: Variant,
    model: Model,
    checkpoint: Checkpoint,
    explainer: Path,
    tmp_path: Path,
    pictures: list[np.ndarray],  # type: ignore[type-arg]
) -> None:
    out = tmp_path / "variant.onnx"
    export_explainer(model, checkpoint, out, variant=variant)
    with Explainer(out) as explaining, Explainer(explainer) as plain:
        if variant.filters:
            with pytest.raises(UsageError, match="holds some filters only"):
                explaining.explain(pictures[0], classes=-1)
            return
        found = explaining.explain(pictures[0], filters="top:3", classes=-1)[0].evidence[0]
        same = plain.explain(pictures[0], filters="top:3", classes=-1)[0].evidence[0]
        assert found.index == same.index
        assert found.decision == pytest.approx(same.decision, rel=0.05)
        a, b = found.area_rank <= 0.2, same.area_rank <= 0.2
        assert (a & b).sum() / (a | b).sum() > 0.85
        if variant.top:
            with pytest.raises(UsageError, match="fixed inside"):
                explaining.explain(pictures[0], filters="top:3", classes=3)
            with closing(FileEngine(out, tap=True)) as tapped:
                assert {port.name for port in tapped.inputs} >= {"filters", "classes"}


def test_a_checkpoint_of_another_kind_is_not_gone_on_with(model: Model, tmp_path: Path, checkpoint: Checkpoint) -> None:
    write_folder(tmp_path / "set", "train", 2)
    images = list(list_images([tmp_path / "set" / "images"]))
    described = {**checkpoint.description, "images": "", "step": 0, "running": {}}
    save_checkpoint(tmp_path / "x.safetensors", Checkpoint(described, checkpoint.tensors))
    run = Trainer(
        model, model.default_layer, images, tmp_path / "x.safetensors", options=replace(SMALL, questions=("filters",))
    )
    with pytest.raises(CheckpointError, match="another layer or encoder"):
        run.run(resume=True)
