"""Reading and finding images, against Pillow."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fsagn_onnx.data.headers import read_header
from fsagn_onnx.data.images import MAX_PIXELS, decode_image, list_images, read_image
from fsagn_onnx.errors import ImageError

LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "PPM": {},
    "GIF": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "JPEG2000": {},
}
"""Formats and how to write them without loss (JPEG and GIF: as little as can be)."""


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """60 x 40 pixels of smooth colour, without any symmetry."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, (60, 40), interpolation=cv2.INTER_CUBIC))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **{**LOSSLESS.get(kind, {}), **options})
    return stream.getvalue()


def by_pillow(content: bytes) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(content)).convert("RGB")))


def assert_alike(content: bytes, tolerance: int = 0) -> None:
    ours, theirs = decode_image(content, "a file"), by_pillow(content)
    assert ours.dtype == np.uint8
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= tolerance


@pytest.mark.parametrize("kind", LOSSLESS)
def test_formats(kind: str, picture: Image.Image) -> None:
    content = encoded(picture, kind)
    assert_alike(content)
    header = read_header(content)
    assert header is not None
    assert (header.height, header.width) == (40, 60)


@pytest.mark.parametrize("options", [{}, {"quality": 30}, {"lossless": True}, {"alpha": True}])
def test_headers_of_webp(options: dict[str, Any], picture: Image.Image) -> None:
    image = picture.convert("RGBA") if options.pop("alpha", False) else picture
    if image.mode == "RGBA":
        image.putalpha(100)
    stream = io.BytesIO()
    image.save(stream, "WEBP", **options)
    header = read_header(stream.getvalue())
    assert header is not None
    assert (header.kind, header.height, header.width) == ("WebP", 40, 60)


