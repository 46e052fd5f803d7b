"""Infills: the image b that shows through where a mask is 0, x' = m x + (1 - m) b.

All act on 8-bit pixels at the model's input size, before normalisation, so that training, verification and
evaluation share one definition. ``inpaint`` depends on the mask and is kept out of every training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

BLUR_SIGMA = 0.08
"""Standard deviation of the blur as a share of the shorter side."""

PATCH_SHARE = 14
"""The patch shuffle cuts the shorter side into about this many patches."""


def _shaped(pixels: NDArray[np.generic], like: Pixels) -> Pixels:
    return np.clip(np.rint(np.asarray(pixels, dtype=np.float32)), 0, 255).astype(np.uint8).reshape(like.shape)


def _statistics(image: Pixels) -> tuple[NDArray[np.floating | np.integer], NDArray[np.floating | np.integer]]:
    """Mean and standard deviation of each channel, ``(c,)``; five times as fast as numpy's."""
    average, deviation = cv2.meanStdDev(image)
    return average[:, 0], deviation[:, 0]


def blur(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Heavy Gaussian blur, sigma = 8 % of the shorter side, computed on a four times smaller picture."""
    height, width = image.shape[:2]
    sigma = BLUR_SIGMA * min(height, width)
    step = 4 if min(height, width) >= 32 else 1
    small = cv2.resize(image, (max(1, width // step), max(1, height // step)), interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(small, (0, 0), sigmaX=max(sigma / step, 0.3), borderType=cv2.BORDER_REFLECT)
    return _shaped(cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR), image)


def mean(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture's own mean colour."""
    return _shaped(np.broadcast_to(_statistics(image)[0], image.shape), image)


def noise(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Coloured noise of the picture's own mean and standard deviation, in grains of a few pixels."""
    height, width = image.shape[:2]
    grains = _drawn_grains(image.shape, rng).astype(np.float32)
    coarse = cv2.resize(grains, (width, height), interpolation=cv2.INTER_LINEAR).reshape(image.shape)
    average, deviation = _statistics(image)
    return _shaped(average + coarse * deviation, image)


def shuffle(image: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture's own square patches in random order."""
    channels = image.shape[2]
    edge, rows, columns = _patches(image.shape)
    shuffled = image.copy()
    tiles = image[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge, channels).swapaxes(1, 2)
    tiles = tiles.reshape(rows * columns, edge, edge, channels)[_drawn_order(image.shape, rng)]
    tiles = tiles.reshape(rows, columns, edge, edge, channels).swapaxes(1, 2)
    shuffled[: rows * edge, : columns * edge] = tiles.reshape(rows * edge, columns * edge, channels)
    return shuffled


def _drawn_grains(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    height, width, channels = shape
    return rng.standard_normal((max(1, height // 4), max(1, width // 4), channels))


def _patches(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Edge of the patches of `shuffle`, and how many there are downwards and across."""
    height, width = shape[:2]
    edge = max(1, min(height, width) // PATCH_SHARE)
    return edge, height // edge, width // edge


def _drawn_order(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
    _, rows, columns = _patches(shape)
    return rng.permutation(rows * columns)


MASK_FREE: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = MappingProxyType(
    {"blur": blur, "mean": mean, "noise": noise, "shuffle": shuffle}
)
"""Infills that do not depend on the mask: training may draw on these."""

RANDOM: Mapping[str, Callable[[tuple[int, ...], np.random.Generator], object]] = MappingProxyType(
    {"noise": _drawn_grains, "shuffle": _drawn_order}
)
"""Those of them that draw on the source of randomness, with what they draw for a picture of a shape ``(H, W, c)``."""

VERIFY = "blur"
"""The infill under which `explain --measure` measures retention and the retention head learns to predict it."""

HELD_OUT = "inpaint"
"""The infill that no training ever sees."""

SEED = 0
"""Seed of random infills where pictures are masked to measure something."""


def inpaint(image: Pixels, mask: Mask) -> Pixels:
    """Fill the removed area from the kept one by Telea's fast marching method (J. Graphics Tools 2004).

    Computed on a picture four times smaller (the fill is smooth anyway); an empty mask gives the mean colour.

    Args:
        image: ``(H, W, c)``, c = 1, 3 or 4.
        mask: ``(H, W)``, True = kept.

    Returns:
        ``(H, W, c)``, the infill; kept pixels are those of the image.
    """
    height, width, channels = image.shape
    if not mask.any():
        return mean(image, np.random.default_rng(0))
    small_size = (max(1, width // 4), max(1, height // 4))
    kept_share = cv2.resize(mask.astype(np.float32), small_size, interpolation=cv2.INTER_AREA)
    weighted = cv2.resize(image.astype(np.float32) * mask[..., None], small_size, interpolation=cv2.INTER_AREA)
    weighted = weighted.reshape(*kept_share.shape, channels)
    small = _shaped(weighted / np.maximum(kept_share, 1e-6)[..., None], weighted.astype(np.uint8))
    holes = (kept_share < 1e-6).astype(np.uint8)
    planes = [cv2.inpaint(np.ascontiguousarray(small[..., i]), holes, 3, cv2.INPAINT_TELEA) for i in range(channels)]
    filled = cv2.resize(np.stack(planes, axis=-1), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(mask[..., None], image, filled.reshape(image.shape))


def infill(kind: str, image: Pixels, mask: Mask, rng: np.random.Generator) -> Pixels:
    """The infill of a kind for an image and a mask.

    Args:
        kind: ``blur``, ``mean``, ``noise``, ``shuffle`` or ``inpaint``.
        image: ``(H, W, c)`` 8-bit pixels at the model's input size.
        mask: ``(H, W)`` bool, True = kept; only ``inpaint`` looks at it.
        rng: source of randomness of ``noise`` and ``shuffle``.

    Returns:
        ``(H, W, c)`` 8-bit pixels.

    Raises:
        UsageError: if there is no such infill.
    """
    if kind == HELD_OUT:
        return inpaint(image, mask)
    if kind not in MASK_FREE:
        raise UsageError(f"no infill {kind!r}; there are {', '.join((*MASK_FREE, HELD_OUT))}")
    return MASK_FREE[kind](image, rng)


def masked_images(pixels: Pixels, masks: Sequence[Mask], kind: str | Pixels = VERIFY) -> Pixels:
    """Masked pictures x' = m x + (1 - m) b; an infill that does not look at the mask is made once.

    Args:
        pixels: ``(H, W, c)``, x.
        masks: M of ``(H, W)``, True = kept.
        kind: of infill, see `infill`; or the picture b itself.

    Returns:
        ``(M, H, W, c)``.

    Raises:
        UsageError: if there is no such infill.
    """
    if isinstance(kind, str) and kind == HELD_OUT:
        return np.stack([inpaint(pixels, mask) for mask in masks])
    behind = kind
    if isinstance(behind, str):
        behind = infill(behind, pixels, np.zeros(pixels.shape[:2], dtype=np.bool_), np.random.default_rng(SEED))
    return np.stack([np.where(mask[..., None], pixels, behind) for mask in masks])
