"""Gradient maps of one filter at a time: at a tap (Grad-CAM's kin), at the input, and averaged over noise."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..conversion import TappedModule, convert
from ..generator.config import choose_taps
from ..model import Model
from ..runtime.masks import grid_stride
from .interface import Passes

METHODS: Final = {"gradient": "Gradient", "input-x-gradient": "InputXGradient", "smoothgrad": "SmoothGrad"}
NEEDS: Final = {"torch": "pip install 'fsagn-onnx[train]', or use activation or rise"}

NOISE: Final = 0.15
"""SmoothGrad's noise, as a share of the range of the input (Smilkov et al. 2017: .1 to .2)."""

DRAWS: Final = 16


def energy(response: Tensor, ids: Tensor) -> Tensor:
    """E = ||F_k||^2 / 2 of sample i's own filter, summed over samples: its gradient at the layer is F_k itself.

    Args:
        response: ``(P, C, h, w)``.
        ids: ``(P,)``.
    """
    own = response[torch.arange(len(ids)), ids]
    return 0.5 * own.square().sum()


class _Gradient:
    """What the three have in common: the converted model and one sample per filter."""

    def __init__(self, model: Model, layer: str, taps: tuple[str, ...] = ()) -> None:
        self._module: TappedModule = convert(model, list(dict.fromkeys([layer, *taps])))
        self._layer, self._spec = layer, model.input_spec

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`."""
        rows = zip(torch.from_numpy(batch), torch.from_numpy(filters), strict=True)
        return np.stack([self._one(image.expand(len(ids), *image.shape), ids).numpy() for image, ids in rows])

    def _one(self, images: Tensor, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def _spatial(self, maps: Tensor) -> Tensor:
        """Sum over channels of the absolute value of maps in the model's layout: ``(P, ...)`` -> ``(P, H, W)``."""
        return maps.abs().sum(dim=1 if self._spec.layout == "NCHW" else -1)

    def _input_gradient(self, images: Tensor, ids: Tensor) -> Tensor:
        leaf = images.detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(energy(self._module(leaf)[self._layer], ids), leaf)
        return gradient

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(filters, filters)


class Gradient(_Gradient):
    """Saliency = sum_c |A_c dE/dA_c| at the finest tap A whose stride is at least that of the masks' grid.

    Grad-CAM (Selvaraju et al. 2017) with the energy E of one filter in place of a class score, each place weighted by
    its own gradient instead of the channel's mean one (which loses where a *filter* looks).
    """

    name = "gradient"

    def __init__(self, model: Model, layer: str) -> None:
        found = model.layer(layer)
        taps = choose_taps(model, found, grid_stride(model.input_spec.size))
        self._tap = taps[-1].value if len(taps) > 1 else ""
        super().__init__(model, layer, (self._tap,) if self._tap else ())

    def _one(self, images: Tensor, ids: Tensor) -> Tensor:
        if not self._tap:
            return self._spatial(images * self._input_gradient(images, ids))
        leaf = images.detach().clone().requires_grad_(True)
        values = self._module(leaf)
        (gradient,) = torch.autograd.grad(energy(values[self._layer], ids), values[self._tap])
        maps: Tensor = (values[self._tap] * gradient).detach()
        return maps.abs().sum(dim=1)


class InputXGradient(_Gradient):
    """Saliency = sum over colours of |x dE/dx| (Shrikumar et al. 2017)."""

    name = "input-x-gradient"

    def _one(self, images: Tensor, ids: Tensor) -> Tensor:
        return self._spatial(images * self._input_gradient(images, ids))


class SmoothGrad(_Gradient):
    """Saliency = sum over colours of |mean over 16 noisy copies of dE/dx| (Smilkov et al. 2017)."""

    name = "smoothgrad"

    def _one(self, images: Tensor, ids: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        spread = NOISE * float(images.max() - images.min())
        total = torch.zeros_like(images)
        for _ in range(DRAWS):
            noise = torch.randn(images[:1].shape, generator=generator) * spread
            total += self._input_gradient(images + noise, ids)
        return self._spatial(total)

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(DRAWS * filters, DRAWS * filters)
