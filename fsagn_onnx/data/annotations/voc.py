"""Pascal VOC (XML, boxes of objects and of their parts) and VOC-Part (MATLAB files with masks)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

import numpy as np

from ...errors import AnnotationError
from .layouts import AnnotationSource, layout
from .parts import Annotations, Box, ImageParts, Part, check_size
from .untrusted import read_bytes, read_number, read_xml

MAX_UNPACKED: Final = 2**30
"""Bytes that the compressed variables of a MATLAB file may take."""


def read_voc(folder: Path, files: list[Path]) -> Annotations:
    """VOC XML files. Where objects have parts, these are the parts (``person head``), else the objects are."""
    found = {path: read_xml(path) for path in files}
    with_parts = any(root.find("object/part") is not None for root in found.values())
    names: set[str] = set()
    readers: dict[str, Callable[[], ImageParts]] = {}
    for path, root in found.items():
        parts = _voc_image(path, root, with_parts)
        names.update(part.name for part in parts.parts)
        readers[root.findtext("filename", "").strip() or path.name] = partial(_same, parts)
    return Annotations(folder, "Pascal VOC", names, readers)


def _same(parts: ImageParts) -> ImageParts:
    return parts


def _voc_image(path: Path, root: Element, with_parts: bool) -> ImageParts:
    if root.tag != "annotation":
        raise AnnotationError(f"{path}: expected <annotation>, but its root is <{root.tag}>")
    size = root.find("size")
    shape = None if size is None else check_size(path, size.findtext("height"), size.findtext("width"))
    parts: list[Part] = []
    objects = root.findall("object")
    for item in objects:
        name = _named(path, item)
        if with_parts:
            for part in item.findall("part"):
                parts.append(Part(f"{name} {_named(path, part)}", box=_box(path, part)))
        else:
            parts.append(Part(name, box=_box(path, item)))
    kinds = {_named(path, item) for item in objects}
    return ImageParts(tuple(parts), shape, kinds.pop() if len(kinds) == 1 else None)


def _named(path: Path, item: Element) -> str:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise AnnotationError(f"{path}: an <{item.tag}> without <name>")
    return name


def _box(path: Path, item: Element) -> Box:
    box = item.find("bndbox")
    if box is None:
        raise AnnotationError(f"{path}: <{item.tag}> '{_named(path, item)}' has no <bndbox>")
    x0, y0, x1, y1 = (read_number(box.findtext(side), path) for side in ("xmin", "ymin", "xmax", "ymax"))
    return (x0 - 1, y0 - 1, x1, y1)  # VOC counts pixels from 1, both ends included


def read_voc_part(folder: Path, files: list[Path]) -> Annotations:
    """VOC-Part: a ``.mat`` file per image with masks of objects and their parts (``bird beak``).

    Names are read from all files at once, masks when they are asked for.
    """
    names: set[str] = set()
    for path in files:
        names.update(part.name for part in _mat_image(path).parts)
    return Annotations(folder, "VOC-Part", names, {path.stem: partial(_mat_image, path) for path in files})


def _mat_image(path: Path) -> ImageParts:
    anno = _load_mat(path).get("anno")
    if not isinstance(anno, dict) or "objects" not in anno:
        raise AnnotationError(f"{path}: expected a variable 'anno' with 'objects', as VOC-Part has")
    parts: list[Part] = []
    kinds: set[str] = set()
    size: tuple[int, int] | None = None
    for item in _listed(anno["objects"]):
        if not isinstance(item, dict) or not isinstance(item.get("class"), str):
            raise AnnotationError(f"{path}: an object without 'class'")
        kinds.add(item["class"])
        for part in _listed(item.get("parts")):
            mask = np.asarray(part.get("mask") if isinstance(part, dict) else None)
            if not isinstance(part, dict) or not isinstance(part.get("part_name"), str) or mask.ndim != 2:
                raise AnnotationError(f"{path}: a part of '{item['class']}' lacks 'part_name' or its 'mask' (H, W)")
            size = (mask.shape[0], mask.shape[1])
            parts.append(Part(f"{item['class']} {part['part_name']}", mask=mask.astype(np.bool_)))
    return ImageParts(tuple(parts), size, kinds.pop() if len(kinds) == 1 else None)


def _listed(value: object) -> list[Any]:
    """A struct array as a list: MATLAB stores one element and none differently."""
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return []
    return list(value) if isinstance(value, list | np.ndarray) else [value]


def _load_mat(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    if content[:8] == b"\x89HDF\r\n\x1a\n" or content[:19] == b"MATLAB 7.3 MAT-file":
        raise AnnotationError(f"{path}: a MATLAB 7.3 file; save it with '-v7'")
    _check_unpacked(path, content)
    from io import BytesIO

    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    broken = (MatReadError, ValueError, TypeError, KeyError, IndexError, OSError, NotImplementedError, zlib.error)
    try:
        loaded: dict[str, Any] = loadmat(BytesIO(content), simplify_cells=True)
    except broken as error:
        raise AnnotationError(
            f"{path}: no MATLAB file, or broken ({error}); expected VOC-Part's annotations"
        ) from error
    return loaded


def _check_unpacked(path: Path, content: bytes) -> None:
    """Refuse a version 5 file whose compressed variables are larger than the limit, without unpacking them whole."""
    place, total = 128, 0
    order = "<" if content[126:128] == b"IM" else ">"
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, place)
        place += 8
        if kind == 15:
            unpacker = zlib.decompressobj()
            rest = content[place : place + size]
            while rest:
                try:
                    total += len(unpacker.decompress(rest, 2**22))
                except zlib.error as error:
                    raise AnnotationError(f"{path}: no MATLAB file, or broken ({error})") from error
                rest = unpacker.unconsumed_tail
                if total > MAX_UNPACKED:
                    raise AnnotationError(f"{path}: unpacks to more than {MAX_UNPACKED} bytes")
        place += size


@layout(40, "VOC-Part (a folder of .mat)")
def open_voc_part(source: AnnotationSource) -> Annotations | None:
    """Known by the ending."""
    ending, files = source.files
    return read_voc_part(source.path, files) if ending == ".mat" else None


@layout(60, "Pascal VOC (.xml or a folder of them)")
def open_voc(source: AnnotationSource) -> Annotations | None:
    """Any XML that is none of CVAT."""
    ending, files = source.files
    return read_voc(source.path, files) if ending == ".xml" else None
