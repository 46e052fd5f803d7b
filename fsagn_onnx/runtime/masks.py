"""Area ranks and the pixel masks cut from them (numpy and OpenCV only).

Convention everywhere: **1 = keep**; small rank = kept first; half-pixel centres when a map is resized, which is
what onnx calls ``half_pixel``, torch ``align_corners=False`` and OpenCV ``INTER_LINEAR``.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

FloatMap = NDArray[np.float32]
Mask = NDArray[np.bool_]

AUC_AREAS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Areas of every AUC."""

COMMON_CELL = 8
"""Edge in input pixels of the cells of the common granularity, at which every mask metric is taken."""


def area_rank(saliency: NDArray[np.floating]) -> FloatMap:
    """Rank the cells of each map: R = i / (h w), i = 1 for the most salient cell, ties by position.

    Args:
        saliency: ``(..., h, w)``, higher is kept first.

    Returns:
        ``(..., h, w)`` float32 in (0, 1], a permutation of ``{1, ..., h w} / (h w)`` per map.
    """
    flat = saliency.reshape(*saliency.shape[:-2], -1)
    order = np.argsort(-flat, axis=-1, kind="stable")
    cells = flat.shape[-1]
    ranks = np.empty(flat.shape, dtype=np.float32)
    np.put_along_axis(ranks, order, (np.arange(1, cells + 1) / cells).astype(np.float32), axis=-1)
    return ranks.reshape(saliency.shape)


def from_rank(rank: NDArray[np.floating]) -> FloatMap:
    """A saliency map with the order of an area rank: -log R.

    Whatever averages neighbours (a Gaussian, a coarser grid) needs a scale, and ranks have none of their own: on that
    of R a narrow area loses its place to the middle of the wide one around it. Budgets are drawn log-uniformly in
    training; on this scale they lie evenly.

    Args:
        rank: ``(..., h, w)`` in (0, 1].

    Returns:
        ``(..., h, w)`` float32, at least 0; higher is kept first.
    """
    return np.asarray(-np.log(rank), dtype=np.float32)


def upsample(maps: NDArray[np.floating], size: tuple[int, int]) -> FloatMap:
    """Resize maps bilinearly with half-pixel centres.

    Args:
        maps: ``(..., h, w)``.
        size: ``(H, W)`` in pixels.

    Returns:
        ``(..., H, W)`` float32.
    """
    height, width = size
    flat = np.ascontiguousarray(maps, dtype=np.float32).reshape(-1, *maps.shape[-2:])
    resized = np.empty((len(flat), height, width), dtype=np.float32)
    for index, single in enumerate(flat):
        resized[index] = cv2.resize(single, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*maps.shape[:-2], height, width)


def pixel_mask(rank: NDArray[np.floating], area: float, size: tuple[int, int]) -> Mask:
    """The mask of area a: the round(a H W) pixels with the smallest upsampled rank, ties by position.

    Args:
        rank: ``(h, w)`` area rank on the generator's grid, smaller is kept first.
        area: share a of the pixels to keep, in [0, 1].
        size: ``(H, W)`` in pixels.

    Returns:
        ``(H, W)`` bool with exactly ``round(area * H * W)`` True values.

    Raises:
        UsageError: if ``area`` is not in [0, 1].
    """
    if not 0.0 <= area <= 1.0:
        raise UsageError(f"area must be in [0, 1], but got {area}")
    pixels = upsample(rank, size).ravel()
    count = round(area * pixels.size)
    if count == 0:
        return np.zeros(size, dtype=np.bool_)
    threshold = np.partition(pixels, count - 1)[count - 1]
    mask: Mask = pixels <= threshold
    if (spare := np.count_nonzero(mask) - count) > 0:
        mask[np.flatnonzero(pixels == threshold)[-spare:]] = False
    return mask.reshape(size)


def grid_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Cells ``(h, w)`` of a grid of ``stride`` pixels over an input of ``size`` pixels: at least one each way."""
    return max(1, round(size[0] / stride)), max(1, round(size[1] / stride))


def grid_stride(size: tuple[int, int]) -> int:
    """Stride of the masks' grid: 8 pixels, or 4 for inputs under 112 pixels. Finer maps learn pixel noise."""
    return 8 if min(size) >= 112 else 4


def common_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Cells ``(h, w)`` of the common granularity for an input of ``size`` pixels, at least one each way."""
    return grid_of(size, COMMON_CELL)


def to_grid(saliency: NDArray[np.floating], grid: tuple[int, int]) -> FloatMap:
    """Bring maps to a grid and smooth them: area average (finer maps) or bilinear (coarser), Gaussian of one cell.

    Args:
        saliency: ``(..., h', w')`` at any resolution.
        grid: ``(h, w)`` cells.

    Returns:
        ``(..., h, w)`` float32; the border is continued by reflection.
    """
    rows, columns = grid
    flat = np.ascontiguousarray(saliency, dtype=np.float32).reshape(-1, *saliency.shape[-2:])
    maps = np.empty((len(flat), rows, columns), dtype=np.float32)
    for index, single in enumerate(flat):
        shrinks = single.shape[0] > rows or single.shape[1] > columns
        cells = cv2.resize(single, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        maps[index] = cv2.GaussianBlur(cells, (0, 0), sigmaX=1.0, borderType=cv2.BORDER_REFLECT)
    return maps.reshape(*saliency.shape[:-2], rows, columns)


def to_common_granularity(saliency: NDArray[np.floating], size: tuple[int, int]) -> FloatMap:
    """Bring any method's map to the common granularity, so that none wins by fine scatter alone.

    Args:
        saliency: ``(..., h, w)`` at any resolution.
        size: ``(H, W)``, the model's input in pixels.

    Returns:
        ``(..., H/8, W/8)`` float32, smoothed by a Gaussian of one cell.
    """
    return to_grid(saliency, common_grid(size))
