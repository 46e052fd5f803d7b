"""Input specs, their guesses, and the geometry between a photograph and a model's input."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagn_onnx.errors import ModelError, UsageError
from fsagn_onnx.model.description import input_spec, labels_of
from fsagn_onnx.model.input_spec import Geometry, InputSpec
from fsagn_onnx.model.onnx_file import ValueInfo

SPEC = InputSpec(
    name="image",
    layout="NCHW",
    color="RGB",
    size=(32, 48),
    scale=1.0,
    mean=(10.0, 20.0, 30.0),
    std=(2.0, 4.0, 8.0),
    resize="stretch",
)

sides = st.integers(1, 70)
policies = st.sampled_from(["stretch", "crop:1.0", "crop:0.875", "crop:0.3", "letterbox:114", "letterbox:0"])


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    return replace(SPEC, size=(draw(sides), draw(sides)), resize=draw(policies))


def pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fitted(spec: InputSpec, height: int, width: int) -> tuple[np.ndarray, Geometry]:
    return spec.fit(pictures(height, width))


# Geometry


@given(specs(), sides, sides)
def test_fit_gives_the_size(spec: InputSpec, height: int, width: int) -> None:
    pixels, geometry = fitted(spec, height, width)
    assert pixels.shape == (*spec.size, 3)
    assert pixels.dtype == np.uint8
    assert (geometry.original, geometry.size) == ((height, width), spec.size)
    assert geometry.matrix.shape == (2, 3)
    assert geometry.matrix.dtype == np.float64


@given(specs(), sides, sides, st.floats(-100, 200), st.floats(-100, 200))
def test_points_there_and_back(spec: InputSpec, height: int, width: int, x: float, y: float) -> None:
    geometry = fitted(spec, height, width)[1]
    there = geometry.points_to_original([[x, y]])
    assert np.allclose(there, geometry.matrix @ [x, y, 1])
    assert np.allclose(geometry.points_to_input(there), [[x, y]], atol=1e-9)


def nearest_by_hand(geometry: Geometry, mask: np.ndarray) -> np.ndarray:
    """For each pixel centre of the original, the input pixel that it falls into, one by one."""
    full = np.zeros(geometry.original, dtype=mask.dtype)
    (sx, _, tx), (_, sy, ty) = geometry.matrix
    for row in range(geometry.original[0]):
        for column in range(geometry.original[1]):
            x, y = math.floor((column + 0.5 - tx) / sx), math.floor((row + 0.5 - ty) / sy)
            if 0 <= y < geometry.size[0] and 0 <= x < geometry.size[1]:
                full[row, column] = mask[y, x]
    return full


@given(specs(), sides, sides, st.sampled_from(["bool", "float32"]))
def test_mask_to_original_is_the_nearest(spec: InputSpec, height: int, width: int, dtype: str) -> None:
    geometry = fitted(spec, height, width)[1]
    mask = (np.random.default_rng(0).random(spec.size) > 0.5).astype(dtype)
    full = geometry.mask_to_original(mask)
    assert full.dtype == mask.dtype
    assert np.array_equal(full, nearest_by_hand(geometry, mask))


@given(specs(), sides, sides)
def test_a_full_mask_is_what_the_model_saw(spec: InputSpec, height: int, width: int) -> None:
    """Change one pixel of the original: the input changes only if the full mask has that pixel."""
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    pixels, geometry = spec.fit(image)
    seen = geometry.mask_to_original(np.ones(spec.size, dtype=np.bool_))
    if spec.resize.startswith("crop"):
        fraction = float(spec.resize.partition(":")[2])
        unit = fraction * min(height / spec.size[0], width / spec.size[1])
        wanted = [max(1, round(unit * side)) for side in spec.size]
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        assert [len(rows), len(columns)] == wanted
        assert seen.sum() == wanted[0] * wanted[1]
        assert abs((rows[0] + rows[-1] + 1) / 2 - height / 2) <= 0.5
        assert abs((columns[0] + columns[-1] + 1) / 2 - width / 2) <= 0.5
    else:
        assert seen.all()
    outside = image.copy()
    outside[~seen] = 0
    assert np.array_equal(spec.fit(outside)[0], pixels)


@given(specs(), st.integers(8, 70), st.integers(8, 70))
def test_a_spot_is_where_the_matrix_says(spec: InputSpec, height: int, width: int) -> None:
    """The centre of brightness of a smooth spot, mapped back, is the spot's centre."""
    if min(spec.size) < 8 or spec.resize.startswith("crop:0.3"):
        return
    y, x = np.mgrid[0:height, 0:width] + 0.5
    spot = np.exp(-(((x - width / 2) / (width / 6)) ** 2) - ((y - height / 2) / (height / 6)) ** 2)
    spec = replace(spec, resize=spec.resize.replace("114", "0"))
    pixels, geometry = spec.fit(np.repeat((spot * 255).astype(np.uint8)[..., None], 3, axis=2))
    weight = pixels[..., 0].astype(float)
    rows, columns = np.mgrid[0 : spec.size[0], 0 : spec.size[1]] + 0.5
    centre = [(columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()]
    whole = 0.5 if spec.resize.startswith("crop") else 0  # windows are cut at whole pixels
    tolerance = 0.05 * max(height, width) + 0.5 * max(geometry.matrix[0, 0], geometry.matrix[1, 1]) + whole
    assert np.allclose(geometry.points_to_original(centre), [width / 2, height / 2], atol=tolerance)


@given(specs(), sides, sides, st.integers(1, 20), st.integers(1, 20))
def test_grid_matrix(spec: InputSpec, height: int, width: int, h: int, w: int) -> None:
    geometry = fitted(spec, height, width)[1]
    grid = geometry.grid_matrix(h, w)
    corners = np.array([[0, 0, 1], [w, h, 1]])
    pixels = [[0, 0], [spec.size[1], spec.size[0]]]
    assert np.allclose(corners @ grid.T, geometry.points_to_original(pixels))


def test_mask_of_another_size() -> None:
    geometry = fitted(SPEC, 10, 10)[1]
    with pytest.raises(UsageError, match=r"must have the model's input size \(32, 48\), but has \(48, 32\)"):
        geometry.mask_to_original(np.ones((48, 32), dtype=np.bool_))


def test_letterbox() -> None:
    spec = replace(SPEC, resize="letterbox:114", size=(32, 48))
    pixels, geometry = spec.fit(np.full((20, 20, 3), 7, dtype=np.uint8))
    assert (pixels[:, 8:40] == 7).all()
    assert (pixels[:, :8] == 114).all()
    assert (pixels[:, 40:] == 114).all()
    assert np.allclose(geometry.matrix, [[20 / 32, 0, -5], [0, 20 / 32, 0]])


def test_shrinking_averages_and_growing_interpolates() -> None:
    stripes = np.zeros((32, 96, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    assert (replace(SPEC, size=(32, 48)).fit(stripes)[0] == 100).all()
    ramp = np.repeat(np.array([0, 100], dtype=np.uint8)[None, :, None], 3, axis=2)
    grown = replace(SPEC, size=(1, 4)).fit(ramp)[0][0, :, 0]
    assert grown.tolist() == [0, 25, 75, 100]
    tall = np.zeros((64, 2, 3), dtype=np.uint8)
    tall[::2, 1] = 200
    assert replace(SPEC, size=(32, 4)).fit(tall)[0][:, :, 0].tolist() == [[0, 25, 75, 100]] * 32


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 4000)])
@pytest.mark.parametrize("resize", ["stretch", "crop:0.875", "crop:0.001", "letterbox:0"])
def test_extreme_images(shape: tuple[int, int], resize: str) -> None:
    spec = replace(SPEC, resize=resize)
    pixels, geometry = spec.fit(np.full((*shape, 3), 255, dtype=np.uint8))
    assert pixels.max() == 255
    assert geometry.mask_to_original(np.ones(spec.size, dtype=np.bool_)).any()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image(image: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"an image must be uint8 RGB \(H, W, 3\), but got"):
        SPEC.fit(image)


