"""Reading and finding images, against Pillow."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from fsagn_onnx.data.annotations.untrusted import read_rows, read_text
from fsagn_onnx.data.headers import read_header
from fsagn_onnx.data.images import MAX_PIXELS, decode_image, list_images, read_image
from fsagn_onnx.errors import AnnotationError, ImageError, ModelError
from fsagn_onnx.model import read_proto

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


def tiff(samples: np.ndarray, form: int = 1, bits: int | None = None) -> bytes:
    """A little-endian TIFF of one strip: (H, W) or (H, W, channels); form 1 unsigned, 2 signed, 3 floating point."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    data, depth = samples.tobytes(), bits or samples.dtype.itemsize * 8
    after = 8 + len(data)
    long = channels > 2  # then the shorts of a tag do not fit into it
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, after if long else depth), (259, 3, 1, 1),
        (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data)),
        (339, 3, channels, after + 2 * channels if long else form),
    ]  # fmt: skip
    more = struct.pack(f"<{2 * channels}H", *[depth] * channels, *[form] * channels) if long else b""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, after + len(more))
    return head + data + more + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


RAMP = np.tile(np.linspace(0, 1, 64), (4, 1))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (tiff((2000 * RAMP - 1000).astype("<i2"), 2), "signed 16-bit numbers"),
        (tiff((200 * RAMP - 100).astype("i1"), 2), "signed 8-bit numbers"),
        (tiff(RAMP.astype("<f4"), 3), "32-bit floating point numbers"),
        (tiff(RAMP.astype("<f8"), 3), "64-bit floating point numbers"),
        (tiff((2**32 * 0.9 * RAMP).astype("<u4")), "32-bit numbers"),
        (tiff(np.zeros((4, 48), np.uint8), bits=12), "12-bit numbers"),
        (tiff(np.zeros((4, 4, 5), np.uint8)), "5 channels"),
        (tiff(np.zeros((4, 4, 3), "<i2"), 2), "signed 16-bit numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_that_are_no_brightness_are_refused_by_name(
    content: bytes, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ImageError, match=f"^'x.tif' is a TIFF of {what}, expected 1 to 4 channels of unsigned"
    ) as caught:
        decode_image(content, "x.tif")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_twelve_bits_in_sixteen_are_refused_and_darkness_is_not(extension: str) -> None:
    for white in (200, 1023, 4095):
        content = cv2.imencode(extension, np.rint(white * RAMP).astype(np.uint16))[1].tobytes()
        with pytest.raises(ImageError, match=f"of 16 bits, but no value is above {white}: it would be almost black"):
            decode_image(content, "dark")
    for black in (np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.uint8), np.full((4, 4), 12, np.uint8)):
        decoded = decode_image(cv2.imencode(extension, black)[1].tobytes(), "black")
        assert np.array_equal(decoded[..., 0], black)


@pytest.mark.parametrize("white", [7, 100, 1023, 4095, 40000])
def test_pnm_is_scaled_by_its_own_maximum(white: int) -> None:
    values = np.array([0, white // 3, white // 2, white])
    plain = f"P2 # by hand\n4 1\n# white\n{white}\n{' '.join(map(str, values))}\n".encode()
    raw = f"P5\n4 1\n{white}\n".encode() + values.astype(">u2" if white > 255 else np.uint8).tobytes()
    for content in (plain, raw):
        assert decode_image(content, "x.pgm")[0, :, 1] == pytest.approx(values * (255 / white), abs=1)


def test_only_regular_files_are_opened(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    with socket.socket(socket.AF_UNIX) as open_socket:
        open_socket.bind(os.path.relpath(tmp_path / "c.png"))
    (tmp_path / "d.png").symlink_to("/dev/zero")
    (tmp_path / "e.png").symlink_to(tmp_path / "b.png")
    wrong = {"b": "a pipe", "c": "a socket", "d": "a device", "e": "a pipe"}
    for path in list_images([tmp_path]):
        if path.stem in wrong:
            with pytest.raises(ImageError, match=f"cannot be read: it is {wrong[path.stem]}, expected a regular file"):
                read_image(path)
        else:
            assert read_image(path).shape == (40, 60, 3)
    for reading in (read_text, read_rows):
        with pytest.raises(AnnotationError, match="it is a device"):
            list(reading(Path("/dev/zero"), *[()] * (reading is read_rows)))  # type: ignore[operator]
    with pytest.raises(ImageError, match="it is a device"):
        list(list_images(["@/dev/zero"]))
    with pytest.raises(ModelError, match="no regular file"):
        read_proto("/dev/zero")


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
    with pytest.raises(ImageError, match="cannot be read: it is a folder"):
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
    (tmp_path / "again").symlink_to(tmp_path / "sub")
    (tmp_path / "up").symlink_to("/")
    return tmp_path


def names(inputs: list[str | Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in list_images(inputs)]


def test_list_folder(folder: Path) -> None:
    assert names([folder], folder) == ["a.JPG", "b.png", "sub/c.tif", "sub/deep/d.webp"]


def test_links_to_other_folders_are_followed_once(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("x.jfif", "deep/y.png"):
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).touch()
    (elsewhere / "back").symlink_to(folder)
    for name in ("l1", "l2"):
        (folder / name).symlink_to(elsewhere)
    (folder / "l3").symlink_to(elsewhere / "deep")
    found = names([folder], folder)
    assert found == ["a.JPG", "b.png", "l1/x.jfif", "l1/deep/y.png", "sub/c.tif", "sub/deep/d.webp"]


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_file_may_come_from_any_editor(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "grün.png").write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'grün.png'}\r\n", encoding=encoding, newline="")
    assert list(list_images([f"@{tmp_path / 'list.txt'}"])) == [tmp_path / "grün.png"]


def test_a_list_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a" * 200_000)
    with pytest.raises(ImageError, match="a line is longer than"):
        list(list_images([f"@{tmp_path / 'list.txt'}"]))
    (tmp_path / "list.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(ImageError, match="neither UTF-8 nor UTF-16"):
        list(list_images([f"@{tmp_path / 'list.txt'}"]))


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("label;file\ngood;a.png\nbad;b c.png\n", ["a.png", "b c.png"]),
        ("Image_Path ;split\r\na.png;train\r\n\r\nb c.png;test", ["a.png", "b c.png"]),
        ('a.png;good\n"b;c.png";bad\n', ["a.png", "b;c.png"]),
        ("a.png\nb c.png\n", ["a.png", "b c.png"]),
        ("score;file\n.5\n.7;a.png;more\n", ["a.png"]),
        ("", []),
    ],
)
def test_a_list_may_be_a_table(tmp_path: Path, mark: str, encoding: str, text: str, names: list[str]) -> None:
    name = str(tmp_path / ("list.tsv" if mark == "\t" else "List.CSV"))
    Path(name).write_bytes(text.replace(";", mark).encode(encoding))
    assert list(list_images([f"@{name}"])) == [Path(found.replace(";", mark)) for found in names]


def test_a_list_that_is_no_table_keeps_its_commas(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a,b;c.png\n")
    assert list(list_images([f"@{tmp_path}/list.txt"])) == [Path("a,b;c.png")]


def test_a_broken_table_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"file;label\na.png;\x00" + b'\n"' + b"a" * 200_000)
    with pytest.raises(ImageError, match=r"list of images .* (broken table|longer than)"):
        list(list_images([f"@{tmp_path}/list.csv"]))
