"""The generator on the planted CNN: areas, ties, files, resume, and whether it finds the planted patches."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import numpy_helper

from fsagn_onnx.data.images import list_images
from fsagn_onnx.errors import CheckpointError, ImageError, UsageError
from fsagn_onnx.generator import (
    Generator,
    TrainingOptions,
    export_explainer,
    load_checkpoint,
    make_config,
    read_quality,
    train,
)
from fsagn_onnx.generator.area import area_rank, soft_mask, standardise
from fsagn_onnx.generator.embedding import filter_embedding
from fsagn_onnx.generator.network import choose_filters
from fsagn_onnx.generator.objective import (
    Objective,
    contrast_loss,
    crosswise_change,
    relative_change,
    total_variation,
)
from fsagn_onnx.generator.options import default_crop
from fsagn_onnx.generator.schedule import input_size
from fsagn_onnx.generator.step import Stepper
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.generator.training_run import checkpoint_path
from fsagn_onnx.methods import engine_for
from fsagn_onnx.methods.method_engine import strongest
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime import masks
from fsagn_onnx.runtime.engine import Engine
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.terminal.training import TrainingBar
from fsagn_onnx.testing.planted import SIZE, TAP, planted_picture, write_planted_folder

SMALL = TrainingOptions(
    pairs=384,
    images_per_step=8,
    questions=("filters",),
    ramp=(),
    jitter=0,
    crop=0.9,
    flip=False,
    active=4,
    checkpoint_every=5,
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted_folder(tmp_path_factory.mktemp("planted"), 40)


@pytest.fixture(scope="module")
def model(planted: Path) -> Model:
    return load_model(planted / "planted.onnx")


@pytest.fixture(scope="module")
def explainer(planted: Path, model: Model) -> Path:
    out = planted / "explainer.onnx"
    train(model, [planted / "images"], out, layer=TAP, options=SMALL)
    return out


def found(engine: Engine, model: Model, seeds: range) -> float:
    """Share of (picture, filter) pairs whose mask has its centroid in the patch and IoU >= .5 with it."""
    hits = []
    for seed in seeds:
        picture = planted_picture(seed)
        batch = model.input_spec.preprocess(picture.image)[0][None]
        ids = list(picture.boxes)
        for k, rank in zip(ids, engine.run(batch, np.array([ids])).area_rank[0], strict=True):
            box = picture.box_mask(k)
            mask = masks.pixel_mask(rank, float(box.mean()), (SIZE, SIZE))
            row, column = np.argwhere(mask).mean(axis=0) + 0.5
            left, top, right, bottom = picture.boxes[k]
            inside = left <= column <= right and top <= row <= bottom
            hits.append(inside and (mask & box).sum() / (mask | box).sum() >= 0.5)
    return float(np.mean(hits))


@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(-3, 3, width=32)),
    st.floats(0, 1),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_pixel_mask_has_exactly_the_asked_area(saliency: np.ndarray, area: float, size: tuple[int, int]) -> None:
    rank = masks.area_rank(saliency)
    assert sorted((rank * 12).round().astype(int).ravel()) == list(range(1, 13))
    assert masks.pixel_mask(rank, area, size).sum() == round(area * size[0] * size[1])


@pytest.mark.parametrize("area", [-0.1, 1.01, float("nan")])
def test_pixel_mask_refuses_areas_out_of_range(area: float) -> None:
    with pytest.raises(UsageError, match=r"area must be in \[0, 1\]"):
        masks.pixel_mask(np.ones((2, 2), dtype=np.float32), area, (4, 4))


@given(arrays.arrays(np.float32, (2, 5, 5), elements=st.sampled_from([0.0, 1.0, 2.0])))
def test_torch_and_numpy_rank_alike_ties_by_position(saliency: np.ndarray) -> None:
    np.testing.assert_array_equal(area_rank(torch.from_numpy(saliency)).numpy(), masks.area_rank(saliency))


@pytest.mark.parametrize("area", [0.03, 0.2, 0.6])
def test_soft_mask_has_the_area_and_the_implicit_gradient(area: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsagn_onnx.generator.area.BISECTIONS", 60)
    torch.manual_seed(0)
    saliency = torch.randn(1, 4, 4, dtype=torch.float64, requires_grad=True)
    asked = torch.tensor([area], dtype=torch.float64)
    weight = torch.randn(1, 4, 4, dtype=torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        return (soft_mask(standardise(values), asked, 0.3) * weight).sum()

    assert float(soft_mask(standardise(saliency), asked, 0.3).detach().mean()) == pytest.approx(area, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss(saliency), saliency)
    step = 1e-3
    for place in np.ndindex(1, 4, 4):
        nudge = torch.zeros(1, 4, 4, dtype=torch.float64)
        nudge[place] = step
        slope = (loss(saliency + nudge) - loss(saliency - nudge)) / (2 * step)
        assert float(gradient[place]) == pytest.approx(float(slope.detach()), rel=1e-2, abs=2e-3)


def test_contrast_asks_for_the_margin_and_no_more() -> None:
    change = torch.tensor([[[0.2, 0.9], [0.5, 0.4]]], requires_grad=True)  # mask, filter: r = .8 .1 / .5 .6
    elsewhere = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])
    assert float(contrast_loss(change, elsewhere, 0.2).detach()) == 0.0  # both keep .3 and .5 more under their own mask
    loss = contrast_loss(change, elsewhere, 0.4)  # the first one's .3 falls short by .1
    assert float(loss.detach()) == pytest.approx(0.1 / 2)
    loss.backward()
    assert change.grad is not None
    torch.testing.assert_close(change.grad, torch.tensor([[[0.5, 0.0], [-0.5, 0.0]]]))
    alike = torch.tensor([[[[1.0, 0.0]], [[2.0, 0.0]]]])
    assert float(contrast_loss(change, alike, 0.4).detach()) == 0.0  # nothing tells these apart
    assert float(contrast_loss(change[:, :1, :1], elsewhere[:, :1], 0.4).detach()) == 0.0


def test_crosswise_changes_hold_those_of_the_pairs() -> None:
    torch.manual_seed(0)
    masked, original = torch.rand(2, 3, 3, 4, 5), torch.rand(2, 3, 4, 5)
    crosswise = crosswise_change(masked, original)
    for image in range(2):
        for mask in range(3):
            expected = relative_change(masked[image, mask], original[image])
            torch.testing.assert_close(crosswise[image, mask], expected)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_strongest_filters_are_the_same_in_torch_and_numpy(seed: int, asked: int) -> None:
    rng = np.random.default_rng(seed)
    feature_map = rng.integers(0, 3, size=(2, 6, 2, 2)).astype(np.float32)
    filters = np.where(rng.random((2, asked)) < 0.7, -1, rng.integers(6, size=(2, asked)))
    ids, peaks = choose_filters(torch.from_numpy(feature_map), torch.from_numpy(filters))
    expected_ids, expected_peaks = strongest(feature_map, filters)
    np.testing.assert_array_equal(ids.numpy(), expected_ids)
    np.testing.assert_array_equal(peaks.numpy(), expected_peaks)


@pytest.mark.parametrize(("images", "asked"), [(1, 1), (3, 5), (17, 32)])
def test_file_takes_any_n_and_k(explainer: Path, model: Model, images: int, asked: int) -> None:
    onnx.checker.check_model(onnx.load(explainer), full_check=True)
    session = onnxruntime.InferenceSession(explainer, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).standard_normal((images, 3, SIZE, SIZE)).astype(np.float32)
    filters = np.full((images, asked), -1, dtype=np.int64)
    scores, ids, peaks, rank, retention = session.run(None, {"image": batch, "filters": filters})
    plain = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(scores, plain.run(None, {"image": batch})[0], rtol=1e-4, atol=1e-6)
    assert ids.shape == peaks.shape == (images, asked)
    filled = min(asked, 8)
    assert (np.diff(peaks[:, :filled], axis=1) <= 0).all()
    assert (ids[:, filled:] == -1).all()
    cells = rank.shape[2] * rank.shape[3]
    expected = np.arange(1, cells + 1, dtype=np.float64) / cells
    np.testing.assert_allclose(np.sort(rank.reshape(-1, cells), axis=1), expected[None].repeat(images * asked, 0), 1e-6)
    assert ((retention >= 0) & (retention < 1)).all()
    assert (np.diff(retention, axis=2) >= 0).all()


def test_a_slot_that_no_filter_is_left_for_is_empty(explainer: Path) -> None:
    session = onnxruntime.InferenceSession(explainer, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    asked = np.array([[-1, 3, *[-1] * 7, -2]])
    ids, peaks = session.run(["filter_ids", "filter_peaks"], {"image": batch, "filters": asked})
    assert ids[0, 1] == 3
    assert sorted(ids[0, :8]) == list(range(8))
    assert (ids[0, 8:] == -1).all()
    assert (peaks[0, 8:] == 0).all()


def test_sums_are_inside_convolutions(explainer: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(explainer, options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx").graph
    if not any(node.domain == "com.microsoft.nchwc" for node in optimised.node):
        pytest.skip("this processor has no blocked layout")
    left = [name for node in optimised.node if node.op_type in ("Add", "Relu") for name in node.input]
    stored = {tensor.name for tensor in optimised.initializer}
    trunk = [name for name in left if name.startswith("reorder") and name not in stored]
    assert not trunk, trunk


def test_step_zero_is_the_upsampled_feature_map(model: Model) -> None:
    engine = engine_for(model, TAP, "activation")
    assert found(engine, model, range(1000, 1030)) >= 0.95


def test_maps_are_sharper_than_while_they_are_learnt(model: Model) -> None:
    torch.manual_seed(0)
    made = Generator(make_config(model, model.layer(TAP)))
    taps = {tap.value: torch.rand(1, tap.channels, *model.shapes[tap.value][2:]) for tap in made.config.taps}
    inputs, filters = {"image": torch.rand(1, 3, *model.input_spec.size), **taps}, torch.tensor([[0, 1]])
    with torch.no_grad():
        learning, learnt = (made.train(mode)(inputs, filters).saliency for mode in (True, False))
    assert float(total_variation(learnt[0]).min()) > 1.05 * float(total_variation(learning[0]).max())


def test_trained_generator_finds_the_planted_patches(explainer: Path, model: Model) -> None:
    assert found(FileEngine(explainer), model, range(1000, 1030)) >= 0.95


def test_fewer_pixels_first_but_never_under_128(model: Model) -> None:
    options = TrainingOptions(pairs=1600)
    for edge, expected in ((224, [128, 160, 224]), (160, [128, 128, 160]), (64, [64, 64, 64])):
        spec = replace(model.input_spec, size=(edge, edge))
        assert [input_size(spec, options, step) for step in (0, 40, 99)] == [(size, size) for size in expected]


@pytest.mark.parametrize(("images", "expected"), [(1, 0.1), (400, 0.1), (1000, 0.25), (2000, 0.5), (10**6, 0.5)])
def test_many_pictures_are_cropped_less(images: int, expected: float) -> None:
    assert default_crop(images) == pytest.approx(expected)


def test_embeddings_start_at_the_weights_of_their_filters(model: Model) -> None:
    layer = model.layer(TAP)
    embedding = filter_embedding(model, layer, 48)
    assert embedding is not None
    assert embedding.shape == (layer.channels, 48)
    assert float(embedding.std()) == pytest.approx(0.5)
    weight = numpy_helper.to_array(next(t for t in model.proto.graph.initializer if t.name == f"{TAP}.weight"))
    rows = weight.reshape(len(weight), -1) / np.linalg.norm(weight.reshape(len(weight), -1), axis=1, keepdims=True)
    wanted = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    got = np.linalg.norm((embedding[:, None] - embedding[None]).numpy(), axis=2)
    np.testing.assert_allclose(got, wanted * got.max() / wanted.max(), atol=1e-5)  # all 8 components: distances stay
    assert filter_embedding(model, replace(layer, conv="no such value"), 48) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "objective", "pairs"),
    [("shared", "budget", 1600), ("shared", "fsagn", 4800), ("own", "budget", 1600), ("own", "fsagn", 4800)],
)
def test_every_encoder_and_objective_finds_the_planted_patches(
    encoder: Literal["shared", "own"],
    objective: Literal["budget", "fsagn"],
    pairs: int,
    planted: Path,
    model: Model,
    tmp_path: Path,
) -> None:
    options = replace(
        SMALL, pairs=pairs, learning_rate=2e-3, objective=Objective(name=objective), checkpoint_every=pairs
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order on any machine
    try:
        train(model, [planted / "images"], tmp_path / "x.onnx", layer=TAP, encoder=encoder, options=options)
    finally:
        torch.set_num_threads(threads)
    assert found(FileEngine(tmp_path / "x.onnx"), model, range(1000, 1060)) >= 0.95


def test_optimise_finds_the_planted_patches(model: Model) -> None:
    assert found(engine_for(model, TAP, "optimise"), model, range(1000, 1006)) >= 0.95


def test_the_bar_names_what_is_done_before_the_first_step() -> None:
    bar = TrainingBar()
    bar.phase("converting the model")
    assert [task.description for task in bar._progress.tasks] == ["converting the model"]


TRAIN = """
import sys
from fsagn_onnx.generator import TrainingOptions, train
options = TrainingOptions(pairs=384, images_per_step=8, questions=("filters",), ramp=(), jitter=0, crop=0.9,
    flip=False, active=4, checkpoint_every=5)
