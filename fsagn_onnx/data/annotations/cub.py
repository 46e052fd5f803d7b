"""CUB-200-2011: part locations, boxes, segmentations, classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ...errors import AnnotationError
from .layouts import AnnotationSource, layout
from .parts import Annotations, ImageParts, Part
from .untrusted import read_index_png, read_number, read_text

WHOLE = "whole bird"


def read_cub(folder: Path) -> Annotations:
    """The folder ``CUB_200_2011``.

    ``images.txt`` and ``parts/parts.txt``, ``parts/part_locs.txt`` must be there; ``image_class_labels.txt`` with
    ``classes.txt``, ``bounding_boxes.txt`` and ``segmentations/`` (in it or beside it) may be.

    Raises:
        AnnotationError: a file is missing or broken.
    """
    images = dict(_rows(folder / "images.txt", 2))
    names = {key: words[0] for key, words in _rows(folder / "parts" / "parts.txt", 2)}
    points: dict[str, list[Part]] = {key: [] for key in images}
    for place, (image, words) in enumerate(_rows(folder / "parts" / "part_locs.txt", 5), start=1):
        where = f"{folder / 'parts' / 'part_locs.txt'}:{place}"
        if image not in points or words[0] not in names:
            raise AnnotationError(f"{where}: image {image} or part {words[0]} is in no list")
        if words[3] == "1":
            at = read_number(words[1], where), read_number(words[2], where)
            points[image].append(Part(names[words[0]], point=at))
    labels = _labels(folder)
    boxes = {}
    if (folder / "bounding_boxes.txt").is_file():
        for image, words in _rows(folder / "bounding_boxes.txt", 5):
            x, y, width, height = (read_number(word, folder / "bounding_boxes.txt") for word in words)
            boxes[image] = (x, y, x + width, y + height)
    masks = next((path for path in (folder / "segmentations", folder.parent / "segmentations") if path.is_dir()), None)
    readers: dict[str, Callable[[], ImageParts]] = {}
    for image, words in images.items():
        name = words[0]
        readers[name] = partial(_read, masks, name, tuple(points[image]), boxes.get(image), labels.get(image))
    listed = [*names.values(), *([WHOLE] if masks or boxes else [])]
    return Annotations(folder, "CUB-200-2011", listed, readers)


def _rows(path: Path, width: int) -> list[tuple[str, list[str]]]:
    """First word and the others of every line; the last takes the rest of the line."""
    rows = []
    for place, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split(maxsplit=width - 1)
        if words and len(words) != width:
            raise AnnotationError(f"{path}:{place}: expected {width} fields, but got {len(words)}")
        if words:
            rows.append((words[0], words[1:]))
    return rows


def _labels(folder: Path) -> dict[str, str]:
    if not (folder / "image_class_labels.txt").is_file():
        return {}
    classes = {key: words[0] for key, words in _rows(folder / "classes.txt", 2)}
    found = {}
    for image, words in _rows(folder / "image_class_labels.txt", 2):
        if words[0] not in classes:
            raise AnnotationError(f"{folder / 'image_class_labels.txt'}: class {words[0]} is not in classes.txt")
        found[image] = classes[words[0]]
    return found


def _read(
    masks: Path | None,
    name: str,
    points: tuple[Part, ...],
    box: tuple[float, float, float, float] | None,
    label: str | None,
) -> ImageParts:
    whole: tuple[Part, ...] = ()
    size = None
    path = None if masks is None else (masks / name).with_suffix(".png")
    if path is not None and path.is_file():
        mask = read_index_png(path) % 256 > 127
        size = (mask.shape[0], mask.shape[1])
        whole = (Part(WHOLE, mask=mask),)
    elif box is not None:
        whole = (Part(WHOLE, box=box),)
    return ImageParts((*points, *whole), size, label)


@layout(20, "CUB-200-2011 (its folder)")
def open_cub(source: AnnotationSource) -> Annotations | None:
    """Known by ``images.txt`` or ``parts``."""
    return read_cub(source.path) if source.has("images.txt") or source.has("parts") else None
