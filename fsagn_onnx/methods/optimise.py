"""`optimise`: per-image optimisation of each filter's mask, several infills (Fong & Vedaldi 2017; Fong et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..convert import convert
from ..generator.area import soft_mask, standardise
from ..generator.infill import blend
from ..generator.network import FLOOR, gaussian_kernel, resize
from ..generator.objective import budget_loss, relative_change
from ..model import Model
from ..runtime.infill import MASK_FREE
from ..runtime.masks import grid_of, grid_stride
from .interface import own_maps

AREA_RANGE = (0.03, 0.6)
TAU = 0.15


class Optimise:
    """Saliency on the generator's grid, started from the feature map and fitted to one image and filter by Adam.

    Every step draws an area (log-uniform in .03..0.6) and takes the next infill in turn, and minimises 1 - r.

    Args:
        model: the CNN.
        layer: value name of the explained layer.
        steps: forward and backward passes per (image, filter).
        rate: of Adam, in standard deviations of the saliency.
        infills: those that are taken in turn; ``inpaint`` stays unseen.
        seed: of the areas and of random infills.
    """

    name = "optimise"

    def __init__(
        self,
        model: Model,
        layer: str,
        steps: int = 60,
        rate: float = 0.1,
        infills: Sequence[str] = ("blur", "mean", "noise", "shuffle"),
        seed: int = 0,
    ) -> None:
        self._module = convert(model, [layer])
        self._layer, self._spec = layer, model.input_spec
        self._steps, self._rate, self._infills, self._seed = steps, rate, tuple(infills), seed
        self._grid = grid_of(self._spec.size, grid_stride(self._spec.size))

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`; the map is on the generator's grid."""
        own = torch.from_numpy(own_maps(feature_map, filters))  # (N, K, fh, fw)
        maps = [self._one(image, maps, ids) for image, maps, ids in zip(batch, own, filters, strict=True)]
        return np.stack(maps)

    def _one(self, image: NDArray[np.float32], own: Tensor, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        rng = np.random.default_rng(self._seed)
        pixels = np.clip(np.rint(self._spec.denormalise(image)), 0, 255).astype(np.uint8)
        infills = [torch.from_numpy(self._spec.normalise(MASK_FREE[kind](pixels, rng))) for kind in self._infills]
        x = torch.from_numpy(image).expand(len(ids), *image.shape)
        filters = torch.from_numpy(ids)
        peaks = own.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)
        start = torch.log(resize((own / peaks).clamp_min(0)[:, None], self._grid)[:, 0] + FLOOR)
        free = standardise(start).clone().requires_grad_(True)
        optimiser = torch.optim.Adam([free], lr=self._rate)
        low, high = np.log(AREA_RANGE)
        for step in range(self._steps):
            area = torch.from_numpy(np.exp(rng.uniform(low, high, size=len(ids))).astype(np.float32))
            upsampled = resize(self._smooth(free)[:, None], self._spec.size)[:, 0]
            mask = soft_mask(standardise(upsampled), area, TAU)
            infill = infills[step % len(infills)].expand_as(x)
            response = self._module(blend(x, infill, mask, self._spec.layout))[self._layer]
            change = relative_change(response[torch.arange(len(ids)), filters], own)
            optimiser.zero_grad(set_to_none=True)
            (budget_loss(change) * len(ids)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return self._smooth(free).detach().numpy()

    @staticmethod
    def _smooth(maps: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(maps[:, None], (2, 2, 2, 2), mode="replicate")
        return torch.nn.functional.conv2d(padded, gaussian_kernel(1.0))[:, 0]
