"""Exports of annotation tools: LabelMe, CVAT for images, Label Studio; and plain tables of boxes and points."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element

import cv2
import numpy as np

from ...errors import AnnotationError
from ..headers import BrokenHeaderError, read_header
from ..images import MAX_PIXELS
from .brush import brush_mask
from .coco import run_lengths
from .layouts import AnnotationSource, layout
from .parts import Annotations, ImageParts, Mask, Part, check_size, polygon_mask
from .untrusted import entry, pairs, read_json, read_number, read_rows


def read_labelme(source: Path, files: list[Path]) -> Annotations:
    """LabelMe: a JSON file per image with polygons, rectangles, circles, points and masks."""
    readers: dict[str, Callable[[], ImageParts]] = {}
    names: set[str] = set()
    for path in files:
        members = read_json(path)
        for shape in entry(members, "shapes", list, path):
            names.add(entry(shape, "label", str, path))
        image = str(members.get("imagePath") or path.with_suffix(".png").name)
        readers[image.replace("\\", "/")] = partial(_labelme_image, path)
    return Annotations(source, "LabelMe", names, readers)


def _labelme_image(path: Path) -> ImageParts:
    members = read_json(path)
    size = check_size(path, members.get("imageHeight"), members.get("imageWidth"))
    parts = []
    for place, shape in enumerate(members["shapes"]):
        where = f"{path}: shape {place}"
        kind, label = shape.get("shape_type", "polygon"), shape["label"]
        points = pairs(entry(shape, "points", list, where), where)
        if kind == "point" and points:
            parts.append(Part(label, point=(points[0][0], points[0][1])))
        elif kind == "rectangle" and len(points) >= 2:
            (x0, y0), (x1, y1) = np.min(points, axis=0), np.max(points, axis=0)
            parts.append(Part(label, box=(float(x0), float(y0), float(x1), float(y1))))
        elif kind == "circle" and len(points) == 2:
            parts.append(Part(label, mask=_ellipse(points[0], [math.dist(*points)] * 2, size)))
        elif kind == "mask" and points:
            parts.append(Part(label, mask=_pasted(where, entry(shape, "mask", str, where), points[0], size)))
        elif kind == "polygon":
            parts.append(Part(label, mask=polygon_mask(where, points, size)))
        else:
            raise AnnotationError(f"{where}: shape_type '{kind}' with {len(points)} points is not known")
    return ImageParts(tuple(parts), size)


def _ellipse(centre: list[float], radii: list[float], size: tuple[int, int]) -> Mask:
    rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
    inside = ((columns - centre[0]) / max(radii[0], 1e-9)) ** 2 + ((rows - centre[1]) / max(radii[1], 1e-9)) ** 2
    return np.asarray(inside <= 1)


def _pasted(where: str, text: str, corner: list[float], size: tuple[int, int]) -> Mask:
    """LabelMe's mask shape: a PNG in base64 whose upper left corner is the first point."""
    try:
        content = base64.b64decode(text, validate=True)
        header = read_header(content)
    except (binascii.Error, ValueError, BrokenHeaderError) as error:
        raise AnnotationError(f"{where}: its mask is no PNG in base64") from error
    if header is None or header.width * header.height > MAX_PIXELS:
        raise AnnotationError(f"{where}: its mask is no PNG, or too large")
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise AnnotationError(f"{where}: its mask is a broken PNG")
    mask = np.zeros(size, dtype=np.bool_)
    x, y = max(round(corner[0]), 0), max(round(corner[1]), 0)
    target = mask[y : y + pixels.shape[0], x : x + pixels.shape[1]]
    target[...] = pixels[: target.shape[0], : target.shape[1]] > 0
    return mask


def read_cvat(path: Path, root: Element) -> Annotations:
    """CVAT for images 1.1: boxes, polygons, points, ellipses, masks and tags (the image's class)."""
    names: set[str] = set()
    readers: dict[str, Callable[[], ImageParts]] = {}
    for image in root.findall("image"):
        shapes = [shape for shape in image if shape.tag != "tag" and shape.get("label")]
        names.update(shape.get("label", "") for shape in shapes)
        readers[image.get("name", "")] = partial(_cvat_image, path, image)
    return Annotations(path, "CVAT", names, readers)


