"""Finding out which layout a file or folder of annotations has."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ...errors import AnnotationError
from .broden import read_broden
from .coco import read_coco
from .cub import read_cub
from .masks import read_mask_folder
from .parts import Annotations
from .tools import is_cvat, read_cvat, read_label_studio, read_labelme, read_table
from .untrusted import read_json
from .voc import read_voc, read_voc_part

LAYOUTS: Final = (
    "COCO instances, keypoints or panoptic (.json)",
    "Label Studio (.json)",
    "LabelMe (.json or a folder of them)",
    "CVAT for images (.xml)",
    "Pascal VOC (.xml or a folder of them)",
    "VOC-Part (a folder of .mat)",
    "CUB-200-2011 (its folder)",
    "Broden (its folder)",
    "mask PNGs with names.json or names.txt (a folder)",
    "boxes or points (.csv)",
)
"""Layouts that `open_annotations` reads."""


def open_annotations(path: str | Path) -> Annotations:
    """Part annotations of any known layout.

    Raises:
        AnnotationError: no such file, a layout that is not known, or one that is broken.
    """
    source = Path(path)
    if not source.exists():
        raise AnnotationError(f"{source}: no such file or folder; expected part annotations")
    if source.is_dir():
        return _folder(source)
    suffix = source.suffix.lower()
    if source.name in ("names.json", "names.txt"):
        return read_mask_folder(source.parent, source)
    if suffix == ".json":
        return _json(source)
    if suffix == ".xml":
        root = is_cvat(source)
        return read_voc(source, [source]) if root is None else read_cvat(source, root)
    if suffix == ".mat":
        return read_voc_part(source, [source])
    if suffix == ".csv":
        return read_table(source)
    raise _unknown(source)


def _folder(folder: Path) -> Annotations:
    for name in ("names.json", "names.txt"):
        if (folder / name).is_file():
            return read_mask_folder(folder, folder / name)
    if (folder / "images.txt").is_file() or (folder / "parts").is_dir():
        return read_cub(folder)
    if (folder / "index.csv").is_file():
        return read_broden(folder)
    for base in (folder, folder / "Annotations", folder / "Annotations_Part"):
        if mats := sorted(base.glob("*.mat")):
            return read_voc_part(folder, mats)
        if documents := sorted(base.glob("*.xml")):
            root = is_cvat(documents[0]) if len(documents) == 1 else None
            return read_voc(folder, documents) if root is None else read_cvat(documents[0], root)
    if files := sorted(folder.rglob("*.json")):
        return _json(files[0]) if len(files) == 1 else read_labelme(folder, files)
    raise _unknown(folder)


def _json(path: Path) -> Annotations:
    members = read_json(path)
    if isinstance(members, list):
        return read_label_studio(path, members)
    if isinstance(members, dict) and "shapes" in members:
        return read_labelme(path, [path])
    if isinstance(members, dict) and ("annotations" in members or "categories" in members):
        return read_coco(path, members)
    raise _unknown(path)


def _unknown(path: Path) -> AnnotationError:
    return AnnotationError(f"{path}: no part annotations of a known layout; known are {'; '.join(LAYOUTS)}")