# Normalising


@settings(max_examples=30)
@given(st.sampled_from(["NCHW", "NHWC"]), st.sampled_from(["RGB", "BGR", "GRAY"]), st.floats(0.001, 3))
def test_normalise_and_back(layout: str, color: str, scale: float) -> None:
    channels = 1 if color == "GRAY" else 3
    spec = replace(
        SPEC,
        layout=layout,
        color=color,
        scale=scale,
        mean=(0.3, 20.0, 7.0)[:channels],
        std=(0.2, 4.0, 9.0)[:channels],
    )
    image = pictures(20, 30)
    pixels, _ = spec.fit(image)
    normalised = spec.normalise(pixels)
    expected = (pixels.astype(np.float64) * scale - spec.mean) / spec.std
    expected = expected.transpose(2, 0, 1) if layout == "NCHW" else expected
    assert normalised.dtype == np.float32
    assert normalised.flags.c_contiguous
    assert np.allclose(normalised, expected, rtol=1e-5, atol=1e-4)
    assert np.allclose(spec.denormalise(normalised), pixels, atol=0.01)
    assert np.array_equal(spec.preprocess(image)[0], normalised)
    batch = spec.normalise(np.stack([pixels, pixels]))
    assert np.array_equal(batch[1], normalised)
    assert spec.denormalise(batch).shape == (2, *spec.size, channels)


