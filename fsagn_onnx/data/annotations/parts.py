"""The one form of part annotations, whatever they were read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import AnnotationError
from ...model.geometry import Geometry
from ..images import MAX_PIXELS

Mask = NDArray[np.bool_]
Box = tuple[float, float, float, float]
Point = tuple[float, float]

POINT_RADIUS: Final = 1 / 16
"""Radius of the disc that stands for a point, as a share of the image's shorter side."""


@dataclass(frozen=True, eq=False)
class Part:
    """One annotated part of one image; exactly one of mask, box and point is there.

    Attributes:
        name: the part's name, equal in all images.
        mask: bool (H0, W0), the part's pixels in the original image.
        box: (x0, y0, x1, y1) in pixels of the original, half open.
        point: (x, y) in pixels of the original.
    """

    name: str
    mask: Mask | None = None
    box: Box | None = None
    point: Point | None = None

    @property
    def kind(self) -> str:
        """``mask``, ``box`` or ``point``."""
        return "mask" if self.mask is not None else "box" if self.box is not None else "point"

    def pixels(self, size: tuple[int, int]) -> Mask:
        """The part as bool (H0, W0): a box is filled, a point is a disc of `POINT_RADIUS`.

        Raises:
            AnnotationError: a mask of another size than the image.
        """
        if self.mask is not None:
            if self.mask.shape != size:
                raise AnnotationError(
                    f"part '{self.name}': its mask is {self.mask.shape[1]} x {self.mask.shape[0]} pixels, its image "
                    f"{size[1]} x {size[0]}; both must have the same size"
                )
            return self.mask
        rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            return (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
        x, y = self.point or (0.0, 0.0)
        radius = max(POINT_RADIUS * min(size), 0.75)
        return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2

    def centre(self, size: tuple[int, int]) -> Point | None:
        """(x, y) of the middle of the part in pixels of the original; None where it has no pixels."""
        if self.point is not None:
            return self.point
        rows, columns = np.nonzero(self.pixels(size))
        return (float(columns.mean() + 0.5), float(rows.mean() + 0.5)) if rows.size else None


@dataclass(frozen=True, eq=False)
class ImageParts:
    """The annotated parts of one image.

    Attributes:
        parts: the parts; a name may come several times.
        size: (H0, W0) as the annotation says, or None where it does not.
        label: the image's class as the annotation says, or None.
        seed: of a picture of the synthetic set, or None.
    """

    parts: tuple[Part, ...]
    size: tuple[int, int] | None = None
    label: str | None = None
    seed: int | None = None

    def masks(self, size: tuple[int, int]) -> dict[str, Mask]:
        """Name -> pixels (H0, W0), in the order of appearance; parts of one name are joined.

        Raises:
            AnnotationError: a mask of another size than the image.
        """
        joined: dict[str, Mask] = {}
        for part in self.parts:
            pixels = part.pixels(size)
            joined[part.name] = joined[part.name] | pixels if part.name in joined else pixels
        return joined


def largest(masks: Mapping[str, Mask], most: int) -> dict[str, tuple[Mask, int]]:
    """The largest masks that have any pixels, at most so many: name -> mask and pixels, sorted by name."""
    sizes = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    chosen = sorted((name for name in masks if sizes[name]), key=lambda name: (-sizes[name], name))[:most]
    return {name: (masks[name], sizes[name]) for name in sorted(chosen)}


class Annotations:
    """Parts of many images, each read when it is asked for.

    Attributes:
        source: the file or folder.
        layout: its layout in words.
        names: names of all parts, sorted.

    Args:
        source: see above.
        layout: see above.
        names: names of all parts.
        readers: path of an image, as the annotations give it -> what reads its parts.

    Raises:
        AnnotationError: there are no images or no parts.
    """

    def __init__(
        self, source: Path, layout: str, names: Iterable[str], readers: Mapping[str, Callable[[], ImageParts]]
    ) -> None:
        self.source, self.layout = source, layout
        self.names: tuple[str, ...] = tuple(sorted(set(names)))
        self._readers = dict(readers)
        if not self._readers or not self.names:
            what = "image" if not self._readers else "part"
            raise AnnotationError(f"{source}: {layout} annotations without a single {what}; expected at least one")
        self._by_stem: dict[str, list[str]] = {}
        for key in self._readers:
            self._by_stem.setdefault(PurePath(key.replace("\\", "/")).stem, []).append(key)

    def __len__(self) -> int:
        return len(self._readers)

    def find(self, path: str | Path) -> ImageParts | None:
        """The parts of an image, or None where it is not annotated.

        Images are matched by the end of their path: file name without ending, then as many folders as agree.

        Raises:
            AnnotationError: two annotations fit equally well, or the one that fits cannot be read.
        """
        wanted = PurePath(path)
        keys = self._by_stem.get(wanted.stem, [])
        if not keys:
            return None
        if len(keys) > 1:
            agreeing = [_agreement(PurePath(key.replace("\\", "/")), wanted) for key in keys]
            best = max(agreeing)
            keys = [key for key, score in zip(keys, agreeing, strict=True) if score == best]
            if len(keys) > 1:
                raise AnnotationError(
                    f"{self.source}: '{keys[0]}' and '{keys[1]}' both fit image {path}; give the images in the folders "
                    "that the annotations name"
                )
        return self._readers[keys[0]]()


def _agreement(key: PurePath, wanted: PurePath) -> tuple[int, bool]:
    """How many folders agree, counted from the file, and whether the endings do."""
    folders = 0
    for a, b in zip(reversed(key.parts[:-1]), reversed(wanted.parts[:-1]), strict=False):
        if a != b:
            break
        folders += 1
    return folders, key.suffix.lower() == wanted.suffix.lower()


def check_size(source: object, height: object, width: object) -> tuple[int, int]:
    """(H0, W0) as whole numbers within the limit of images.

    Raises:
        AnnotationError: they are not, or the image would be too large.
    """
    try:
        size = int(str(height)), int(str(width))
    except ValueError:
        size = (0, 0)
    if not (size[0] > 0 and size[1] > 0 and size[0] * size[1] <= MAX_PIXELS):
        raise AnnotationError(
            f"{source}: height and width must be whole numbers > 0 and at most {MAX_PIXELS} pixels together, "
            f"but are {height!r} and {width!r}"
        )
    return size


def polygon_mask(source: object, points: object, size: tuple[int, int]) -> Mask:
    """The filled polygon, bool (H0, W0); points are (x, y), clipped to the image.

    Raises:
        AnnotationError: no list of number pairs.
    """
    try:
        corners = np.asarray(points, dtype=np.float64).reshape(-1, 2)  # COCO lists x, y, x, y, ...
    except (TypeError, ValueError):
        corners = np.zeros((0, 2))
    if not len(corners) or not np.isfinite(corners).all():
        raise AnnotationError(f"{source}: a polygon must be a list of (x, y) pairs, but is {str(points)[:60]!r}")
    height, width = size
    clipped = np.clip(corners, [0, 0], [width, height]) - 0.5
    canvas = np.zeros(size, dtype=np.uint8)
    shift = 4
    fixed = np.rint(clipped * 2**shift).astype(np.int32)
    cv2.fillPoly(canvas, [fixed[:, None]], 1, lineType=cv2.LINE_8, shift=shift)
    return canvas.astype(np.bool_)


def cell_coverage(masks: Mask, geometry: Geometry, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Share of each cell of a grid over the model's input that masks of the original image cover.

    Args:
        masks: bool (n, H0, W0) on the original.
        geometry: between the model's input and the original.
        grid: (h, w) cells.

    Returns:
        float32 (n, h, w) in [0, 1]; 0 where the input shows no part of the original (letterbox borders).
    """
    height, width = geometry.size
    centres = geometry.points_to_original(np.stack([np.arange(max(height, width)) + 0.5] * 2, axis=1))
    columns = np.floor(centres[:width, 0]).astype(np.int64)
    rows = np.floor(centres[:height, 1]).astype(np.int64)
    kept_rows = np.flatnonzero((rows >= 0) & (rows < masks.shape[1]))
    kept_columns = np.flatnonzero((columns >= 0) & (columns < masks.shape[2]))
    chosen_rows, chosen_columns = rows[kept_rows], columns[kept_columns]
    seen = _taken(_taken(masks, chosen_rows, 1), chosen_columns, 2).astype(np.float32)
    down, across = _shares(height, grid[0])[:, kept_rows], _shares(width, grid[1])[:, kept_columns]
    narrow = (seen.reshape(-1, len(chosen_columns)) @ across.T).reshape(*seen.shape[:2], grid[1])  # one large product
    counted = np.asarray(down @ narrow, dtype=np.float32)
    return np.asarray(counted * np.float32(grid[0] * grid[1] / (height * width)))


def _taken(masks: Mask, places: NDArray[np.int64], axis: int) -> Mask:
    """``masks.take``, which costs nothing where it would take everything."""
    return masks if np.array_equal(places, np.arange(masks.shape[axis])) else masks.take(places, axis=axis)


@lru_cache(maxsize=16)
def _shares(pixels: int, cells: int) -> NDArray[np.float32]:
    """(cells, pixels): how much of a pixel lies in a cell, along one axis."""
    edges, starts = np.arange(cells + 1) * (pixels / cells), np.arange(pixels)
    within = np.minimum(edges[1:, None], starts[None] + 1) - np.maximum(edges[:-1, None], starts[None])
    shares: NDArray[np.float32] = np.maximum(within, 0).astype(np.float32)
    return shares
