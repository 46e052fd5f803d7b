"""Training pictures in the memory of the device that trains: crops, infills, filters and masks without the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..model import InputSpec
from ..runtime.infill import VERIFY
from .batches import JITTERED, ImagePool
from .device_infill import made_infills
from .network import resize
from .options import TrainingOptions, default_crop
from .pictures import Size
from .share import ALONE, Rows, Share

MOST = 20_000
"""Pictures that are held on a device; more are drawn by the host."""

EDGE = 2
"""Pictures are held at up to this many times the longer edge of the input."""

SAMPLES = 4
"""Samples per pixel and axis, at most, where a crop is shrunk: their mean stands for the area average."""


class DevicePictures:
    """Every picture of the pool once, as bytes of one tensor; see `Pictures`.

    Pixels are ``(B, c, H, W)`` float32, whole numbers in 0..255.

    Args:
        pool: training images; one that cannot be read is replaced by the next one that can.
        spec: the model's input.
        device: that trains.
        share: of the worker that trains; every worker holds all pictures.
    """

    def __init__(self, pool: ImagePool, spec: InputSpec, device: torch.device, share: Share = ALONE) -> None:
        self._pool, self._spec, self._device = pool, spec, device
        self._mean = torch.tensor(spec.mean, device=device).view(1, -1, 1, 1)
        self._std = torch.tensor(spec.std, device=device).view(1, -1, 1, 1)
        held = [self._held(index) for index in range(len(pool))]
        self._places = [pool.place(index) for index in range(len(pool))]
        self._sizes = np.array([picture.shape[:2] for picture in held])
        self._starts = np.cumsum([0, *(picture.shape[0] * picture.shape[1] for picture in held)])[:-1]
        flat = np.concatenate([picture.reshape(-1, spec.channels) for picture in held])
        self._flat = torch.from_numpy(flat).to(device)  # (pixels of all pictures, c)

    def _held(self, index: int) -> NDArray[np.uint8]:
        picture = self._pool[index]
        shrink = min(1.0, EDGE * max(self._spec.size) / max(picture.shape[:2]))
        size = (max(1, round(picture.shape[0] * shrink)), max(1, round(picture.shape[1] * shrink)))
        return replace(self._spec, size=size, resize="stretch").fit(picture)[0]

    def draw(
        self, size: Size, count: int, options: TrainingOptions, rng: np.random.Generator
    ) -> tuple[Tensor, list[int]]:
        """See `Pictures`; crops as `random_crop` draws them."""
        smallest = default_crop(len(self._pool)) if options.crop is None else options.crop
        chosen = rng.integers(len(self._pool), size=count)
        whole = self._sizes[chosen]
        area = np.exp(rng.uniform(np.log(smallest), 0.0, count)) * whole.prod(axis=1)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
        cut = np.stack([np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))], axis=1)
        cut = np.clip(cut, 1, whole).astype(np.int64)  # rows, columns
        first = np.floor(rng.random((count, 2)) * (whole - cut + 1)).astype(np.int64)  # top, left
        flip = (rng.random(count) < 0.5) & options.flip
        pixels = self._crops(chosen, first, cut, flip, size)
        return self._jittered(pixels, options.jitter, rng), [self._places[index] for index in chosen]

    def _crops(
        self,
        chosen: NDArray[np.int64],
        first: NDArray[np.int64],
        cut: NDArray[np.int64],
        flip: NDArray[np.bool_],
        size: Size,
    ) -> Tensor:
        """Bilinear samples of the crops, averaged where a crop is shrunk."""
        samples = int(np.clip(np.ceil((cut / np.array(size)).max()), 1, SAMPLES))
        near, far, shares = [], [], []
        for axis, edge in enumerate(size):
            count = samples * edge
            steps = (np.arange(count) + 0.5) / count
            spread = np.where(flip[:, None] & (axis == 1), steps[::-1], steps) * cut[:, axis, None] - 0.5
            place = np.clip(spread, 0, cut[:, axis, None] - 1)
            low = np.floor(place).astype(np.int64)
            high = np.minimum(low + 1, cut[:, axis, None] - 1)
            near.append(first[:, axis, None] + low)
            far.append(first[:, axis, None] + high)
            shares.append((place - low).astype(np.float32))
        start, width = self._starts[chosen][:, None], self._sizes[chosen][:, 1:]
        rows = [torch.from_numpy(start + row * width).to(self._device) for row in (near[0], far[0])]
        columns = [torch.from_numpy(column).to(self._device) for column in (near[1], far[1])]
        down, right = (torch.from_numpy(share).to(self._device) for share in shares)
        right = right[:, None, :, None]
        lines: list[Tensor] = []
        for row in rows:
            left, other = (self._flat[row[:, :, None] + column[:, None, :]].float() for column in columns)
            lines.append(left + right * (other - left))
        sampled = lines[0] + down[:, :, None, None] * (lines[1] - lines[0])  # (B, nH, nW, c)
        made: Tensor = F.avg_pool2d(sampled.permute(0, 3, 1, 2), samples)
        return made.round()

    def _jittered(self, pixels: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
        """As `Jitter`, for half of the crops."""
        count, channels = len(pixels), pixels.shape[1]
        gain = rng.uniform(1 - strength, 1 + strength, size=(count, channels))
        offset = rng.uniform(-255 * strength, 255 * strength, size=(count, 1))
        offset = offset + rng.uniform(-strength, strength, size=(count, channels)) * 32
        same = rng.random((count, 1)) >= JITTERED
        both = np.stack([np.where(same, 1.0, gain), np.where(same, 0.0, offset)]).astype(np.float32)
        gains, offsets = torch.from_numpy(both).to(self._device)[..., None, None]
        changed: Tensor = (pixels * gains + offsets).round().clamp(0, 255)
        return changed

    def normalise(self, pixels: Tensor) -> Tensor:
        """See `Pictures`."""
        made = (pixels * self._spec.scale - self._mean) / self._std
        return made if self._spec.layout == "NCHW" else made.permute(0, 2, 3, 1).contiguous()

    def infills(
        self,
        pixels: Tensor,
        owners: Tensor,
        mix: Mapping[str, float],
        rng: np.random.Generator,
        own: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """See `Pictures`; what is random in an infill is drawn once per image."""
        kinds = list(mix)
        shares = np.array([mix[kind] for kind in kinds], dtype=np.float64)
        drawn = torch.from_numpy(rng.choice(len(kinds), size=len(owners), p=shares / shares.sum())).to(self._device)
        candidates = torch.stack([self.normalise(made) for made in made_infills(pixels, kinds, rng)])
        judged = drawn == kinds.index(VERIFY) if VERIFY in kinds else torch.zeros_like(drawn, dtype=torch.bool)
        if own is not None:
            wanted = torch.as_tensor(own, device=self._device)
            drawn, owners, judged = drawn[wanted], owners[wanted], judged[wanted]
        return candidates[drawn, owners], judged

    def filters(
        self, feature_map: Tensor, count: int, active: int, rng: np.random.Generator, rows: Rows | None = None
    ) -> Tensor:
        """See `Pictures`."""
        rows = rows or ALONE.rows(len(feature_map))
        peaks = feature_map.amax(dim=(-2, -1))
        values, order = torch.sort(peaks, dim=1, descending=True, stable=True)
        among = min(active, values.shape[1])
        alive = (values > 0).sum(dim=1, keepdim=True).clamp(1, among)
        drawn_keys = rng.random((rows.pictures, max(among, count)))[rows.own].astype(np.float32)
        keys = torch.from_numpy(drawn_keys).to(self._device)
        places = torch.arange(keys.shape[1], device=self._device)
        keys = keys + (places >= alive)  # the living ones first, in random order
        drawn = torch.argsort(keys, dim=1)[:, :count]
        return order.gather(1, torch.where(drawn < alive, drawn, drawn % alive))

    def cut(self, rank: Tensor, areas: Tensor, size: Size) -> Tensor:
        """See `Pictures`."""
        flat = resize(rank[:, None], size).flatten(1)
        order = torch.sort(flat, dim=1, stable=True).indices
        kept = torch.round(areas * flat.shape[1])[:, None] > torch.arange(flat.shape[1], device=self._device)
        return torch.zeros_like(flat).scatter_(1, order, kept.to(flat.dtype)).view(-1, *size)


def held_on(device: torch.device, pool: ImagePool) -> bool:
    """Whether the pictures of a pool are to lie in the memory of a device: it is none of the host's, and they fit."""
    return device.type != "cpu" and len(pool) <= MOST