def _cvat_image(path: Path, image: Element) -> ImageParts:
    where = f"{path}: image '{image.get('name')}'"
    size = check_size(where, image.get("height"), image.get("width"))
    parts: list[Part] = []
    for shape in image:
        label = shape.get("label", "")
        if shape.tag == "tag" or not label:
            continue
        if shape.tag == "box":
            x0, y0, x1, y1 = (read_number(shape.get(side), where) for side in ("xtl", "ytl", "xbr", "ybr"))
            parts.append(Part(label, box=(x0, y0, x1, y1)))
        elif shape.tag == "polygon":
            parts.append(Part(label, mask=polygon_mask(where, _cvat_points(shape, where), size)))
        elif shape.tag == "points":
            parts += [Part(label, point=(x, y)) for x, y in _cvat_points(shape, where)]
        elif shape.tag == "ellipse":
            cx, cy, rx, ry = (read_number(shape.get(side), where) for side in ("cx", "cy", "rx", "ry"))
            parts.append(Part(label, mask=_ellipse([cx, cy], [rx, ry], size)))
        elif shape.tag == "mask":
            parts.append(Part(label, mask=_cvat_mask(shape, where, size)))
        else:
            raise AnnotationError(f"{where}: shape <{shape.tag}> is not known; export boxes, polygons, points or masks")
    tags = [tag.get("label") for tag in image.findall("tag")]
    return ImageParts(tuple(parts), size, tags[0] if tags else None)


def _cvat_points(shape: Element, where: str) -> list[list[float]]:
    return pairs([pair.split(",") for pair in shape.get("points", "").split(";")], where)


def _cvat_mask(shape: Element, where: str, size: tuple[int, int]) -> Mask:
    """CVAT's run lengths go along the rows of the mask's own box."""
    height, width = check_size(where, shape.get("height"), shape.get("width"))
    own = run_lengths(where, shape.get("rle", "").split(","), (width, height)).T
    left, top = int(read_number(shape.get("left"), where)), int(read_number(shape.get("top"), where))
    mask = np.zeros(size, dtype=np.bool_)
    target = mask[max(top, 0) : top + height, max(left, 0) : left + width]
    target[...] = own[: target.shape[0], : target.shape[1]]
    return mask


def read_label_studio(path: Path, tasks: list[Any]) -> Annotations:
    """Label Studio's JSON export: rectangles, polygons, ellipses, keypoints, brushes and choices (the class).

    Raises:
        AnnotationError: a member is missing or of another kind.
    """
    names: set[str] = set()
    readers: dict[str, Callable[[], ImageParts]] = {}
    for place, task in enumerate(tasks):
        where = f"{path}: task {place}"
        given = entry(task, "data", dict, where)
        image = next((value for value in given.values() if isinstance(value, str)), None)
        if image is None:
            raise AnnotationError(f"{where}: its 'data' names no image")
        results = [
            result
            for done in entry(task, "annotations", list, where)
            if isinstance(done, dict) and not done.get("was_cancelled")
            for result in entry(done, "result", list, where)
        ]
        for result in results:
            if result.get("type") != "choices":
                names.update(_studio_labels(where, result))
        readers[_studio_name(image)] = partial(_studio_image, where, results)
    return Annotations(path, "Label Studio", names, readers)


def _studio_name(image: str) -> str:
    """The file's own name: uploads get a prefix of eight hexadecimal digits, local files come as ?d=PATH."""
    parts = urlsplit(image)
    local = re.search(r"(?:^|&)d=([^&]+)", parts.query)
    path = PurePosixPath(unquote(local.group(1) if local else parts.path))
    return str(path.with_name(re.sub(r"^[0-9a-f]{8}-", "", path.name)))


def _studio_labels(where: str, result: Any) -> list[str]:
    kind = entry(result, "type", str, where)
    return [str(label) for label in entry(result.get("value"), kind, list, where)]


