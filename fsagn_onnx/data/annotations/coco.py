"""COCO: instances (polygons, run lengths, boxes), keypoints, and panoptic PNGs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import AnnotationError
from .layouts import AnnotationSource, layout
from .parts import Annotations, ImageParts, Mask, Part, check_size, polygon_mask
from .untrusted import entry, read_index_png, read_number


def read_coco(path: Path, members: dict[str, Any]) -> Annotations:
    """Annotations of a COCO file; every category is a part, every keypoint too.

    Args:
        path: the file.
        members: its content.

    Raises:
        AnnotationError: a member is missing, of another kind, or names what is not in the file.
    """
    images = {image.get("id"): image for image in entry(members, "images", list, path) if isinstance(image, dict)}
    categories = {
        item["id"]: item for item in entry(members, "categories", list, path) if entry(item, "name", str, path)
    }
    of_image: dict[Any, list[dict[str, Any]]] = {key: [] for key in images}
    panoptic = False
    for place, item in enumerate(entry(members, "annotations", list, path)):
        where = f"{path}: annotation {place}"
        image = entry(item, "image_id", (int, str), where)
        if image not in of_image:
            raise AnnotationError(f"{where}: its image_id {image!r} is none of the file's images")
        panoptic = panoptic or "segments_info" in item
        listed = entry(item, "segments_info", list, where) if "segments_info" in item else [item]
        for part in listed:
            if entry(part, "category_id", int, where) not in categories:
                raise AnnotationError(f"{where}: its category_id {part['category_id']} is none of the categories")
        of_image[image].append(item)
    names = [item["name"] for item in categories.values()]
    names += [f"{item['name']} {point}" for item in categories.values() for point in item.get("keypoints") or []]
    readers: dict[str, Callable[[], ImageParts]] = {}
    for key, image in images.items():
        name = entry(image, "file_name", str, f"{path}: image {key!r}")
        readers[name] = partial(_panoptic if panoptic else _instances, path, image, of_image[key], categories)
    return Annotations(path, "COCO panoptic" if panoptic else "COCO", names, readers)


def _instances(
    path: Path, image: dict[str, Any], listed: Sequence[dict[str, Any]], categories: dict[int, dict[str, Any]]
) -> ImageParts:
    size = check_size(path, image.get("height"), image.get("width"))
    parts: list[Part] = []
    for item in listed:
        category = categories[item["category_id"]]
        where = f"{path}: annotation {item.get('id')}"
        points = _keypoints(where, item, category)
        parts += points
        segmentation = item.get("segmentation")
        if segmentation:
            parts.append(Part(category["name"], mask=_mask(where, segmentation, size)))
        elif "bbox" in item and not points:
            x, y, width, height = _four(where, item["bbox"])
            parts.append(Part(category["name"], box=(x, y, x + width, y + height)))
    return ImageParts(tuple(parts), size)


def _four(where: str, box: object) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4:
        raise AnnotationError(f"{where}: a box must be [x, y, width, height], but is {str(box)[:60]}")
    x, y, width, height = (read_number(value, where) for value in box)
    return x, y, width, height


def _keypoints(where: str, item: dict[str, Any], category: dict[str, Any]) -> list[Part]:
    flat, names = item.get("keypoints"), category.get("keypoints")
    if not flat or not names:
        return []
    if not isinstance(flat, list) or len(flat) != 3 * len(names):
        raise AnnotationError(f"{where}: {len(names)} keypoints must be {3 * len(names)} numbers")
    triples = [[read_number(value, where) for value in flat[i : i + 3]] for i in range(0, len(flat), 3)]
    return [
        Part(f"{category['name']} {name}", point=(x, y))
        for name, (x, y, seen) in zip(names, triples, strict=True)
        if seen > 0
    ]


def _mask(where: str, segmentation: object, size: tuple[int, int]) -> Mask:
    if isinstance(segmentation, list):
        mask = np.zeros(size, dtype=np.bool_)
        for polygon in segmentation:
            mask |= polygon_mask(where, polygon, size)
        return mask
    counts = entry(segmentation, "counts", (list, str), where)
    return run_lengths(where, counts if isinstance(counts, list) else unpack_counts(where, counts), size)


def unpack_counts(where: str, text: str) -> list[int]:
    """The run lengths of COCO's compressed text (5 bits per letter, differences to the last but one).

    Raises:
        AnnotationError: the text ends in the middle of a number.
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        while True:
            letter = ord(text[place]) - 48 if place < len(text) else -1
            if not 0 <= letter < 64 or shift > 35:
                raise AnnotationError(f"{where}: its compressed run lengths are broken")
            place += 1
            value |= (letter & 31) << shift
            shift += 5
            if not letter & 32:
                break
        if letter & 16:
            value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def run_lengths(where: str, counts: Sequence[object], size: tuple[int, int]) -> Mask:
    """Runs of 0 and 1 in turn, down the columns; pycocotools would trust the lengths, here they must fit.

    Raises:
        AnnotationError: they do not add up to the image.
    """
    lengths = [int(read_number(count, where)) for count in counts]
    if min(lengths, default=-1) < 0 or sum(lengths) != size[0] * size[1]:
        raise AnnotationError(f"{where}: its run lengths do not add up to {size[1]} x {size[0]} pixels")
    values = np.arange(len(lengths)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, lengths).reshape(size[1], size[0]).T)


def _panoptic(
    path: Path, image: dict[str, Any], listed: Sequence[dict[str, Any]], categories: dict[int, dict[str, Any]]
) -> ImageParts:
    size = check_size(path, image.get("height"), image.get("width"))
    parts: list[Part] = []
    for item in listed:
        name = entry(item, "file_name", str, path)
        found = next((base / name for base in (path.with_suffix(""), path.parent) if (base / name).is_file()), None)
        if found is None:
            raise AnnotationError(f"{path}: no panoptic PNG {name}; expected it in {path.with_suffix('')}")
        numbers = read_index_png(found)
        if numbers.shape != size:
            raise AnnotationError(f"{found}: {numbers.shape[::-1]} pixels, its image has {size[::-1]}")
        for segment in item["segments_info"]:
            mask = numbers == entry(segment, "id", int, path)
            parts.append(Part(categories[segment["category_id"]]["name"], mask=mask))
    return ImageParts(tuple(parts), size)


@layout(90, "COCO instances, keypoints or panoptic (.json)")
def open_coco(source: AnnotationSource) -> Annotations | None:
    """Known by its members."""
    members = source.json
    known = isinstance(members, dict) and ("annotations" in members or "categories" in members)
    return read_coco(source.files[1][0], members) if known else None
