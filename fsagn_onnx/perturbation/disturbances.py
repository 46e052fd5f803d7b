"""Small disturbances of an image, each at three strengths, and the regions that they are compared in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

LEVELS: Final = 3
"""Strengths of every disturbance, 1 the weakest."""
REGIONS: Final = ("inside", "control", "control_2", "complement")
"""The region itself, two area-matched random regions, and everything but the region."""

_BLUR: Final = (0.02, 0.04, 0.08)  # standard deviation, share of the shorter side
_NOISE: Final = (15.0, 35.0, 70.0)  # standard deviation in 0..255
_BRIGHTNESS: Final = (30.0, 60.0, 100.0)  # added in 0..255, away from the nearer end
_HUE: Final = (30, 60, 90)  # OpenCV's hue has 180 steps
_OCCLUSION: Final = (0.4, 0.7, 1.0)  # share of the picture's mean colour
_SHIFT: Final = (2, 4, 8)  # pixels


Disturb = Callable[[Pixels, int, np.random.Generator], Pixels]
KINDS: Final[dict[str, Disturb]] = {}
"""Disturbances by name: (pixels, level 0..2, rng) -> disturbed pixels, all uint8 (H, W, c)."""


def disturbance(name: str) -> Callable[[Disturb], Disturb]:
    """Register a disturbance under its name on the command line; those of a run follow the order of this file."""

    def register(disturb: Disturb) -> Disturb:
        KINDS[name] = disturb
        return disturb

    return register


def _uint8(values: NDArray[np.floating], like: Pixels) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8).reshape(like.shape)


@disturbance("blur")
def _blur(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    sigma = _BLUR[level] * min(pixels.shape[:2])
    smooth = cv2.GaussianBlur(pixels, (0, 0), sigmaX=max(sigma, 0.4), borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth, dtype=np.uint8).reshape(pixels.shape)


@disturbance("noise")
def _noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    grains = rng.standard_normal(pixels.shape, dtype=np.float32)
    return _uint8(pixels + np.float32(_NOISE[level]) * grains, pixels)


@disturbance("brightness")
def _brightness(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    up = float(pixels.mean()) < 128
    return _uint8(pixels.astype(np.float32) + np.float32(_BRIGHTNESS[level] if up else -_BRIGHTNESS[level]), pixels)


@disturbance("hue")
def _hue(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    if pixels.shape[2] != 3:
        return pixels  # gray pictures have no hue: the effect is 0
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + _HUE[level]) % 180
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), dtype=np.uint8)


@disturbance("occlusion")
def _occlusion(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    share = np.float32(_OCCLUSION[level])
    return _uint8(pixels * (1 - share) + share * pixels.mean(axis=(0, 1)), pixels)


@disturbance("shift")
def _shift(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    dy, dx = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])[rng.integers(4)] * _SHIFT[level]
    matrix = np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float32)
    moved = cv2.warpAffine(pixels, matrix, pixels.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.uint8).reshape(pixels.shape)


def chosen_kinds(names: str) -> tuple[str, ...]:
    """Disturbances out of ``all`` or a list with commas.

    Raises:
        UsageError: no such disturbance.
    """
    asked = tuple(KINDS) if names == "all" else tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    if unknown := [name for name in asked if name not in KINDS]:
        raise UsageError(f"no disturbance '{unknown[0]}'; there are {', '.join(KINDS)}")
    return asked


def moved_region(mask: Mask, rng: np.random.Generator, tries: int = 24) -> Mask:
    """A random region of the same area and form: the mask turned over and moved around the picture's edges.

    Of up to 24 draws the first that overlaps the mask by at most a quarter, else the one that overlaps least.
    """
    best, least = mask, 2.0
    total = max(int(mask.sum()), 1)
    for _ in range(tries):
        moved = mask[:: int(rng.choice((-1, 1))), :: int(rng.choice((-1, 1)))]
        moved = np.roll(moved, (int(rng.integers(mask.shape[0])), int(rng.integers(mask.shape[1]))), axis=(0, 1))
        overlap = float((moved & mask).sum()) / total
        if overlap < least:
            best, least = moved, overlap
        if overlap <= 0.25:
            break
    return best


def disturbed(pixels: Pixels, mask: Mask, kinds: tuple[str, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Every disturbance at every strength in every region.

    Args:
        pixels: uint8 (H, W, c), fitted to the model's input.
        mask: bool (H, W), the region.
        kinds: names of D disturbances.
        rng: of control regions, noise and shifts.

    Returns:
        uint8 (D, LEVELS, len(REGIONS), H, W, c).
    """
    regions = np.stack([mask, moved_region(mask, rng), moved_region(mask, rng), ~mask])[..., None]
    results = np.empty((len(kinds), LEVELS, len(REGIONS), *pixels.shape), dtype=np.uint8)
    for d, kind in enumerate(kinds):
        for level in range(LEVELS):
            results[d, level] = np.where(regions, KINDS[kind](pixels, level, rng), pixels)
    return results