def _studio_image(where: str, results: list[dict[str, Any]]) -> ImageParts:
    parts: list[Part] = []
    label, size = None, None
    for result in results:
        kind, value = result["type"], result["value"]
        if kind == "choices":
            label = str(value["choices"][0]) if value.get("choices") else label
            continue
        size = check_size(where, result.get("original_height"), result.get("original_width"))
        for name in _studio_labels(where, result):
            parts.append(_studio_part(where, name, kind, value, size))
    return ImageParts(tuple(parts), size, label)


def _studio_part(where: str, name: str, kind: str, value: dict[str, Any], size: tuple[int, int]) -> Part:
    """One result; Label Studio gives places in percent of the image."""
    scale = np.array([size[1], size[0]]) / 100
    if kind == "polygonlabels":
        points = pairs(entry(value, "points", list, where), where)
        return Part(name, mask=polygon_mask(where, np.array(points).reshape(-1, 2) * scale, size))
    if kind == "brushlabels":
        return Part(name, mask=brush_mask(where, entry(value, "rle", list, where), size))
    x, y = np.array([read_number(value.get(axis), where) for axis in ("x", "y")]) * scale
    if kind == "keypointlabels":
        return Part(name, point=(float(x), float(y)))
    if kind == "ellipselabels":
        radii = np.array([read_number(value.get(axis), where) for axis in ("radiusX", "radiusY")]) * scale
        return Part(name, mask=_ellipse([float(x), float(y)], radii.tolist(), size))
    if kind == "rectanglelabels":
        width, height = np.array([read_number(value.get(side), where) for side in ("width", "height")]) * scale
        turned = read_number(value.get("rotation") or 0, where)
        if not turned:
            return Part(name, box=(float(x), float(y), float(x + width), float(y + height)))
        c, s = np.cos(np.radians(turned)), np.sin(np.radians(turned))
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ np.array([[c, s], [-s, c]])
        return Part(name, mask=polygon_mask(where, corners + np.array([x, y]), size))
    raise AnnotationError(f"{where}: results of type '{kind}' are not known; label boxes, polygons, points or brushes")


def read_table(path: Path) -> Annotations:
    """A CSV file of boxes (file, part, x0, y0, x1, y1) or points (file, part, x, y), in pixels of the image.

    Raises:
        AnnotationError: the columns of neither boxes nor points are there.
    """
    boxes: dict[str, list[Part]] = {}
    names: set[str] = set()
    for line, row in read_rows(path, ("file", "part")):
        where = f"{path}:{line}"
        names.add(row["part"])
        if all(side in row for side in ("x0", "y0", "x1", "y1")):
            x0, y0, x1, y1 = (read_number(row[side], where) for side in ("x0", "y0", "x1", "y1"))
            part = Part(row["part"], box=(x0, y0, x1, y1))
        elif "x" in row and "y" in row:
            part = Part(row["part"], point=(read_number(row["x"], where), read_number(row["y"], where)))
        else:
            raise AnnotationError(f"{path}: expected the columns x0, y0, x1, y1 (boxes) or x, y (points)")
        boxes.setdefault(row["file"], []).append(part)
    readers = {name: partial(ImageParts, tuple(parts)) for name, parts in boxes.items()}
    return Annotations(path, "CSV", names, readers)


@layout(50, "CVAT for images (.xml)")
def open_cvat(source: AnnotationSource) -> Annotations | None:
    """Known by its root."""
    root = source.xml
    return read_cvat(source.files[1][0], root) if root is not None and root.tag == "annotations" else None


@layout(65, "boxes or points (.csv)")
def open_table(source: AnnotationSource) -> Annotations | None:
    """Known by the ending."""
    return read_table(source.path) if source.files[0] == ".csv" else None


@layout(70, "Label Studio (.json)")
def open_label_studio(source: AnnotationSource) -> Annotations | None:
    """Known by being a list."""
    return read_label_studio(source.files[1][0], source.json) if isinstance(source.json, list) else None


@layout(80, "LabelMe (.json or a folder of them)")
def open_labelme(source: AnnotationSource) -> Annotations | None:
    """Known by its shapes; a folder of many JSON files can be nothing else."""
    ending, files = source.files
    if ending == ".json" and len(files) > 1:
        return read_labelme(source.path, files)
    known = isinstance(source.json, dict) and "shapes" in source.json
    return read_labelme(files[0], files) if known else None