@pytest.mark.parametrize(
    ("mode", "kind", "tolerance"),
    [
        ("L", "PNG", 0),
        ("1", "PNG", 0),
        ("P", "PNG", 0),
        ("P", "GIF", 0),
        ("LA", "PNG", 0),
        ("RGBA", "PNG", 0),
        ("RGBA", "WEBP", 0),
        ("L", "JPEG", 0),
        ("CMYK", "JPEG", 2),
        ("CMYK", "TIFF", 2),
        ("YCbCr", "TIFF", 2),
        ("L", "TIFF", 0),
    ],
)
def test_modes(mode: str, kind: str, tolerance: int, picture: Image.Image) -> None:
    image = picture.convert("RGBA").convert(mode) if "A" in mode else picture.convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))))
    assert_alike(encoded(image, kind), tolerance)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits(extension: str, channels: int) -> None:
    deep = (np.arange(2400 * channels).reshape(40, 60, channels) * 9).astype(np.uint16)
    content = cv2.imencode(extension, deep)[1].tobytes()
    expected = np.broadcast_to(deep[..., ::-1] >> 8, (40, 60, 3)).astype(int)
    assert np.abs(decode_image(content, "deep") - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(kind: str, orientation: int, picture: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture, kind, exif=exif)
    assert_alike(content)
    assert decode_image(content, "a file").shape == ((60, 40, 3) if orientation > 4 else (40, 60, 3))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str, picture: Image.Image) -> None:
    others = [picture.rotate(180), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    content = encoded(picture, kind, save_all=True, append_images=others)
    still = decode_image(encoded(picture, kind), "still")
    assert np.abs(decode_image(content, "moving").astype(int) - still).max() <= (60 if kind == "GIF" else 0)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_one_pixel(kind: str) -> None:
    content = encoded(Image.new("RGB", (1, 1), (200, 100, 50)), kind)
    assert decode_image(content, "dot").shape == (1, 1, 3)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_truncated_files_are_errors_of_one_line(kind: str, picture: Image.Image) -> None:
    content = encoded(picture, kind)
    for length in (0, 1, 2, 5, 12, 20, 30, len(content) // 2, len(content) - 40, len(content) - 2):
        with pytest.raises(ImageError, match=r"^'the\\nfile\.img' (is|has) ") as caught:
            decode_image(content[:length], "the\nfile.img")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_damaged_files_are_images_or_errors(kind: str, picture: Image.Image) -> None:
    rng = np.random.default_rng(1)
    content = np.frombuffer(encoded(picture, kind), dtype=np.uint8)
    for _ in range(40):
        damaged = content.copy()
        damaged[rng.integers(0, len(content), 12)] = rng.integers(0, 256, 12)
        with contextlib.suppress(ImageError):
            assert decode_image(damaged.tobytes(), "damaged", max_pixels=10**6).shape[2] == 3


@pytest.mark.parametrize("content", [b"not an image", b"<svg></svg>", bytes(1000), b"%PDF-1.4\n", b"\xff\xd8\xff"])
def test_no_image(content: bytes) -> None:
    with pytest.raises(ImageError, match=r"known format|broken"):
        decode_image(content, "notes.txt")


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header of that size, and next to no content."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_pixel_limit_before_decoding(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    with pytest.raises(ImageError, match=f"'bomb.png' has 60000 x 50000 pixels, more than the limit of {MAX_PIXELS}"):
        decode_image(bomb(60000, 50000), "bomb.png")
    for kind in LOSSLESS:
        with pytest.raises(ImageError, match="60 x 40 pixels, more than the limit of 2399"):
            decode_image(encoded(picture, kind), "large", max_pixels=2399)


def test_file_limit(tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded(picture, "PNG"))
    monkeypatch.setattr("fsagn_onnx.data.images.MAX_FILE_BYTES", 100)
    with pytest.raises(ImageError, match=r"large.png' has \d+ bytes, more than the limit of 100"):
        read_image(path)


@pytest.mark.parametrize("name", ["straße 日本.png", 'it\'s "quoted".png', "new\nline.png", "[1].png", "-.png"])
def test_names(name: str, tmp_path: Path, picture: Image.Image) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(picture, "PNG"))
    assert np.array_equal(read_image(path), np.array(picture))
    assert list(list_images([path])) == [path]
    path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"is empty, expected an image$") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_name_that_is_no_text(tmp_path: Path, picture: Image.Image) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.png"
    with open(name, "wb") as stream:
        stream.write(encoded(picture, "PNG"))
    (path,) = list_images([tmp_path])
    assert read_image(path).shape == (40, 60, 3)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone.png' cannot be read: No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read: embedded null byte"):
        read_image("a\0b.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "notes.txt", "sub/c.tif", "sub/deep/d.webp", ".hidden.png", ".git/e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


def names(inputs: list[str | Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in list_images(inputs)]


def test_list_folder(folder: Path) -> None:
    assert names([folder], folder) == ["a.JPG", "b.png", "sub/c.tif", "sub/deep/d.webp"]


def test_list_globs_and_files(folder: Path) -> None:
    assert names([f"{folder}/*.png", f"{folder}/s*"], folder) == ["b.png", "sub/c.tif", "sub/deep/d.webp"]
    assert names([f"{folder}/sub/**"], folder) == ["sub/c.tif", "sub/deep/d.webp"]
    assert names([f"{folder}/notes.txt"], folder) == ["notes.txt"]
    assert names([f"{folder}/gone.png", f"{folder}/x*.png"], folder) == ["gone.png", "x*.png"]


def test_list_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/b.png\n\n{folder}/sub\r\n-\n"))
    assert names(["-"], folder) == ["b.png", "sub/c.tif", "sub/deep/d.webp"]


def test_list_is_lazy() -> None:
    def inputs():
        yield "first.png"
        raise AssertionError("asked for more than needed")

    assert next(list_images(inputs())) == Path("first.png")


def test_a_list_file_names_images(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a.png", "folder/b.png"):
        (tmp_path / name).write_bytes(b"")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path / 'a.png'}\n\n-\n@{listed}\n{tmp_path / 'folder'}\n", encoding="utf-8")
    assert list(list_images([f"@{listed}"])) == [tmp_path / "a.png", tmp_path / "folder" / "b.png"]
    with pytest.raises(ImageError, match="list of images"):
        list(list_images(["@missing.txt"]))