def test_color_orders() -> None:
    image = np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8)
    original = image.copy()
    spec = replace(SPEC, size=(4, 4))
    assert spec.fit(image)[0][0, 0].tolist() == [200, 100, 50]
    assert replace(spec, color="BGR").fit(image)[0][0, 0].tolist() == [50, 100, 200]
    gray = replace(spec, color="GRAY", mean=(0.0,), std=(1.0,)).fit(image)[0]
    assert gray.shape == (4, 4, 1)
    assert gray[0, 0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert np.array_equal(image, original)
    pixels = spec.fit(image)[0]
    pixels[:] = 0
    assert np.array_equal(image, original), "the caller's image is not the model's input"


# Reading and guessing


def test_dict_there_and_back() -> None:
    described = SPEC.to_dict()
    assert json.loads(json.dumps(described)) == described
    assert "guessed" not in described
    assert InputSpec.from_dict(described) == SPEC
    assert InputSpec.from_dict({**described, "mean": 5, "std": 2}).mean == (5.0, 5.0, 5.0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "'name' must be a text of 1 to 10,000 characters, but got ''"),
        ("name", 3, "'name' must be a text of 1 to 10,000 characters, but got 3"),
        ("layout", "CHW", "'layout' must be one of NCHW, NHWC, but got 'CHW'"),
        ("color", "rgb", "'color' must be one of RGB, BGR, GRAY, RGBA, BGRA, but got 'rgb'"),
        ("size", 224, "'size' must be [height, width] in whole pixels, 1..16384, but got 224"),
        ("size", [224], "'size' must be [height, width] in whole pixels, 1..16384, but got [224]"),
        ("size", [224.0, 224], "'size' must be [height, width] in whole pixels"),
        ("size", [0, 224], "'size' must be [height, width] in whole pixels, 1..16384, but got [0, 224]"),
        ("size", [224, 10**9], "'size' must be [height, width] in whole pixels, 1..16384, but got [224, 1000000000]"),
        ("scale", "1/255", "'scale' must be a number, but got '1/255'"),
        ("scale", 0, "'scale' must be a number > 0, but got 0"),
        ("scale", math.nan, "'scale' must be a number > 0, but got nan"),
        ("mean", [1, 2], "'mean' must be 3 finite numbers for RGB, but got [1.0, 2.0]"),
        ("mean", [1, 2, math.inf], "'mean' must be 3 finite numbers"),
        ("mean", [1, 2, True], "'mean' must be a number, or a list of one per channel, but got [1, 2, True]"),
        ("std", [1, 0, 1], "'std' must be > 0, but got [1.0, 0.0, 1.0]"),
        ("std", None, "'std' must be a number, or a list of one per channel, but got None"),
        ("std", [5e-324] * 3, "'scale', 'mean' and 'std' must make finite float32 numbers of pixels in 0..255"),
        ("std", [1e-46] * 3, "must make finite float32 numbers"),
        ("mean", [1e39] * 3, "must make finite float32 numbers"),
        ("scale", 1e308, "must make finite float32 numbers"),
        ("resize", "squash", "'resize' must be 'stretch', 'crop:FRACTION'"),
        ("resize", "crop:0", "but got 'crop:0'"),
        ("resize", "crop:1.5", "but got 'crop:1.5'"),
        ("resize", "letterbox:256", "but got 'letterbox:256'"),
        ("resize", "letterbox:nan", "but got 'letterbox:nan'"),
        ("colour", "RGB", "unknown field 'colour'; known: color, guessed, layout"),
    ],
)
def test_wrong_fields_are_named(field: str, value: object, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        InputSpec.from_dict({**SPEC.to_dict(), field: value})
    assert str(caught.value).startswith("input spec: ")
    assert message in str(caught.value)


def test_missing_fields_are_named() -> None:
    described = SPEC.to_dict()
    del described["mean"]
    with pytest.raises(ModelError, match="input spec: field 'mean' is missing"):
        InputSpec.from_dict(described)


def image_of(*shape: int | str | None, dtype: str = "float32") -> list[ValueInfo]:
    return [ValueInfo("x", dtype, shape)]


@pytest.mark.parametrize(
    ("shape", "layout", "color", "size", "guessed"),
    [
        ((1, 3, 32, 48), "NCHW", "RGB", (32, 48), ["color order RGB"]),
        (("N", 32, 48, 3), "NHWC", "RGB", (32, 48), ["color order RGB"]),
        ((None, 1, 32, 48), "NCHW", "GRAY", (32, 48), []),
        ((1, 32, 48, 1), "NHWC", "GRAY", (32, 48), []),
        (
            ("N", 3, "h", "w"),
            "NCHW",
            "RGB",
            (224, 224),
            ["size 224x224 (that of the input is dynamic)", "color order RGB"],
        ),
        (
            ("N", 3, 96, "w"),
            "NCHW",
            "RGB",
            (96, 96),
            ["size 96x96 (that of the input is dynamic)", "color order RGB"],
        ),
        (
            ("N", "c", "h", "w"),
            "NCHW",
            "RGB",
            (224, 224),
            [
                "layout NCHW (the shape of the input does not say it)",
                "size 224x224 (that of the input is dynamic)",
                "color order RGB",
            ],
        ),
    ],
)
def test_guesses(
    shape: tuple[int | str | None, ...], layout: str, color: str, size: tuple[int, int], guessed: list[str]
) -> None:
    spec = input_spec(image_of(*shape), {}, None)
    assert (spec.layout, spec.color, spec.size, spec.scale, spec.resize) == (
        layout,
        color,
        size,
        1.0,
        "stretch",
    )
    always = ["mean of ImageNet", "standard deviation of ImageNet", "resize by stretching"]
    assert list(spec.guessed) == guessed + always
    if color == "RGB":
        assert spec.mean == (123.675, 116.28, 103.53)
        assert spec.std == (58.395, 57.12, 57.375)


def test_guesses_follow_what_is_known() -> None:
    spec = input_spec(image_of(1, 3, 32, 32), {}, {"color": "BGR", "scale": 1 / 255, "resize": "crop:0.9"})
    assert spec.guessed == ("mean of ImageNet", "standard deviation of ImageNet")
    assert np.allclose(spec.mean, [0.406, 0.456, 0.485])
    assert np.allclose(spec.std, [0.225, 0.224, 0.229])


def test_metadata_describes_and_the_user_wins() -> None:
    metadata = {"fsagn_model": json.dumps({"input": {**SPEC.to_dict(), "name": "x"}, "labels": ["a", "b"]})}
    inputs = image_of("N", 3, 32, 48)
    assert input_spec(inputs, metadata, None) == replace(SPEC, name="x")
    assert input_spec(inputs, metadata, {"color": "BGR"}) == replace(SPEC, name="x", color="BGR")
    whole = replace(SPEC, name="x", scale=2.0)
    assert input_spec(inputs, metadata, whole) == whole


def test_ultralytics() -> None:
    metadata = {
        "author": "Ultralytics",
        "imgsz": "[64, 96]",
        "names": "{0: 'person', 1: 'car'}",
        "task": "detect",
    }
    spec = input_spec(image_of("N", 3, "h", "w"), metadata, None)
    assert (spec.size, spec.scale, spec.mean, spec.std) == ((64, 96), 1 / 255, (0.0,) * 3, (1.0,) * 3)
    assert spec.resize == "letterbox:114"
    assert spec.guessed == ()
    assert input_spec(image_of(1, 3, 8, 8), {**metadata, "task": "classify"}, None).resize == "crop:1"
    assert labels_of(metadata) == ("person", "car")


@pytest.mark.parametrize(
    ("shape", "override", "message"),
    [
        ((1, 3, 32, 32), {"name": "y"}, "field 'name' is 'y', but the inputs are 'x'"),
        (
            (1, 3, 32, 32),
            {"size": [64, 64]},
            "field 'size' gives NCHW (N, 3, 64, 64), but the input 'x' is (1, 3, 32, 32)",
        ),
        ((1, 3, 32, 32), {"color": "GRAY"}, "field 'color' gives NCHW (N, 1, 32, 32)"),
        ((1, 3, 32, 32), {"layout": "NHWC"}, "gives NHWC"),
        ((1, 4, 32, 32), {"color": "RGB"}, "field 'color' gives NCHW (N, 3, 32, 32)"),
    ],
)
def test_spec_against_graph(shape: tuple[int, ...], override: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        input_spec(image_of(*shape), {}, override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        image_of(1, 3, 32),
        image_of(1, 12, 32, 32),
        image_of(1, 32, 32, 3, dtype="complex64"),
        [ValueInfo("ids", "int64", (1, 77)), ValueInfo("x", "float32", None)],
    ],
)
def test_no_image_input(inputs: list[ValueInfo]) -> None:
    with pytest.raises(ModelError, match="no image input: expected a 4-D input of floats") as caught:
        input_spec(inputs, {}, None)
    for item in inputs:
        assert f"'{item.name}' {item.dtype}" in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, None),
        ({"labels": '["a", "b"]'}, ("a", "b")),
        ({"classes": "['a', 'b']"}, ("a", "b")),
        ({"names": '{"0": "a", "1": "b"}'}, ("a", "b")),
        ({"names": "{1: 'b', 0: 'a'}"}, ("a", "b")),
        ({"names": "{0: 'a', 2: 'b'}"}, None),
        ({"names": "__import__('os').system('true')"}, None),
        ({"labels": "a, b"}, None),
        ({"labels": "[" * 100_000}, None),
        ({"labels": "'" + "x" * (5 * 2**20) + "'"}, None),
        ({"labels": "[[1], [2]]"}, None),
        ({"fsagn_model": '{"labels": null}', "names": "['n']"}, ("n",)),
        ({"fsagn_model": '{"labels": ["m"]}', "names": "['n']"}, ("m",)),
        ({"fsagn": '{"labels": ["e"]}'}, ("e",)),
    ],
)
def test_labels(metadata: dict[str, str], expected: tuple[str, ...] | None) -> None:
    assert labels_of(metadata) == expected


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": "a"}', '{"labels": [1]}'])
def test_broken_own_metadata(text: str) -> None:
    with pytest.raises(ModelError, match="metadata"):
        labels_of({"fsagn_model": text})


def test_broken_input_metadata() -> None:
    with pytest.raises(ModelError, match="metadata field 'input' must be a JSON object"):
        input_spec(image_of(1, 3, 8, 8), {"fsagn_model": '{"input": 3}'}, None)


def test_preprocess_files(tmp_path: Path) -> None:
    from fsagn_onnx.model.description import read_preprocess

    path = tmp_path / "spec.json"
    with pytest.raises(ModelError, match=r"preprocess file .*spec\.json cannot be read: No such file"):
        read_preprocess(path)
    path.write_text("{color: RGB}")
    with pytest.raises(ModelError, match=r"preprocess file .*spec\.json is not JSON"):
        read_preprocess(path)
    path.write_text("[1]")
    with pytest.raises(ModelError, match="must be a JSON object, but is a list"):
        read_preprocess(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="is not JSON"):
        read_preprocess(path)
    path.write_text('{"color": "BGR"}')
    assert read_preprocess(path) == {"color": "BGR"}
