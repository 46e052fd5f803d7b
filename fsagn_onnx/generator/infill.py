"""Infills in training: drawn per pair from those that do not depend on the mask, and other images of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..model import InputSpec
from ..runtime.infill import HELD_OUT, MASK_FREE, RANDOM

if TYPE_CHECKING:
    from .batches import Crops

OTHER = "other"
"""Another image of the batch as infill."""

DEFAULT_MIX: Mapping[str, float] = {"blur": 0.35, "mean": 0.25, "noise": 0.2, OTHER: 0.2}
"""Shares in which training draws infills: led by blur and mean. ``shuffle`` and ``inpaint`` stay unseen."""


def check_mix(mix: Mapping[str, float]) -> None:
    """Refuse infills that do not exist or that every test keeps for itself.

    Raises:
        UsageError: naming the infill.
    """
    for kind, share in mix.items():
        if kind == HELD_OUT:
            raise UsageError(f"infill {kind!r} is kept out of every training, so that it can test all of them")
        if kind != OTHER and kind not in MASK_FREE:
            raise UsageError(f"no infill {kind!r} to train with; there are {', '.join((*MASK_FREE, OTHER))}")
        if share < 0:
            raise UsageError(f"the share of infill {kind!r} must not be negative, but got {share}")
    if not sum(mix.values()) > 0:
        raise UsageError("the shares of the infills must add up to more than 0")


def draw_infills(
    pixels: NDArray[np.uint8] | Crops,
    owners: Sequence[int],
    mix: Mapping[str, float],
    spec: InputSpec,
    rng: np.random.Generator,
    own: NDArray[np.int64] | None = None,
) -> tuple[Tensor, list[str]]:
    """One infill per pair, normalised as the model's input.

    Args:
        pixels: ``(B, H, W, c)`` the batch's images, as far as the wanted pairs need them.
        owners: for each of the P pairs, the index of its image.
        mix: shares by kind.
        spec: the model's input.
        rng: source of randomness.
        own: numbers of the pairs whose infills are wanted, rising; None: all. The others are drawn like them.

    Returns:
        ``(P, ...)`` float32 in the model's layout, and the P kinds that were drawn; of the wanted pairs.
    """
    kinds = list(mix)
    shares = np.array([mix[kind] for kind in kinds], dtype=np.float64)
    drawn = rng.choice(len(kinds), size=len(owners), p=shares / shares.sum())
    wanted = dict.fromkeys(range(len(owners)) if own is None else own.tolist())
    chosen = np.empty((len(wanted), *pixels.shape[1:]), dtype=np.uint8)
    places = iter(range(len(wanted)))
    for pair, (owner, index) in enumerate(zip(owners, drawn, strict=True)):
        kind = kinds[index]
        other = int(owner + 1 + rng.integers(max(1, len(pixels) - 1))) % len(pixels) if kind == OTHER else 0
        if pair in wanted:
            made = pixels[other] if kind == OTHER else MASK_FREE[kind](pixels[owner], rng)
            chosen[next(places)] = made
        elif kind in RANDOM:
            RANDOM[kind](pixels.shape[1:], rng)  # so that the next pair draws what it would have drawn
    return torch.from_numpy(spec.normalise(chosen)), [kinds[drawn[pair]] for pair in wanted]


def blend(images: Tensor, infills: Tensor, masks: Tensor, layout: str) -> Tensor:
    """The masked image x' = m x + (1 - m) b.

    Args:
        images: ``(P, ...)`` in the model's layout.
        infills: like ``images``.
        masks: ``(P, H, W)`` in [0, 1], 1 = keep.
        layout: ``NCHW`` or ``NHWC``.

    Returns:
        Like ``images``; where the mask is 1 it is the image.
    """
    spread = masks[:, None] if layout == "NCHW" else masks[..., None]
    return infills + spread * (images - infills)
