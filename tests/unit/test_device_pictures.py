"""Pictures, infills, filters and masks made by tensor operations are those that the host makes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fsagn_onnx.errors import UsageError
from fsagn_onnx.generator import TrainingOptions, load_checkpoint, train
from fsagn_onnx.generator.area import area_rank
from fsagn_onnx.generator.batches import ImagePool
from fsagn_onnx.generator.device_infill import made_infills
from fsagn_onnx.generator.device_pictures import DevicePictures, held_on
from fsagn_onnx.generator.pictures import HostPictures
from fsagn_onnx.generator.training_run import checkpoint_path
from fsagn_onnx.model import InputSpec
from fsagn_onnx.runtime.infill import MASK_FREE
from fsagn_onnx.testing.planted import TAP, planted_picture, write_planted

CPU = torch.device("cpu")
SIZE = (48, 64)
OPTIONS = TrainingOptions(crop=0.99, flip=False, jitter=0.0)


def spec(layout: str, color: str = "RGB") -> InputSpec:
    channels = 1 if color == "GRAY" else 3
    return InputSpec("x", layout, color, SIZE, 1 / 255, (0.5,) * channels, (0.25,) * channels, "stretch")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(60, 90), (200, 150), (48, 64)]):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3)).astype(np.uint8), (0, 0), 4)
        picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), picture)
    return paths


def pool(paths: list[Path], of: InputSpec) -> ImagePool:
    return ImagePool(paths, of, lambda path, message: None)


@pytest.mark.parametrize(("layout", "color"), [("NCHW", "RGB"), ("NHWC", "BGR"), ("NCHW", "GRAY")])
def test_whole_pictures_look_as_the_host_fits_them(pictures: list[Path], layout: str, color: str) -> None:
    of = spec(layout, color)
    given = pool(pictures, of)
    device = DevicePictures(given, of, CPU)
    whole, corner, straight = device._sizes, np.zeros((3, 2), dtype=np.int64), np.zeros(3, dtype=np.bool_)
    made = device.normalise(device._crops(np.arange(3), corner, whole, straight, SIZE)).numpy()
    for single, picture in zip(made, [given[index] for index in range(3)], strict=True):
        expected = of.normalise(of.fit(picture)[0])
        assert single.shape == expected.shape
        assert np.abs(single - expected).mean() < 0.04 * expected.std()


def test_crops_are_of_the_size_and_place_that_was_drawn(pictures: list[Path]) -> None:
    of = spec("NCHW")
    given = pool(pictures, of)
    device = DevicePictures(given, of, CPU)
    first, cut = np.array([[10, 20]]), np.array([[24, 32]])
    made = device._crops(np.array([0]), first, cut, np.zeros(1, dtype=np.bool_), SIZE)[0].permute(1, 2, 0).numpy()
    expected = of.fit(np.ascontiguousarray(given[0][10:34, 20:52]))[0]
    assert np.abs(made - expected).mean() < 0.04 * expected.std()


def test_mirrored_crops_are_mirrored(pictures: list[Path]) -> None:
    device = DevicePictures(pool(pictures, spec("NCHW")), spec("NCHW"), CPU)
    one, first, cut = np.array([1]), np.array([[0, 0]]), device._sizes[1:2]
    plain, turned = (device._crops(one, first, cut, np.array([flip]), SIZE) for flip in (False, True))
    torch.testing.assert_close(plain.flip(-1), turned, atol=1, rtol=0)


@pytest.mark.parametrize("kind", ["blur", "mean"])
def test_infills_without_chance_are_those_of_the_host(pictures: list[Path], kind: str) -> None:
    device = DevicePictures(pool(pictures, spec("NCHW")), spec("NCHW"), CPU)
    pixels = device.draw(SIZE, 3, OPTIONS, np.random.default_rng(0))[0]
    (made,) = made_infills(pixels, [kind], np.random.default_rng(0))
    for single, filled in zip(pixels, made, strict=True):
        image = single.permute(1, 2, 0).numpy().astype(np.uint8)
        expected = MASK_FREE[kind](image, np.random.default_rng(0)).astype(np.float32)
        assert np.abs(filled.permute(1, 2, 0).numpy() - expected).max() <= 2


def test_random_infills_have_the_pictures_colours(pictures: list[Path]) -> None:
    device = DevicePictures(pool(pictures, spec("NCHW")), spec("NCHW"), CPU)
    pixels = device.draw(SIZE, 3, OPTIONS, np.random.default_rng(0))[0]
    noise, shuffle, other = made_infills(pixels, ["noise", "shuffle", "other"], np.random.default_rng(0))
    torch.testing.assert_close(noise.mean(dim=(-2, -1)), pixels.mean(dim=(-2, -1)), atol=16, rtol=0)
    torch.testing.assert_close(shuffle.flatten(2).sort().values, pixels.flatten(2).sort().values)
    assert not torch.equal(shuffle, pixels)
    assert all(any(torch.equal(one, two) for two in pixels) for one in other)
    assert not any(torch.equal(one, two) for one, two in zip(other, pixels, strict=True))
    with pytest.raises(UsageError, match="no infill 'inpaint'"):
        made_infills(pixels, ["inpaint"], np.random.default_rng(0))


def test_masks_and_filters_are_as_the_host_makes_them(pictures: list[Path]) -> None:
    of = spec("NCHW")
    given = pool(pictures, of)
    host, device = HostPictures(given, of, CPU), DevicePictures(given, of, CPU)
    rank = area_rank(torch.rand(4, 6, 8, generator=torch.Generator().manual_seed(0)))
    areas = torch.tensor([0.03, 0.1, 0.31, 0.6])
    masks = [source.cut(rank, areas, SIZE) for source in (host, device)]
    assert masks[0].sum(dim=(1, 2)).tolist() == masks[1].sum(dim=(1, 2)).tolist()
    assert float((masks[0] != masks[1]).float().mean()) < 1e-3
    feature_map = torch.zeros(2, 9, 2, 2)
    feature_map[0, :5] = feature_map[1, 7:8] = 1.0
    drawn = torch.cat([device.filters(feature_map, 3, 4, np.random.default_rng(seed)) for seed in range(20)], dim=1)
    assert set(drawn[0].tolist()) == {0, 1, 2, 3}
    assert set(drawn[1].tolist()) == {7}
    assert all(len(set(row.tolist())) == 3 for row in drawn[0].view(20, 3))


def test_only_another_device_than_the_host_holds_pictures(pictures: list[Path]) -> None:
    assert not held_on(CPU, pool(pictures, spec("NCHW")))
    assert held_on(torch.device("cuda"), pool(pictures, spec("NCHW")))


def test_a_training_with_held_pictures_repeats_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsagn_onnx.generator.step.held_on", lambda device, pool: True)
    (tmp_path / "images").mkdir()
    for seed in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{seed}.png"), planted_picture(seed).image[..., ::-1])
    model = write_planted(tmp_path / "planted.onnx")
    options = TrainingOptions(pairs=32, images_per_step=4, ramp=(), active=4)
    weights = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.onnx"
        train(model, [tmp_path / "images"], out, layer=TAP, options=options)
        weights.append(load_checkpoint(checkpoint_path(out)).group("weights"))
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
