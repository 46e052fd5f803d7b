"""Training on several devices: the same pairs, weights that agree up to the order of sums, and what a death leaves."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fsagn_onnx.conversion import convert
from fsagn_onnx.data.images import list_images
from fsagn_onnx.errors import ImageError, LayerError, UsageError, WorkerError
from fsagn_onnx.generator import Generator, Progress, TrainingOptions, load_checkpoint, make_config, train
from fsagn_onnx.generator.batches import ImagePool
from fsagn_onnx.generator.class_pairs import draw_classes
from fsagn_onnx.generator.device_pictures import DevicePictures
from fsagn_onnx.generator.infill import draw_infills
from fsagn_onnx.generator.pairs import pairs_of
from fsagn_onnx.generator.pictures import HostPictures
from fsagn_onnx.generator.share import ALONE, Share, named_error
from fsagn_onnx.generator.shared_norm import SharedNorm
from fsagn_onnx.generator.step import Stepper
from fsagn_onnx.generator.training_run import checkpoint_path
from fsagn_onnx.model import InputSpec, Model, load_model
from fsagn_onnx.runtime.infill import MASK_FREE, RANDOM
from fsagn_onnx.testing.planted import TAP, write_planted_folder

CPU = torch.device("cpu")
FEW = TrainingOptions(
    pairs=160, images_per_step=5, questions=("filters",), ramp=(), active=4, checkpoint_every=4, visits=2
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted_folder(tmp_path_factory.mktemp("planted"), 12)


@pytest.fixture(scope="module")
def model(planted: Path) -> Model:
    return load_model(planted / "planted.onnx")


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_every_picture_and_every_pair_is_one_worker_s(workers: int) -> None:
    rows = [Share(rank, workers).rows(5) for rank in range(workers)]
    assert [place for row in rows for place in range(5)[row.own]] == list(range(5))
    assert {row.number for row in rows} <= {5 // workers, -(-5 // workers)}
    pairs = [pairs_of(row, 3, 2, CPU) for row in rows]
    assert sorted(np.concatenate([pair.own for pair in pairs]).tolist()) == list(range(25))
    for row, pair in zip(rows, pairs, strict=True):
        assert pair.pictures.tolist() == [n for n in range(5) for _ in range(3)] + [n for n in range(5) for _ in "ab"]
        assert (pair.pictures[pair.own] - row.first).tolist() == pair.owners.tolist()
        assert (pair.first, len(pair.own)) == (15, 5 * row.number)


class Gathered(Share):
    """A worker that is told everybody's rows instead of asking for them."""

    whole: Tensor

    def gather(self, rows: Any, *own: Tensor) -> tuple[Tensor, ...]:
        return (self.whole,)


