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
from ..generator.objective import Objective, ObjectiveName, budget_loss, fsagn_loss, relative_change
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
        objective: ``budget`` or ``fsagn``.
        seed: of the areas and of random infills.
    """

    def __init__(
        self,
        model: Model,
        layer: str,
        steps: int = STEPS,
        rate: float = 0.1,
        infills: Sequence[str] = INFILLS,
        objective: ObjectiveName = "budget",
        seed: int = 0,
    ) -> None:
        self.name = "optimise" if objective == "budget" else f"optimise-{objective}"
        self._module = convert(model, [layer])
        self._layer, self._spec = layer, model.input_spec
        self._steps, self._rate, self._infills, self._seed = steps, rate, tuple(infills), seed
        self._objective = Objective(objective)
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
        rows = zip(batch, own, filters, torch.from_numpy(start), strict=True)
        return np.stack([self._one(image, maps, torch.from_numpy(ids), first) for image, maps, ids, first in rows])

    def _one(self, image: NDArray[np.float32], own: Tensor, filters: Tensor, start: Tensor) -> NDArray[np.float32]:
        rng = np.random.default_rng(self._seed)
        pixels = np.clip(np.rint(self._spec.denormalise(image)), 0, 255).astype(np.uint8)
        infills = [torch.from_numpy(self._spec.normalise(MASK_FREE[kind](pixels, rng))) for kind in self._infills]
        x = torch.from_numpy(image).expand(len(filters), *image.shape)
        free = standardise(start).clone().requires_grad_(True)
        optimiser = torch.optim.Adam([free], lr=self._rate)
        for step in range(self._steps):
            mask = self._mask(free, rng)
            masked = blend(x, infills[step % len(infills)].expand_as(x), mask, self._spec.layout)
            if self._spec.layout == "NCHW":
                masked = masked.contiguous(memory_format=torch.channels_last)  # 1.4 times as fast on a CPU
            response = self._module(masked)[self._layer]
            change = relative_change(response[torch.arange(len(filters)), filters], own)
            loss = (
                budget_loss(change) if self._objective.name == "budget" else fsagn_loss(change, mask, self._objective)
            )
            optimiser.zero_grad(set_to_none=True)
            (loss * len(filters)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return self._smooth(free).detach().numpy()

    def _mask(self, free: Tensor, rng: np.random.Generator) -> Tensor:
        upsampled = resize(self._smooth(free)[:, None], self._spec.size)[:, 0]
        if self._objective.name == "fsagn":
            return torch.sigmoid(SLOPE * upsampled)
        low, high = np.log(AREA_RANGE)
        area = torch.from_numpy(np.exp(rng.uniform(low, high, size=len(free))).astype(np.float32))
        return soft_mask(standardise(upsampled), area, TAU)

    @staticmethod
    def _smooth(maps: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(maps[:, None], (2, 2, 2, 2), mode="replicate")
        return torch.nn.functional.conv2d(padded, gaussian_kernel(1.0))[:, 0]

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(self._steps * filters, self._steps * filters)


def optimise_fsagn(model: Model, layer: str) -> Optimise:
    """The same with the paper's objective."""
    return Optimise(model, layer, objective="fsagn")