model, images, out, layer, last = sys.argv[1:]
def step(progress):
    print(progress.step, flush=True)
    if progress.step == int(last):
        sys.stdin.read()  # until the kill
train(model, [images], out, layer=layer, options=options, resume=True, on_step=step)
"""


def test_generator_of_a_quantised_model_agrees_with_its_file(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its ranges are calibrated on noise, on which no planted filter answers; the agreement of the files is tested.
    monkeypatch.setattr("fsagn_onnx.generator.trainer.require_answers", lambda *of: None)
    from benchmarks.coverage.transforms import TRANSFORMS

    TRANSFORMS["int8-qdq"](planted / "planted.onnx", tmp_path / "model.onnx")
    model = load_model(tmp_path / "model.onnx", preprocess=load_model(planted / "planted.onnx").input_spec)
    options = replace(SMALL, pairs=16)
    report = train(model, [planted / "images"], tmp_path / "explainer.onnx", options=options)
    assert report.retention < 1e-5
    assert report.outputs < 1e-6


@pytest.mark.parametrize("at", [12, 28], ids=["masks", "retention head"])
def test_killed_training_resumes_bit_for_bit(planted: Path, explainer: Path, at: int) -> None:
    out = planted / f"killed{at}.onnx"
    arguments = [sys.executable, "-c", TRAIN, planted / "planted.onnx", planted / "images", out, TAP]
    process = subprocess.Popen([*arguments, str(at)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= at:
            process.kill()
            break
    process.communicate()
    assert not out.exists()
    subprocess.run([*arguments, "-1"], check=True, stdout=subprocess.DEVNULL)
    killed, whole = load_checkpoint(checkpoint_path(out)), load_checkpoint(checkpoint_path(explainer))
    assert killed.tensors.keys() == whole.tensors.keys()
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, killed.tensors[name]), name


def test_a_resumed_run_may_see_another_number_of_pairs(planted: Path, model: Model, tmp_path: Path) -> None:
    out, seen, phases = tmp_path / "x.onnx", [], []
    short = replace(SMALL, pairs=96)
    train(model, [planted / "images"], out, layer=TAP, options=short, on_phase=phases.append)
    assert phases == [
        "listing the pictures", "embedding the filters", "converting the model",
        "building and running the explainer untrained, before the first step", "first look at the pictures",
        "first step", "writing the explainer and comparing it with torch",
    ]  # fmt: skip
    longer = replace(short, pairs=160)
    train(model, [planted / "images"], out, layer=TAP, options=longer, resume=True, on_step=seen.append)
    assert [progress.step for progress in seen] == list(range(7, 16)), "10 steps, and 5 of the retention head alone"
    assert load_checkpoint(checkpoint_path(out)).description["training"]["pairs"] == 160
    with pytest.raises(CheckpointError, match="was made with other options"):
        train(model, [planted / "images"], out, layer=TAP, options=replace(longer, seed=1), resume=True)


def test_pictures_are_seen_for_a_few_steps_and_looked_at_once(
    planted: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, drawn = [], []
    look, mask = Stepper.look, Stepper.mask
    monkeypatch.setattr(Stepper, "look", lambda self, images: looks.append(len(images)) or look(self, images))
    monkeypatch.setattr(Stepper, "mask", lambda self, *of: drawn.append(mask(self, *of)) or drawn[-1])
    trainer = Trainer(
        model, model.layer(TAP), list_images([planted / "images"]), tmp_path / "x.safetensors",
        options=replace(SMALL, visits=3, questions=("filters",)),
    )  # fmt: skip
    seen = []
    for step in range(7):
        trainer.stepper(step)
        seen.append(trainer.stepper.see(step, trainer.options, model.input_spec.size).pixels[:])
    assert len(looks) == 3
    assert [bool((seen[step] == seen[step + 1]).all()) for step in range(6)] == [True, True, False, True, True, False]
    assert not torch.equal(drawn[0], drawn[1])


def test_checkpoint_of_another_model_is_refused(explainer: Path, planted: Path) -> None:
    proto = onnx.load(planted / "planted.onnx")
    proto.graph.node[-1].output[0] = "renamed"
    proto.graph.output[0].name = "renamed"
    onnx.save(proto, planted / "other.onnx")
    with pytest.raises(CheckpointError, match="trained for another model"):
        export_explainer(planted / "other.onnx", checkpoint_path(explainer), planted / "never.onnx")
    assert not (planted / "never.onnx").exists()


def test_damaged_checkpoint_is_one_line(tmp_path: Path, explainer: Path) -> None:
    damaged = tmp_path / "x.safetensors"
    damaged.write_bytes(checkpoint_path(explainer).read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(damaged)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_checkpoint(tmp_path / "missing.safetensors")


def test_existing_checkpoint_is_not_overwritten_unasked(explainer: Path, planted: Path, model: Model) -> None:
    with pytest.raises(CheckpointError, match="--resume"):
        train(model, [planted / "images"], explainer, layer=TAP, options=SMALL)


def test_no_readable_image_is_one_line(tmp_path: Path, model: Model) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match="none of the 1 training images"):
        train(model, [tmp_path / "bad.png"], tmp_path / "x.onnx", layer=TAP, options=SMALL)


def test_held_out_infill_cannot_be_trained_on() -> None:
    with pytest.raises(UsageError, match="kept out of every training"):
        TrainingOptions(mix={"inpaint": 1.0})


def test_own_encoder_gives_a_file_without_the_model(planted: Path, model: Model) -> None:
    out = planted / "own.onnx"
    train(model, [planted / "images"], out, layer=TAP, encoder="own", options=SMALL)
    proto = onnx.load(out)
    assert proto.graph.output[0].name == "filter_ids"
    assert make_config(model, model.layer(TAP)).taps[0].value == TAP
    assert FileEngine(out).metadata.encoder == "own"


def test_an_explainer_carries_what_was_measured(explainer: Path, model: Model, planted: Path, tmp_path: Path) -> None:
    rows = [
        {
            "metric": "retention AUC",
            "method": "e",
            "infill": "inpaint",
            "value": {"mean": 0.5, "low": 0.4, "high": 0.6},
        },
        {"metric": "part IoU", "method": "e", "infill": None, "value": {"mean": None, "low": None, "high": None}},
    ]
    document = {"images": 3, "pairs": 6, "filters": 2, "areas": [0.1], "rows": rows}
    (tmp_path / "evaluation.json").write_text(json.dumps(document))
    quality = read_quality(tmp_path / "evaluation.json")
    export_explainer(model, checkpoint_path(explainer), tmp_path / "x.onnx", quality=quality)
    expected = {"e": {"retention AUC": {"inpaint": [0.5, 0.4, 0.6]}}}
    assert FileEngine(tmp_path / "x.onnx").metadata.quality["figures"] == expected
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(UsageError, match=r"expected the evaluation\.json"):
        read_quality(tmp_path / "evaluation.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_quality(tmp_path / "missing.json")
