"""`optimise`: per-image optimisation of each filter's mask, several infills (Fong & Vedaldi 2017; Fong et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..conversion import convert
from ..generator.area import soft_mask, standardise
from ..generator.infill import blend
from ..generator.network import FLOOR, gaussian_kernel, resize
from ..generator.objective import (
    Objective,
    ObjectiveName,
    budget_loss,
    contrast_loss,
    crosswise_change,
    fsagn_loss,
)
from ..model import Model
from ..runtime.infill import MASK_FREE
from ..runtime.masks import grid_of, grid_stride
from .interface import Passes, own_maps

METHODS: Final = {"optimise": "Optimise", "optimise-fsagn": "optimise_fsagn"}
NEEDS: Final = {"torch": "pip install 'fsagn-onnx[train]', or use activation or rise"}

STEPS = 80
INFILLS = ("blur", "mean", "noise", "shuffle")
AREA_RANGE = (0.03, 0.6)
TAU = 0.15
IMAGES = 16
"""Images that a device other than the host's optimises at once."""
SLOPE = 2.0
"""Of the sigmoid of ``fsagn``, per standard deviation of the saliency."""


class Optimise:
    """Saliency on the generator's grid, fitted to one image and filter by Adam, from the feature map or a given map.

    Every step takes the next infill in turn. Objective ``budget`` draws an area (log-uniform in .03..0.6) and
    minimises 1 - r; ``fsagn`` minimises the paper's d(F_k(x'), F_k(x)) + lambda mean(m) + lambda_tv TV(m).

    Args:
        model: the CNN.
        layer: value name of the explained layer.
        steps: forward and backward passes per (image, filter).
        rate: of Adam, in standard deviations of the saliency.
        infills: those that are taken in turn; ``inpaint`` stays unseen.
        objective: ``budget`` or ``fsagn``, or one with its weights: a contrast sets the filters of one image apart.
        seed: of the areas and of random infills.
        device: torch device that optimises.
    """

    def __init__(
        self,
        model: Model,
        layer: str,
        steps: int = STEPS,
        rate: float = 0.1,
        infills: Sequence[str] = INFILLS,
        objective: ObjectiveName | Objective = "budget",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self._objective = objective if isinstance(objective, Objective) else Objective(objective, contrast=0.0)
        self.name = "optimise" if self._objective.name == "budget" else f"optimise-{self._objective.name}"
        self._device = torch.device(device)
        self._module = convert(model, [layer]).to(self._device)
        self._layer, self._spec = layer, model.input_spec
        self._steps, self._rate, self._infills, self._seed = steps, rate, tuple(infills), seed
        self._grid = grid_of(self._spec.size, grid_stride(self._spec.size))

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`; the map is on the generator's grid."""
        own = torch.from_numpy(own_maps(feature_map, filters))  # (N, K, fh, fw)
        peaks = own.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
        start = torch.log(resize((own / peaks).clamp_min(0), self._grid) + FLOOR)
        return self.refine(batch, feature_map, filters, start.numpy())

    def refine(
        self,
        batch: NDArray[np.float32],
        feature_map: NDArray[np.float32],
        filters: NDArray[np.int64],
        start: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Go on from given maps ``(N, K, h, w)`` on the generator's grid; otherwise as `saliency`."""
        own = torch.from_numpy(own_maps(feature_map, filters))
        at_once = 1 if self._device.type == "cpu" else IMAGES
        made = []
        for first in range(0, len(batch), at_once):
            these = slice(first, first + at_once)
            made.append(self._some(batch[these], own[these], torch.from_numpy(filters[these]), start[these]))
        return np.concatenate(made)

    def _some(
        self, batch: NDArray[np.float32], own: Tensor, filters: Tensor, start: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Optimise all filters of N images, each for itself: its draws are those that it would have alone."""
        count, asked = filters.shape
        rngs = [np.random.default_rng(self._seed) for _ in batch]
        pixels = np.clip(np.rint(self._spec.denormalise(batch)), 0, 255).astype(np.uint8)
        made = [
            [MASK_FREE[kind](image, rng) for kind in self._infills] for image, rng in zip(pixels, rngs, strict=True)
        ]
        infills = torch.from_numpy(self._spec.normalise(np.array(made))).to(self._device)  # (N, kinds, ...)
        x = torch.from_numpy(batch).to(self._device).repeat_interleave(asked, dim=0)
        own, ids = own.to(self._device), filters.to(self._device).repeat_interleave(asked, dim=0)
        free = standardise(torch.from_numpy(start).to(self._device)).flatten(0, 1).clone().requires_grad_(True)
        optimiser = torch.optim.Adam([free], lr=self._rate)
        pairs = torch.arange(len(ids), device=self._device)[:, None]
        for step in range(self._steps):
            area = torch.from_numpy(np.concatenate([self._areas(asked, rng) for rng in rngs])).to(self._device)
            mask = self._mask(free, area)
            behind = infills[:, step % len(self._infills)].repeat_interleave(asked, dim=0)
            masked = blend(x, behind, mask, self._spec.layout)
            if self._spec.layout == "NCHW":
                masked = masked.contiguous(memory_format=torch.channels_last)  # 1.4 times as fast on a CPU
            response = self._module(masked)[self._layer][pairs, ids].unflatten(0, (count, asked))
            loss = self._loss(crosswise_change(response, own), own, mask)
            optimiser.zero_grad(set_to_none=True)
            (loss * len(ids)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return self._smooth(free).detach().view(*start.shape).cpu().numpy()

    def _loss(self, crosswise: Tensor, own: Tensor, mask: Tensor) -> Tensor:
        change = torch.diagonal(crosswise, dim1=1, dim2=2)
        if self._objective.name == "fsagn":
            return fsagn_loss(change.flatten(), mask, self._objective)
        loss = budget_loss(change)
        if self._objective.contrast:
            loss = loss + self._objective.contrast * contrast_loss(crosswise, own, self._objective.margin)
        return loss

    def _areas(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Areas of one image's masks in one step; one for all where they are held against each other."""
        if self._objective.name == "fsagn":
            return np.zeros(count, dtype=np.float32)
        low, high = np.log(AREA_RANGE)
        drawn = rng.uniform(low, high, size=1 if self._objective.contrast else count)
        return np.broadcast_to(np.exp(drawn), count).astype(np.float32)

    def _mask(self, free: Tensor, area: Tensor) -> Tensor:
        upsampled = resize(self._smooth(free)[:, None], self._spec.size)[:, 0]
        if self._objective.name == "fsagn":
            return torch.sigmoid(SLOPE * upsampled)
        return soft_mask(standardise(upsampled), area, TAU)

    @staticmethod
    def _smooth(maps: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(maps[:, None], (2, 2, 2, 2), mode="replicate")
        return torch.nn.functional.conv2d(padded, gaussian_kernel(1.0).to(maps.device))[:, 0]

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(self._steps * filters, self._steps * filters)


def optimise_fsagn(model: Model, layer: str) -> Optimise:
    """The same with the paper's objective."""
    return Optimise(model, layer, objective="fsagn")
