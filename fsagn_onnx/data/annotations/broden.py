"""Folders like Broden, the data set of Network Dissection: index.csv, label.csv and masks in RGB."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ...errors import AnnotationError
from .layouts import AnnotationSource, layout
from .parts import Annotations, ImageParts, Part, check_size
from .untrusted import read_index_png, read_rows

CATEGORIES = ("part", "object", "material", "color", "texture")
"""Columns whose cells name masks; numbers in them label the whole image and are left out."""


def read_broden(folder: Path) -> Annotations:
    """A folder with ``index.csv`` (image, ih, iw, a column per category), ``label.csv`` and ``images/``.

    A cell lists PNG files under ``images/``, with ; between them, whose pixels hold the label's number as R + 256 G.

    Raises:
        AnnotationError: a file is missing or broken, or no cell names a mask.
    """
    numbers = {row["number"]: row["name"] for _, row in read_rows(folder / "label.csv", ("number", "name"))}
    readers: dict[str, Callable[[], ImageParts]] = {}
    used = False
    for line, row in read_rows(folder / "index.csv", ("image", "ih", "iw")):
        where = f"{folder / 'index.csv'}:{line}"
        files = [
            name for column in CATEGORIES for name in row.get(column, "").split(";") if name and not name.isdigit()
        ]
        used = used or bool(files)
        scene = row.get("scene", "")
        if scene and scene not in numbers:
            raise AnnotationError(f"{where}: scene {scene} is not in label.csv")
        size = check_size(where, row["ih"], row["iw"])
        readers[row["image"]] = partial(_read, folder / "images", tuple(files), numbers, size, numbers.get(scene))
    if readers and not used:
        raise AnnotationError(f"{folder / 'index.csv'}: no masks in the columns {', '.join(CATEGORIES)}")
    return Annotations(folder, "Broden", numbers.values(), readers)


def _read(
    images: Path, files: tuple[str, ...], numbers: dict[str, str], size: tuple[int, int], label: str | None
) -> ImageParts:
    parts = []
    for name in files:
        index = read_index_png(images / name)
        if index.shape != size:  # Broden's masks are smaller than its images
            resized = cv2.resize(index.astype(np.float64), size[::-1], interpolation=cv2.INTER_NEAREST)
            index = np.asarray(resized, dtype=np.int32)
        for number in sorted(set(index.ravel().tolist()) - {0}):
            if str(number) not in numbers:
                raise AnnotationError(f"{images / name}: label {number} is not in label.csv")
            parts.append(Part(numbers[str(number)], mask=index == number))
    return ImageParts(tuple(parts), size, label)


@layout(30, "Broden (its folder)")
def open_broden(source: AnnotationSource) -> Annotations | None:
    """Known by ``index.csv``."""
    return read_broden(source.path) if source.has("index.csv") else None
