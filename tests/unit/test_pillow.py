"""Images of Pillow are taken as they are, as their files would be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from fsagn_onnx.data.images import decode_image
from fsagn_onnx.data.pillow import ORIENTATION, is_pillow, pillow_pixels
from fsagn_onnx.errors import ImageError
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.testing.synthetic import SyntheticParts

EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
PICTURE = SyntheticParts("test", 1)[0].image


def test_explain_takes_one_or_several() -> None:
    image = Image.fromarray(PICTURE)
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        (plain,), (single,) = explainer.explain(PICTURE, "top:2"), explainer.explain(image, "top:2")
        both = explainer.explain([image, PICTURE], "top:2")
    for other in (single, *both):
        assert [one.id for one in other.filters] == [one.id for one in plain.filters]
        assert (other.filters[0].area_rank == plain.filters[0].area_rank).all()
    assert [one.name for one in both] == ["image-0", "image-1"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_pixels_are_those_of_the_file(mode: str) -> None:
    image = Image.fromarray(PICTURE).convert(mode)
    file = io.BytesIO()
    image.save(file, "png")
    assert (pillow_pixels("x", image) == decode_image(file.getvalue(), "x")).all()


def test_a_palette_with_a_transparent_colour() -> None:
    image = Image.fromarray(PICTURE).convert("P")
    image.info["transparency"] = bytes([0, 128] + [255] * 254)
    assert pillow_pixels("x", image).shape == PICTURE.shape


def test_sixteen_bits_keep_the_high_byte_and_others_are_refused() -> None:
    wide = Image.fromarray((PICTURE[..., 0].astype(np.uint16) << 8) + 7)
    assert (pillow_pixels("x", wide) == PICTURE[..., :1]).all()
    with pytest.raises(ImageError, match="image-3: an image of Pillow must have 8 bits per channel, but its mode is F"):
        pillow_pixels("image-3", Image.fromarray(PICTURE[..., 0].astype(np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_s_orientation_is_applied(orientation: int) -> None:
    image = Image.fromarray(PICTURE[:40, :60])
    image.getexif()[ORIENTATION] = orientation
    assert (pillow_pixels("x", image) == np.asarray(ImageOps.exif_transpose(image))).all()


def test_a_truncated_file_is_a_failure_of_that_image() -> None:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "jpeg")
    broken = Image.open(io.BytesIO(file.getvalue()[:2000]))
    with pytest.raises(ImageError, match="image-0: Pillow cannot load the image"):
        pillow_pixels("image-0", broken)
    assert not is_pillow(PICTURE)
    assert not is_pillow("photo.png")
