"""Finding out which layout a file or folder of annotations has."""

from __future__ import annotations

from pathlib import Path

from ...errors import AnnotationError
from .masks import read_mask_folder
from .parts import Annotations

LAYOUTS = ("mask PNG",)
"""Layouts that `open_annotations` reads."""


def open_annotations(path: str | Path) -> Annotations:
    """Part annotations of any known layout.

    Raises:
        AnnotationError: no such file, or a layout that is not known.
    """
    source = Path(path)
    if not source.exists():
        raise AnnotationError(f"{source}: no such file or folder; expected part annotations")
    if source.is_dir():
        for name in ("names.json", "names.txt"):
            if (source / name).is_file():
                return read_mask_folder(source, source / name)
    elif source.name in ("names.json", "names.txt"):
        return read_mask_folder(source.parent, source)
    raise AnnotationError(f"{source}: no part annotations of a known layout; known are {', '.join(LAYOUTS)}")