@pytest.mark.parametrize("kind", [HostPictures, DevicePictures])
def test_workers_draw_what_one_draws(kind: Any, planted: Path, model: Model) -> None:
    """Filters, infills and classes of each worker's pictures are those that one worker draws for them."""
    spec, paths = model.input_spec, list(list_images([planted / "images"]))
    pool = ImagePool(paths, spec, lambda path, message: None)
    feature_map = torch.rand(5, 6, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.1
    feature_map[1, 2:] = -1  # fewer filters answer to this picture
    numbers, mix = torch.rand(5, 7), {"noise": 0.3, "blur": 0.2, "other": 0.3, "shuffle": 0.2}
    alive = (feature_map.amax(dim=(-2, -1)) > 0).sum(dim=1).clamp(1, 4)

    def draw(share: Share, rng: np.random.Generator) -> tuple[NDArray[np.int64], list[Tensor]]:
        source, rows = kind(pool, spec, CPU, share), share.rows(5)
        pixels, places = source.draw(spec.size, 5, FEW, rng)
        filters = source.filters(feature_map[rows.own], 2, 4, rng, rows)
        pairs = pairs_of(rows, 2, 1, CPU)
        infills, verified = source.infills(pixels, pairs.pictures, mix, rng, pairs.own)
        classes = draw_classes(numbers[rows.own], 1, rng, rows)
        after = torch.from_numpy(rng.random(3))  # all workers go on from the same state
        return pairs.own, [torch.tensor(places), after, filters, classes, infills, verified]

    _, whole = draw(ALONE, np.random.default_rng(3))
    for rank in range(2):
        share = Gathered(rank, 2)
        object.__setattr__(share, "whole", alive)
        own, found = draw(share, np.random.default_rng(3))
        rows = share.rows(5).own
        expected = [whole[0], whole[1], whole[2][rows], whole[3][rows], whole[4][own], whole[5][own]]
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.equal(mine, theirs)


def test_crops_of_other_workers_are_made_only_where_they_are_asked_for(planted: Path, model: Model) -> None:
    """What is made when is no matter: a picture is the same alone, among others, and after others."""
    spec = model.input_spec
    pool = ImagePool(list(list_images([planted / "images"])), spec, lambda path, message: None)
    fitted: list[int] = []

    class Counting(InputSpec):
        def fit(self, image: NDArray[np.uint8]) -> Any:
            fitted.append(1)
            return super().fit(image)

    counting = Counting(**{name: getattr(spec, name) for name in InputSpec.__dataclass_fields__})
    crops, places = HostPictures(pool, counting, CPU).draw(spec.size, 5, FEW, np.random.default_rng(3))
    again, _ = HostPictures(pool, spec, CPU).draw(spec.size, 5, FEW, np.random.default_rng(3))
    assert (len(crops), len(places), crops.shape) == (5, 5, (5, *spec.size, 3))
    assert not fitted
    own = crops[3:]
    assert len(fitted) == 2
    whole = again[:]
    assert np.array_equal(own, whole[3:])
    assert np.array_equal(crops[4], whole[4])
    assert len(fitted) == 2
    assert np.array_equal(crops[[4, 0]], whole[[4, 0]])
    assert len(fitted) == 3


@pytest.mark.parametrize("kind", list(RANDOM))
@pytest.mark.parametrize("shape", [(3, 5, 3), (64, 48, 1), (224, 224, 3)])
def test_an_infill_that_is_not_made_draws_what_it_would_have_drawn(kind: str, shape: tuple[int, int, int]) -> None:
    made, skipped = np.random.default_rng(5), np.random.default_rng(5)
    MASK_FREE[kind](np.random.default_rng(0).integers(256, size=shape).astype(np.uint8), made)
    RANDOM[kind](shape, skipped)
    assert made.random() == skipped.random()
    for other in MASK_FREE.keys() - RANDOM.keys():
        state = made.bit_generator.state
        MASK_FREE[other](np.zeros(shape, dtype=np.uint8), made)
        assert made.bit_generator.state == state


def test_workers_ask_each_other_once_about_a_feature_map(planted: Path, model: Model) -> None:
    pool = ImagePool(list(list_images([planted / "images"])), model.input_spec, lambda path, message: None)
    asked: list[int] = []

    class Asking(Share):
        def gather(self, rows: Any, *own: Tensor) -> tuple[Tensor, ...]:
            asked.append(1)
            return own

    source, rows = HostPictures(pool, model.input_spec, CPU, Asking()), ALONE.rows(4)
    first, second = torch.rand(4, 6, 4, 4), torch.rand(4, 6, 4, 4)
    fresh = HostPictures(pool, model.input_spec, CPU)
    for number, feature_map in enumerate((first, first, second, first)):
        mine = source.filters(feature_map, 2, 4, np.random.default_rng(number), rows)
        theirs = HostPictures(pool, model.input_spec, CPU).filters(feature_map, 2, 4, np.random.default_rng(number))
        assert torch.equal(mine, theirs)
        assert torch.equal(fresh.filters(feature_map, 2, 4, np.random.default_rng(number)), theirs)
    assert len(asked) == 3


def test_all_infills_are_those_without_a_choice(planted: Path, model: Model) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3)).astype(np.uint8)
    owners, mix = [0, 1, 2, 0, 1, 2], {"noise": 0.5, "mean": 0.5}
    plain = draw_infills(pixels, owners, mix, model.input_spec, np.random.default_rng(1))
    chosen = draw_infills(pixels, owners, mix, model.input_spec, np.random.default_rng(1), np.arange(6))
    assert torch.equal(plain[0], chosen[0])
    assert plain[1] == chosen[1]


def test_alone_nothing_is_copied_or_wrapped() -> None:
    module, rows = nn.Linear(1, 1), ALONE.rows(3)
    own = torch.rand(3, 2), torch.rand(3)
    assert all(mine is theirs for mine, theirs in zip(ALONE.gather(rows, *own), own, strict=True))
    assert ALONE.joined(module) is module
    assert ALONE.once(lambda: 3) == 3


def test_errors_keep_their_kind() -> None:
    assert isinstance(named_error("LayerError", "no layer"), LayerError)
    assert str(named_error("Nothing", "text")) == "text"


