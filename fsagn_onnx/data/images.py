"""Photographs from files: found lazily, checked before they are decoded, always upright 8-bit RGB."""

from __future__ import annotations

import csv
import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .headers import BrokenHeaderError, Header, read_header
from .opening import encoding_of, is_url, open_regular

__all__ = [
    "IMAGE_SUFFIXES", "MAX_FILE_BYTES", "MAX_PIXELS", "decode_image", "list_images", "list_lines", "read_image",
    "some_images",
]  # fmt: skip

MAX_PIXELS = 200_000_000
"""Pixels of the largest image that is decoded (600 MB as 8-bit RGB)."""
MAX_FILE_BYTES = 2**30
"""Bytes of the largest image file that is read."""
IMAGE_SUFFIXES = frozenset({
    ".bmp", ".dib", ".gif", ".jfif", ".jif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".pjp", ".pjpeg", ".png",
    ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Endings, in lower case, of the files that count as images when a folder is listed."""
MAX_LINE = 65536
"""Characters of a line in a list of images."""
TABLES = (".csv", ".tsv")
COLUMNS = ("file", "path", "image", "filename", "image_path")
"""Endings of lists that are tables, and names of the column that holds the images."""
_TWELVE_BITS = 2**12 - 1

if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # errors say what is wrong, and where


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image file as upright RGB.

    16-bit values keep their high byte, PNM is scaled by its own maximum; gray, palette and CMYK become RGB; alpha is
    dropped (libtiff blends it over black); of an animation the first frame counts; the orientation of the camera (EXIF)
    is applied.

    Args:
        path: A PNG, JPEG, GIF, BMP, WebP, TIFF, PNM or JPEG 2000 file.
        max_pixels: Limit on width times height, applied to the header before anything is decoded.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        ImageError: the file cannot be read, is no regular file, no image, truncated or too large; or its numbers are
            no brightness: signed, floating point, of 32 bits, or 16 bits of which only 12 are used.
    """
    name = os.fspath(path)
    try:
        with open_regular(name) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ImageError(f"{name!r} has {size} bytes, more than the limit of {MAX_FILE_BYTES}")
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{name!r} cannot be read: {reason}") from error
    return decode_image(content, name, max_pixels)


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode the content of an image file as upright RGB; see `read_image`.

    Args:
        content: The whole file.
        name: What to call it in errors.
        max_pixels: As for `read_image`.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        ImageError: no image, truncated, or too large.
    """
    if not content:
        raise ImageError(f"{name!r} is empty, expected an image")
    try:
        header = read_header(content)
    except BrokenHeaderError as error:
        raise ImageError(f"{name!r} is a broken image: {error}") from error
    if header is None:
        raise ImageError(f"{name!r} is no image of a known format (PNG, JPEG, GIF, BMP, WebP, TIFF, PNM, JP2)")
    if header.width * header.height > max_pixels:
        raise ImageError(f"{name!r} has {header.width} x {header.height} pixels, more than the limit of {max_pixels}")
    if header.unfit:
        raise ImageError(
            f"{name!r} is a {header.kind} of {header.unfit}, expected 1 to 4 channels of unsigned 8 or 16 bits: "
            "convert it, scaled as the model's training pictures were"
        )
    rgb = _decoded(content, name, header, cv2.IMREAD_COLOR_RGB)
    if header.maximum not in (0, 255, 2**16 - 1):
        deep = _decoded(content, name, header, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
        scaled = np.rint(np.minimum(deep, header.maximum) * np.float32(255 / header.maximum))
        return np.ascontiguousarray(scaled, dtype=np.uint8)
    if rgb.max() <= _TWELVE_BITS >> 8:
        del rgb  # a large picture is in memory once
        rgb = _decoded(content, name, header, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
        _require_all_bits(rgb, name, header)
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def _decoded(content: bytes, name: str, header: Header, how: int) -> NDArray[np.integer]:
    try:
        rgb = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), how)
    except cv2.error as error:
        raise ImageError(f"{name!r} is a broken {header.kind}: {error.err or 'cannot be decoded'}") from error
    if rgb is None or rgb.size == 0:
        raise ImageError(f"{name!r} is a broken {header.kind}: it cannot be decoded")
    return np.asarray(rgb)


def _require_all_bits(deep: NDArray[np.integer], name: str, header: Header) -> None:
    """Refuse 16-bit pixels with nothing in the upper four bits: as 8 bits they would be black, or almost."""
    if deep.dtype == np.uint16 and 0 < (largest := int(deep.max())) <= _TWELVE_BITS:
        raise ImageError(
            f"{name!r} is a {header.kind} of 16 bits, but no value is above {largest}: it would be almost black; scale "
            "its 12 (or fewer) bits to the full range, or save it with 8 bits"
        )


def list_images(inputs: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Find images, one after the other, without listing everything first.

    Args:
        inputs: Files; folders (searched recursively in sorted order, hidden files and folders left out, links
            to folders followed where they lead to new ones); globs with `*`, `?`, `[...]`, `**` (for the shells that
            leave them alone); `-` for paths on standard input, one on each line; `@FILE` for paths in a file.

    Raises:
        ImageError: a list file cannot be read, or an input is a URL.

    Yields:
        Paths in the order of the inputs. A named file is yielded as it is, whether it exists or not, and so
        is a glob that matches nothing: reading it is the error.
    """
    for item in inputs:
        name = os.fspath(item)
        if name == "-":
            yield from list_images(line for line in map(_stripped, sys.stdin) if line and line != "-")
        elif name.startswith("@") and not os.path.lexists(name):
            yield from _listed(name[1:])
        elif os.path.isdir(name):
            yield from _in_folder(name)
        elif glob.has_magic(name) and not os.path.lexists(name):
            yield from _matching(name)
        elif is_url(name) and not os.path.lexists(name):
            raise ImageError(
                f"{name!r} is no file: what lies in a store is read with --cluster, by 'explain' with --overlays N too"
            )
        else:
            yield Path(name)


def some_images(inputs: Sequence[str]) -> Iterator[Path]:
    """`list_images`, once it is known that there is an image: before a folder for results is made.

    Raises:
        ImageError: there is none, or a list file cannot be read.
    """
    found = list_images(inputs)
    first = next(found, None)
    if first is None:
        raise ImageError(f"no images in {', '.join(inputs)}: name files, folders or globs")
    return chain([first], found)


def _stripped(line: str) -> str:
    return line.rstrip("\r\n").removeprefix("\ufeff")


def _listed(name: str) -> Iterator[Path]:
    """The images of a list file; a line may be anything that `list_images` takes but a list."""
    for line in list_lines(name):
        yield from list_images([line])


def list_lines(name: str) -> Iterator[str]:
    """What a list file names, one on each line: a path, a folder, a glob.

    Of a table (``.csv``, ``.tsv``; commas, semicolons or tabs) it is the column ``file``, ``path``, ``image``,
    ``filename`` or ``image_path``; without such a head the first column.

    Raises:
        ImageError: the file cannot be read.
    """
    try:
        with open_regular(name, pipes=True) as file:
            encoding = encoding_of(file.peek(4)[:4]) if isinstance(file, io.BufferedReader) else "utf-8-sig"
            errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"  # names of any bytes
            lines = io.TextIOWrapper(file, encoding=encoding, errors=errors)
            bounded = _bounded(lines, name)
            for path in _column(bounded) if name.lower().endswith(TABLES) else map(_stripped, bounded):
                if path and path != "-" and not path.startswith("@"):
                    yield path
    except csv.Error as error:
        raise ImageError(f"list of images {name!r} is a broken table: {error}") from error
    except OSError as error:
        raise ImageError(f"list of images {name!r} cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise ImageError(f"list of images {name!r} is neither UTF-8 nor UTF-16 text: {error}") from error


def _bounded(lines: io.TextIOWrapper, name: str) -> Iterator[str]:
    while line := lines.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ImageError(f"list of images {name!r}: a line is longer than {MAX_LINE} characters")
        yield line


def _column(lines: Iterator[str]) -> Iterator[str]:
    """The column of a table that holds the images."""
    first = next(lines, "").removeprefix("\ufeff")
    mark = max(",;\t", key=first.count)  # a tie, and none at all, is a comma
    rows = csv.reader(chain([first], lines), delimiter=mark)
    head = next(rows, [])
    names = [name.strip().lower() for name in head]
    place = next((names.index(name) for name in COLUMNS if name in names), None)
    for row in rows if place is not None else chain([head], rows):
        if len(row) > (place or 0):
            yield row[place or 0].strip()


def _in_folder(folder: str) -> Iterator[Path]:
    roots = [os.path.realpath(folder)]
    for parent, folders, files in os.walk(folder, followlinks=True):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if _leads_on(os.path.join(parent, name), roots)]
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


def _leads_on(folder: str, roots: list[str]) -> bool:
    """Whether a folder is to be searched: itself, or a link to one that lies outside of all searched so far."""
    if not os.path.islink(folder):
        return True
    target = os.path.realpath(folder)
    if any(os.path.commonpath([target, root]) in (target, root) for root in roots):
        return False
    roots.append(target)
    return True


def _matching(pattern: str) -> Iterator[Path]:
    matches = sorted(glob.iglob(pattern, recursive=True))
    if not matches:
        yield Path(pattern)
    for name in matches:
        if os.path.isdir(name):
            if not pattern.rstrip("/").endswith("**"):
                yield from _in_folder(name)
        elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            yield Path(name)
