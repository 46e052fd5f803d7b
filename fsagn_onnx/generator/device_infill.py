"""The infills that do not depend on the mask, made on the device that trains: as `runtime.infill` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..runtime.infill import BLUR_SIGMA, PATCH_SHARE
from .infill import OTHER

Matrix = NDArray[np.float32]


def gaussian_matrix(cells: int, sigma: float) -> NDArray[np.float32]:
    """A Gaussian blur along one axis as a matrix, borders reflected as OpenCV does: ``(cells, cells)``."""
    taps = round(sigma * 6 + 1) | 1  # as many as OpenCV takes for bytes
    kernel = cv2.getGaussianKernel(taps, sigma, cv2.CV_32F)[:, 0]
    padded = np.pad(np.eye(cells, dtype=np.float32), ((taps // 2, taps // 2), (0, 0)), mode="symmetric")
    return np.stack([kernel @ padded[row : row + taps] for row in range(cells)])


@lru_cache(maxsize=16)
def blur_matrix(pixels: int, shorter: int) -> Matrix:
    """The heavy blur of `runtime.infill.blur` along one axis as a matrix ``(pixels, pixels)``.

    All that it does (shrink by 4, Gaussian, enlarge) is linear and separable.

    Args:
        pixels: of the axis.
        shorter: side of the picture, which the standard deviation is a share of.
    """
    step = 4 if shorter >= 32 else 1
    cells = max(1, pixels // step)
    shrink = cv2.resize(np.eye(pixels, dtype=np.float32), (pixels, cells), interpolation=cv2.INTER_AREA)
    enlarge = cv2.resize(np.eye(cells, dtype=np.float32), (cells, pixels), interpolation=cv2.INTER_LINEAR)
    smooth = gaussian_matrix(cells, max(BLUR_SIGMA * shorter / step, 0.3))
    return np.asarray(enlarge.reshape(pixels, cells) @ smooth @ shrink.reshape(cells, pixels), dtype=np.float32)


def blurred(pixels: Tensor) -> Tensor:
    """`runtime.infill.blur` of a batch ``(B, c, H, W)``."""
    rows, columns = pixels.shape[-2:]
    shorter = min(rows, columns)
    down, across = (torch.from_numpy(blur_matrix(edge, shorter)).to(pixels.device) for edge in (rows, columns))
    return down @ pixels @ across.T


def noisy(pixels: Tensor, source: torch.Generator) -> Tensor:
    """`runtime.infill.noise` of a batch."""
    count, channels, rows, columns = pixels.shape
    shape = (count, channels, max(1, rows // 4), max(1, columns // 4))
    grains = torch.randn(shape, generator=source, device=pixels.device)
    coarse = F.interpolate(grains, size=(rows, columns), mode="bilinear", align_corners=False)
    deviation = pixels.std(dim=(-2, -1), correction=0, keepdim=True)
    return pixels.mean(dim=(-2, -1), keepdim=True) + coarse * deviation


def shuffled(pixels: Tensor, source: torch.Generator) -> Tensor:
    """`runtime.infill.shuffle` of a batch, all pictures in one order."""
    height, width = pixels.shape[-2:]
    edge = max(1, min(height, width) // PATCH_SHARE)
    rows, columns = height // edge, width // edge
    made = pixels.clone()
    tiles = pixels[..., : rows * edge, : columns * edge].reshape(*pixels.shape[:2], rows, edge, columns, edge)
    tiles = tiles.transpose(3, 4).flatten(2, 3)  # (B, c, rows columns, edge, edge)
    order = torch.randperm(rows * columns, generator=source, device=pixels.device)
    tiles = tiles[:, :, order].reshape(*pixels.shape[:2], rows, columns, edge, edge).transpose(3, 4)
    made[..., : rows * edge, : columns * edge] = tiles.reshape(*pixels.shape[:2], rows * edge, columns * edge)
    return made


def made_infills(pixels: Tensor, kinds: Sequence[str], rng: np.random.Generator) -> list[Tensor]:
    """One infill of each kind for every picture of a batch.

    Args:
        pixels: ``(B, c, H, W)`` in 0..255.
        kinds: names of `MASK_FREE`, or ``other``.
        rng: seeds what is random.

    Returns:
        For each kind ``(B, c, H, W)``, whole numbers in 0..255.

    Raises:
        UsageError: there is no such infill.
    """
    source = torch.Generator(pixels.device).manual_seed(int(rng.integers(2**62)))
    away = torch.from_numpy(1 + rng.integers(max(1, len(pixels) - 1), size=len(pixels))).to(pixels.device)
    others = (torch.arange(len(pixels), device=pixels.device) + away) % len(pixels)
    made = []
    for kind in kinds:
        if kind == OTHER:
            filled = pixels[others]
        elif kind == "blur":
            filled = blurred(pixels)
        elif kind == "mean":
            filled = pixels.mean(dim=(-2, -1), keepdim=True).expand_as(pixels)
        elif kind == "noise":
            filled = noisy(pixels, source)
        elif kind == "shuffle":
            filled = shuffled(pixels, source)
        else:
            raise UsageError(f"no infill {kind!r} on the device that trains")
        made.append(filled.round().clamp(0, 255))
    return made
