"""Reading annotation files that may come from strangers: sizes are checked first, nothing in them is executed."""

from __future__ import annotations

import csv
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import AnnotationError
from ..headers import BrokenHeaderError, read_header
from ..images import MAX_PIXELS
from ..opening import decoded, open_regular

MAX_BYTES: Final = 2**29
"""Largest annotation file that is read, in bytes."""
_GRAY_8: Final = b"\x08\x00"
"""Bit depth and colour type in a PNG's header: OpenCV reads these numbers as they are, twice as fast as PIL."""


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a file of at most ``limit`` bytes.

    Raises:
        AnnotationError: it is not there, cannot be read, or is larger.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise AnnotationError(f"{path}: {size} bytes, more than the limit of {limit}; split the annotations")
            return file.read(limit)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """The content of a UTF-8 or UTF-16 file, byte order mark removed.

    Raises:
        AnnotationError: it cannot be read, or is no UTF-8.
    """
    try:
        return decoded(read_bytes(path))
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: expected UTF-8 text, but byte {error.start} is none") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        AnnotationError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: broken JSON ({error}); expected annotations") from error


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file; documents that declare types or entities are refused.

    Raises:
        AnnotationError: it cannot be read, is no XML, or declares types.
    """
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise AnnotationError(f"{path}: declares a document type or entities; annotations never need them")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise AnnotationError(f"{path}: broken XML ({error}); expected annotations") from error


def read_rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, fields) of a CSV file whose first line names the columns, with commas, semicolons or tabs.

    Raises:
        AnnotationError: a needed column is missing, a row is shorter than the head, or it is no CSV.
    """
    try:
        yield from _rows(path, needed)
    except csv.Error as error:
        raise AnnotationError(f"{path}: broken CSV ({error}); expected the columns {', '.join(needed)}") from error


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    lines = read_text(path).splitlines()
    first = lines[0] if lines else ""
    mark = max(",;\t", key=first.count)  # a tie, and none at all, is a comma
    rows = csv.DictReader(lines, delimiter=mark)
    head = [name.strip() for name in rows.fieldnames or []]
    rows.fieldnames = head
    if missing := [name for name in needed if name not in head]:
        raise AnnotationError(
            f"{path}: its first line must name the columns {', '.join(needed)}, but lacks {', '.join(missing)}"
        )
    for row in rows:
        if any(row[name] is None for name in needed):
            raise AnnotationError(f"{path}:{rows.line_num}: fewer fields than the {len(head)} of the first line")
        yield rows.line_num, {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}


def read_number(value: object, where: object) -> float:
    """A finite number.

    Raises:
        AnnotationError: it is none.
    """
    try:
        parsed = float(str(value))
    except ValueError:
        parsed = float("nan")
    if not np.isfinite(parsed):
        raise AnnotationError(f"{where}: expected a number, but got {str(value)[:40]!r}")
    return parsed


def pairs(points: list[Any], where: object) -> list[list[float]]:
    """Points as (x, y) pairs of finite numbers.

    Raises:
        AnnotationError: something else is in the list.
    """
    if not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise AnnotationError(f"{where}: points must be (x, y) pairs, but are {str(points)[:60]}")
    return [[read_number(value, where) for value in point] for point in points]


def entry(members: Any, name: str, kind: type | tuple[type, ...], where: object) -> Any:
    """Member of a JSON object, of the expected type.

    Raises:
        AnnotationError: no object, no such member, or of another type.
    """
    if not isinstance(members, dict) or not isinstance(members.get(name), kind):
        found = type(members.get(name)).__name__ if isinstance(members, dict) else type(members).__name__
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(each.__name__ for each in kinds)
        raise AnnotationError(f"{where}: '{name}' must be {expected}, but is {found}")
    return members[name]


def read_index_png(path: Path) -> NDArray[np.int32]:
    """The numbers of an index mask: gray or palette PNG (H, W), or RGB with number = R + 256 G + 65536 B.

    Raises:
        AnnotationError: no PNG, broken, or too large.
    """
    content = read_bytes(path)
    try:
        header = read_header(content)
    except BrokenHeaderError as error:
        raise AnnotationError(f"{path}: broken image: {error}") from error
    if header is None or header.kind != "PNG":
        raise AnnotationError(f"{path}: a mask must be a PNG file, but is {header.kind if header else 'no image'}")
    if header.width * header.height > MAX_PIXELS:
        raise AnnotationError(f"{path}: {header.width} x {header.height} pixels, more than the limit of {MAX_PIXELS}")
    if content[24:26] == _GRAY_8:
        gray = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if gray is not None and gray.ndim == 2 and gray.dtype == np.uint8:
            return gray.astype(np.int32)
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as picture:
            if picture.mode in ("RGB", "RGBA"):
                colours = np.asarray(picture.convert("RGB"), dtype=np.int32)
                return np.asarray(colours @ np.array([1, 256, 65536], dtype=np.int32), dtype=np.int32)
            return np.array(picture, dtype=np.int32)  # palette images give the number, not the colour
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise AnnotationError(f"{path}: broken PNG: {error}") from error