def trained(planted: Path, out: Path, devices: int, **changes: Any) -> tuple[list[float], dict[str, Tensor]]:
    """The running loss after every step, and all tensors of the checkpoint."""
    losses: list[float] = []
    resume = bool(changes.pop("resume", False))
    on_step = changes.pop("on_step", lambda progress: losses.append(progress.loss))
    encoder = changes.pop("encoder", "shared")
    options = replace(FEW, **changes)
    train(
        planted / "planted.onnx", [planted / "images"], out, layer=TAP, options=options, devices=devices,
        encoder=encoder, resume=resume, on_step=on_step,
    )  # fmt: skip
    return losses, load_checkpoint(checkpoint_path(out)).tensors


def agree(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Weights and moments are equal but for the order of sums, which Adam blows up where a gradient is next to none."""
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        if not name.endswith("shift.bias"):  # moves no mask: its gradient is nothing but rounding
            torch.testing.assert_close(tensors[name], tensor, rtol=1e-2, atol=2e-3, msg=name)


@pytest.fixture(scope="module")
def one(planted: Path) -> tuple[list[float], dict[str, Tensor]]:
    return trained(planted, planted / "one.onnx", 1)


def test_norms_of_all_workers_are_one_norm() -> None:
    """Two halves of a batch through shared norms give what a plain norm gives for the whole, and so do gradients."""
    plain = nn.BatchNorm2d(3)
    nn.init.normal_(plain.weight)
    features = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    plain.double()
    told: list[list[Tensor]] = []

    class Other(Share):
        """Adds what the other half of the batch said at the same place; the gradients of both halves are alike."""

        def added(self, own: Tensor) -> Tensor:
            told[self.rank].append(own.detach())
            return own + told[1 - self.rank][len(told[self.rank]) - 1]

    whole = plain(features)
    (whole.square() * torch.arange(4)[:, None, None, None]).sum().backward()
    mean = features.detach().mean(dim=(0, 2, 3))
    halves = features.detach().split(2)
    expected = [[half.sum(dim=(0, 2, 3)), (half - mean[:, None, None]).square().sum(dim=(0, 2, 3))] for half in halves]
    for rank, half in enumerate(halves):
        told[:] = [[], []]
        told[1 - rank] = [torch.cat((expected[1 - rank][0], torch.tensor([50.0]))), expected[1 - rank][1]]
        norm = SharedNorm(nn.BatchNorm2d(3), Other(rank, 2)).double()
        norm.load_state_dict({**plain.state_dict(), "running_mean": torch.zeros(3), "running_var": torch.ones(3)})
        torch.testing.assert_close(norm(half), whole.detach()[2 * rank : 2 * rank + 2])
        torch.testing.assert_close(norm.running_mean, plain.running_mean)
        torch.testing.assert_close(norm.running_var, plain.running_var)
        norm.eval()
        torch.testing.assert_close(norm(half), plain.eval()(half))
        plain.train()


@pytest.mark.slow
def test_an_encoder_of_its_own_trains_alike(planted: Path, tmp_path: Path) -> None:
    """Its batch norms look at all workers' pictures, forwards and backwards."""
    found = [trained(planted, tmp_path / f"{n}.onnx", n, encoder="own", pairs=60) for n in (1, 2)]
    assert found[1][0][0] == pytest.approx(found[0][0][0], rel=1e-5)  # as one batch
    assert found[1][0] == pytest.approx(
        found[0][0], rel=2e-3
    )  # Adam blows up what is rounding in weights before a norm
    for name, tensor in found[0][1].items():
        if "running" in name:
            apart = (found[1][1][name].float() - tensor.float()).abs().max()
            assert apart <= 0.05 * tensor.abs().max(), name  # 12 steps on; half of the pictures alone are further off


@pytest.mark.slow
def test_three_workers_train_as_one_does(planted: Path, tmp_path: Path, one: tuple[Any, dict[str, Tensor]]) -> None:
    losses, tensors = trained(planted, tmp_path / "three.onnx", 3)  # 5 pictures: uneven shares
    assert losses == pytest.approx(one[0], rel=1e-5)
    agree(tensors, one[1])


def kill_a_worker() -> None:
    for found in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: -int(path.parent.name)):
        about = found.read_text().rpartition(")")[2].split()
        if int(about[1]) == os.getpid() and b"spawn_main" in (found.parent / "cmdline").read_bytes():
            os.kill(int(found.parent.name), signal.SIGKILL)
            return


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_worker_that_dies_ends_the_training_which_goes_on_anywhere(
    planted: Path, tmp_path: Path, one: tuple[Any, dict[str, Tensor]]
) -> None:
    def on_step(progress: Progress) -> None:
        if progress.step == 18:
            kill_a_worker()

    whole = trained(planted, tmp_path / "whole.onnx", 2)
    assert whole[0] == pytest.approx(one[0], rel=1e-5)
    out = tmp_path / "killed.onnx"
    with pytest.raises(
        WorkerError, match=r"worker \d of 2 was ended by signal SIGKILL, .* go on with --resume"
    ) as told:
        trained(planted, out, 2, on_step=on_step)
    assert "\n" not in str(told.value)
    kept, elsewhere = checkpoint_path(out), tmp_path / "elsewhere.onnx"
    step = load_checkpoint(kept).description["step"]
    assert (step >= 16, step % 4) == (True, 0)
    shutil.copy(kept, checkpoint_path(elsewhere))
    again = trained(planted, out, 2, resume=True)
    assert len(again[0]) == len(whole[0]) - step
    for name, tensor in whole[1].items():
        assert torch.equal(again[1][name], tensor), name
    agree(trained(planted, elsewhere, 1, resume=True)[1], one[1])


