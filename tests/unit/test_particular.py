"""What is particular to a filter: brought out once a generator is trained, of filters only, alike in torch and onnx."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from fsagn_onnx.conversion import convert
from fsagn_onnx.generator import Checkpoint, Generator, TrainingOptions, export_explainer, make_config
from fsagn_onnx.generator.area import area_rank, standardise
from fsagn_onnx.generator.graph_runner import run_graph
from fsagn_onnx.generator.particular import OWN_ABOVE, told_apart
from fsagn_onnx.generator.questions import Questions
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.contract import (
    AREA_RANK,
    CLASSES,
    EVIDENCE_RANK,
    EVIDENCE_RETENTION,
    FILTERS,
    RETENTION,
)
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.variant import Variant
from fsagn_onnx.testing.synthetic import SyntheticParts

MODEL = Path(__file__).parents[2] / "models" / "demo_cnn.onnx"
WEIGHT = 0.5
TOLD_APART = TrainingOptions(pairs=16, questions=("filters",), particular=WEIGHT)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(MODEL)


@pytest.fixture(scope="module")
def seen(model: Model) -> dict[str, Tensor]:
    images = np.stack([model.input_spec.preprocess(sample.image)[0] for sample in SyntheticParts("val", 2)])
    taps = [tap.value for tap in make_config(model, model.default_layer).taps]
    return {"image": torch.from_numpy(images), **convert(model, taps, check=False)(torch.from_numpy(images))}


def made(model: Model, particular: float, *, classes: bool = False) -> Generator:
    """A generator whose weights are not those of the start; the same ones for every weight of what is particular."""
    torch.manual_seed(0)
    generator = Generator(make_config(model, model.default_layer, classes=classes, particular=particular)).eval()
    for layer in (generator.shift, generator.query):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return generator


def write(model: Model, generator: Generator, out: Path, variant: Variant | None = None) -> onnx.ModelProto:
    description = {
        "content": model.content,
        "generator": json.loads(json.dumps(generator.config.to_dict())),
        "options": TrainingOptions().to_dict(),
        "training": {},
    }
    weights = {f"weights/{name}": value for name, value in generator.state_dict().items()}
    export_explainer(model, Checkpoint(description, weights), out, variant=variant)
    return onnx.load(out)


def whole_picture(seen: dict[str, Tensor], model: Model) -> Questions:
    features = seen[model.default_layer.value]
    filters = features.shape[1]
    return Questions(features.sum(dim=1, keepdim=True), torch.full((len(features), 1, filters), 1 / filters), None)


def test_what_others_want_goes_back_behind_the_first_cells() -> None:
    rng = np.random.default_rng(0)
    maps, picture = (torch.from_numpy(rng.standard_normal((2, k, 16, 16)).astype(np.float32)) for k in (3, 1))
    before, after = (area_rank(each) for each in (maps, told_apart(maps, picture, WEIGHT)))
    first = standardise(maps) > OWN_ABOVE
    assert torch.equal(before[first], after[first]), "the first cells are the filter's own"
    assert 0.1 < float(first.float().mean()) < 0.3
    moved, wanted = (after - before)[~first], picture.expand_as(maps)[~first]
    assert float(torch.corrcoef(torch.stack((moved, wanted)))[0, 1]) > 0.5, "behind them places of others go back"


def test_a_filter_that_is_the_picture_keeps_its_order() -> None:
    picture = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 1, 16, 16)).astype(np.float32))
    assert torch.equal(area_rank(told_apart(picture * 3 - 1, picture, WEIGHT)), area_rank(picture))


def test_maps_are_told_apart_by_one_question_more(model: Model, seen: dict[str, Tensor]) -> None:
    filters = torch.tensor([[3, 70, -1], [5, -1, -1]])
    with torch.no_grad():
        plain = made(model, 0)(seen, filters, whole_picture(seen, model))
        apart = made(model, WEIGHT)(seen, filters)
    torch.testing.assert_close(apart.saliency, told_apart(plain.saliency, plain.evidence, WEIGHT))
    assert not torch.equal(apart.retention, plain.retention), "the retention head reads the final maps"


def test_nothing_is_told_apart_while_learning(model: Model, seen: dict[str, Tensor]) -> None:
    filters = torch.tensor([[3, 70], [5, -1]])
    with torch.no_grad():
        plain, apart = (made(model, weight).train()(seen, filters) for weight in (0, WEIGHT))
    assert torch.equal(plain.saliency, apart.saliency)


def test_answers_do_not_hang_on_what_else_is_asked(model: Model, seen: dict[str, Tensor]) -> None:
    generator = made(model, WEIGHT)
    with torch.no_grad():
        many = generator(seen, torch.tensor([[3, 70, 9]] * 2)).saliency[:, :1]
        alone = generator(seen, torch.tensor([[3]] * 2)).saliency
    torch.testing.assert_close(many, alone)


def test_a_file_tells_filters_apart_and_leaves_evidence_alone(model: Model, tmp_path: Path) -> None:
    images = np.stack([model.input_spec.preprocess(sample.image)[0] for sample in SyntheticParts("val", 2)])
    feeds = {
        model.input_spec.name: images,
        FILTERS: np.array([[3, -1], [70, -2]], dtype=np.int64),
        CLASSES: np.array([[-1, 0], [1, 2]], dtype=np.int64),
    }
    plain, apart = (
        run_graph(
            write(model, made(model, weight, classes=True), tmp_path / f"{weight}.onnx").SerializeToString(), feeds
        )
        for weight in (0.0, WEIGHT)
    )
    told = [
        FileEngine(tmp_path / f"{weight}.onnx", "cpu").metadata.training.get("particular") for weight in (0.0, WEIGHT)
    ]
    assert told == [None, WEIGHT]
    assert not np.array_equal(plain[AREA_RANK], apart[AREA_RANK])
    assert np.array_equal(plain[EVIDENCE_RANK], apart[EVIDENCE_RANK])
    np.testing.assert_allclose(plain[EVIDENCE_RETENTION], apart[EVIDENCE_RETENTION], atol=1e-6)


def test_a_file_of_some_filters_answers_as_the_whole_one(model: Model, tmp_path: Path) -> None:
    generator, filters = made(model, WEIGHT), (70, 3)
    image = model.input_spec.preprocess(SyntheticParts("val", 1)[0].image)[0][None]
    whole = write(model, generator, tmp_path / "whole.onnx").SerializeToString()
    some = write(model, generator, tmp_path / "some.onnx", Variant(filters=filters)).SerializeToString()
    expected = run_graph(whole, {model.input_spec.name: image, FILTERS: np.array([filters], dtype=np.int64)})
    got = run_graph(some, {model.input_spec.name: image})
    assert np.array_equal(got[AREA_RANK], expected[AREA_RANK])
    np.testing.assert_allclose(got[RETENTION], expected[RETENTION], atol=1e-6)


def test_a_generator_without_it_writes_the_graph_of_before(model: Model, tmp_path: Path) -> None:
    ops = [node.op_type for node in write(model, made(model, 0), tmp_path / "plain.onnx").graph.node]
    assert not {"LayerNormalization", "Pad"} & set(ops)


def test_an_encoder_of_its_own_tells_nothing_apart(model: Model, tmp_path: Path) -> None:
    trainer = Trainer(model, model.default_layer, [MODEL], tmp_path / "none", encoder="own", options=TOLD_APART)
    assert trainer.config.particular == 0
    assert (
        Trainer(model, model.default_layer, [MODEL], tmp_path / "none", options=TOLD_APART).config.particular == WEIGHT
    )
    silent = {key: value for key, value in made(model, 0).config.to_dict().items() if key != "particular"}
    assert type(made(model, 0).config).from_dict(json.loads(json.dumps(silent))) == replace(
        made(model, 0).config, particular=0.0
    ), "older checkpoints are silent about it"
