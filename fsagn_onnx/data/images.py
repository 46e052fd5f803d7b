"""Photographs from files: found lazily, checked before they are decoded, always upright 8-bit RGB."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .headers import BrokenHeaderError, read_header

__all__ = ["IMAGE_SUFFIXES", "MAX_FILE_BYTES", "MAX_PIXELS", "decode_image", "list_images", "read_image"]

MAX_PIXELS = 200_000_000
"""Pixels of the largest image that is decoded (600 MB as 8-bit RGB)."""
MAX_FILE_BYTES = 2**30
"""Bytes of the largest image file that is read."""
IMAGE_SUFFIXES = frozenset({
    ".bmp", ".dib", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
    ".tif", ".tiff", ".webp",
})  # fmt: skip
"""Endings, in lower case, of the files that count as images when a folder is listed."""


def read_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image file as upright RGB.

    16-bit values keep their high byte; gray, palette and CMYK become RGB; alpha is dropped (libtiff blends it
    over black); of an animation the first frame counts; the orientation of the camera (EXIF) is applied.

    Args:
        path: A PNG, JPEG, GIF, BMP, WebP, TIFF, PNM or JPEG 2000 file.
        max_pixels: Limit on width times height, applied to the header before anything is decoded.

    Returns:
        uint8 RGB (H, W, 3).

    Raises:
        ImageError: the file cannot be read, is no image, is truncated, or is too large.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as stream:
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
    try:
        rgb = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageError(f"{name!r} is a broken {header.kind}: {error.err or 'cannot be decoded'}") from error
    if rgb is None or rgb.size == 0:
        raise ImageError(f"{name!r} is a broken {header.kind}: it cannot be decoded")
    return np.ascontiguousarray(rgb, dtype=np.uint8)


def list_images(inputs: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Find images, one after the other, without listing everything first.

    Args:
        inputs: Files; folders (searched recursively in sorted order, hidden files and folders left out, links
            to folders not followed); globs with `*`, `?`, `[...]`, `**` (for the shells that leave them
            alone); `-` for paths on standard input, one on each line; `@FILE` for paths in a file.

    Raises:
        ImageError: a list file cannot be read.

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
        else:
            yield Path(name)


def _stripped(line: str) -> str:
    return line.rstrip("\r\n")


def _listed(name: str) -> Iterator[Path]:
    """The paths in a list file, one on each line; a line may be anything that `list_images` takes but a list."""
    try:
        with open(name, encoding="utf-8", errors="surrogateescape") as lines:
            for line in map(_stripped, lines):
                if line and line != "-" and not line.startswith("@"):
                    yield from list_images([line])
    except OSError as error:
        raise ImageError(f"list of images {name!r} cannot be read: {error.strerror}") from error


def _in_folder(folder: str) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


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
