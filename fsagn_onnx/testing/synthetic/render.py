"""One synthetic picture from one seed, with any part removed or exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .objects import CLASSES, PARTS, check_part, check_variant, variants_of
from .raster import Matrix, draw
from .scene import choose_style, light, paint_ground, scatter_clutter
from .shapes import DRAWING_ORDER, EXTENT, pieces

SIZE: Final = 128  # pixels, for which scales and outline widths are given
_MARGIN: Final = 2.0  # pixels between the object and the border of the picture


@dataclass(frozen=True)
class Sample:
    """A synthetic picture and the truth about it.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        label: the class that the seed stands for; removing or exchanging parts does not change it.
        parts: part type -> bool (H, W), the pixels that the part covers visibly by more than half.
        extents: part type -> bool (H, W), every pixel that the part touches, hidden ones too. Removing the
            part changes pixels inside its extent only.
        variants: part type -> variant, of the parts that are drawn.
        seed: `render(seed)` gives the picture again.
    """

    image: npt.NDArray[np.uint8]
    label: int
    parts: dict[str, npt.NDArray[np.bool_]]
    extents: dict[str, npt.NDArray[np.bool_]]
    variants: dict[str, str]
    seed: int


def _pose(rng: np.random.Generator, size: int) -> Matrix:
    """A random similarity with a little shear, which keeps the whole object in the picture."""
    unit = size * rng.uniform(0.37, 0.5)
    angle = np.radians(rng.uniform(-22, 22))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    form = np.array([[flip * rng.uniform(0.93, 1.07), rng.uniform(-0.08, 0.08)], [0.0, rng.uniform(0.93, 1.07)]])
    turn = unit * spin @ form
    x0, y0, x1, y1 = EXTENT
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) @ turn.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    slack = size - 2 * _MARGIN - (high - low)
    if slack.min() < 0:  # a turned large object: shrink it to fit
        shrink = (size - 2 * _MARGIN) / float((high - low).max())
        turn, low, high = turn * shrink, low * shrink, high * shrink
        slack = np.maximum(size - 2 * _MARGIN - (high - low), 0)
    place = _MARGIN - low + slack * rng.random(2)
    return np.concatenate([turn, place[:, None]], axis=1)


def _variants(label: int, remove: str | None, exchange: Mapping[str, str] | None) -> dict[str, str]:
    """The variants to draw.

    Raises:
        UsageError: an unknown part or variant.
    """
    variants = variants_of(label)
    for part, variant in (exchange or {}).items():
        variants[part] = check_variant(part, variant)
    if remove is not None:
        del variants[check_part(remove)]
    return variants


def render(
    seed: int, *, size: int = SIZE, remove: str | None = None, exchange: Mapping[str, str] | None = None
) -> Sample:
    """Render the picture of a seed.

    The class is seed modulo the number of classes. No random choice depends on `remove` or `exchange`, so
    pixels outside the extents of the named parts are identical to the unchanged picture.

    Args:
        seed: 0 or more; the same seed gives the same picture.
        size: height and width in pixels.
        remove: the part type to leave out.
        exchange: part type -> the variant to draw in place of the class's own.

    Raises:
        UsageError: an unknown part type or variant.
    """
    label = seed % len(CLASSES)
    variants = _variants(label, remove, exchange)
    rng = np.random.default_rng(seed)
    jitters = dict(zip(PARTS, rng.random((len(PARTS), 8)), strict=True))
    style = choose_style(rng)
    matrix = _pose(rng, size)
    canvas = paint_ground(rng, size, style)
    unit = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    scatter_clutter(rng, canvas, style, unit)

    visible = np.zeros((len(PARTS), size, size), dtype=np.float32)
    extents: dict[str, npt.NDArray[np.bool_]] = {}
    for part in (part for part in DRAWING_ORDER if part in variants):
        drawn = pieces(part, variants[part], jitters[part])
        tile = draw(drawn, matrix, style.parts[part], size, style.edge * size / SIZE)
        extents[part] = np.zeros((size, size), dtype=np.bool_)
        if tile is None:
            continue
        tile.paste(canvas)
        visible[:, tile.rows, tile.columns] *= 1 - tile.alpha
        visible[PARTS.index(part), tile.rows, tile.columns] = tile.alpha
        extents[part][tile.rows, tile.columns] = tile.alpha > 0
    parts = {part: visible[PARTS.index(part)] > 0.5 for part in PARTS if part in variants}
    return Sample(light(rng, canvas), label, parts, extents, variants, seed)