@pytest.mark.slow
def test_one_s_training_goes_on_with_two(planted: Path, tmp_path: Path, one: tuple[Any, dict[str, Tensor]]) -> None:
    out = tmp_path / "x.onnx"

    def stop(progress: Progress) -> None:
        if progress.step == 20:  # of the retention head alone
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(planted, out, 1, on_step=stop)
    agree(trained(planted, out, 2, resume=True)[1], one[1])


@pytest.mark.slow
def test_what_a_worker_or_a_listener_raises_is_raised(planted: Path, tmp_path: Path, model: Model) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    failures: list[str] = []
    with pytest.raises(ImageError, match="none of the 1 training images"):
        train(
            model, [tmp_path / "bad.png"], tmp_path / "x.onnx", layer=TAP, options=FEW, devices=2,
            on_failure=lambda path, message: failures.append(message),
        )  # fmt: skip
    assert len(failures) == 1

    def on_phase(phase: str) -> None:
        if phase == "first step":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(model, [planted / "images"], tmp_path / "y.onnx", layer=TAP, options=FEW, devices=2, on_phase=on_phase)


@pytest.mark.parametrize(
    ("devices", "changes", "message"),
    [
        (0, {}, "devices must be at least 1"),
        (6, {}, "a step has 5 pictures, so at most as many devices"),
        (2, {"device": "cuda:1"}, "give --device cuda, not cuda:1"),
        (5, {"device": "xpu"}, "needs 5 devices of kind 'xpu'"),
    ],
)
def test_what_cannot_be_shared_is_one_line(
    devices: int, changes: dict[str, Any], message: str, planted: Path, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(model, [planted / "images"], tmp_path / "x.onnx", layer=TAP, options=FEW, devices=devices, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_without_numbers_is_replaced_alike_everywhere(
    planted: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker's picture that is no good makes all look at all pictures, so that the same one takes its place."""
    module, paths = convert(model, [TAP]), list(list_images([planted / "images"]))
    generator = Generator(make_config(model, model.layer(TAP), "shared"))
    look, reported = Stepper.look, []

    def broken(self: Stepper, images: Tensor) -> dict[str, Tensor]:
        taps = look(self, images)
        bad = (images.flatten(1)[:, 0] == first).nonzero().flatten()
        taps[TAP][bad] = torch.nan
        return taps

    def seen(share: Share) -> Any:
        pool = ImagePool(paths, model.input_spec, lambda path, message: reported.append(path))
        return Stepper(module, generator, pool, model.input_spec, FEW, share=share).see(0, FEW, model.input_spec.size)

    first = seen(ALONE).taps["image"].flatten(1)[4, 0]
    monkeypatch.setattr(Stepper, "look", broken)
    whole = seen(ALONE)
    assert reported
    assert torch.equal(whole.taps[TAP][4], whole.taps[TAP][4 % 4])
    for rank in range(2):
        share = Gathered(rank, 2)
        object.__setattr__(share, "whole", torch.tensor([True, True, True, True, False]))
        own = seen(share)
        assert own.places == whole.places
        assert torch.equal(own.taps[TAP], whole.taps[TAP][share.rows(5).own])
