"""Captum's attributions of one neuron, asked the same question: where does filter k look? Needs the extra `peers`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from captum.attr import NeuronGradient, NeuronGuidedBackprop, NeuronIntegratedGradients, Occlusion
from numpy.typing import NDArray
from torch import Tensor, nn

from ..conversion import convert
from ..model import Model
from .interface import Passes

METHODS: Final = {
    "captum-input-x-gradient": "CaptumInputXGradient",
    "captum-integrated-gradients": "CaptumIntegratedGradients",
    "captum-guided-backprop": "CaptumGuidedBackprop",
    "captum-occlusion": "CaptumOcclusion",
}
NEEDS: Final = {
    "torch": "pip install 'fsagn-onnx[train]', or use activation or rise",
    "captum": "pip install 'fsagn-onnx[peers]'",
}

INTEGRATION_STEPS: Final = 20
WINDOW: Final = 16
"""Edge in pixels of the square that is occluded; it moves by half of it."""


class _Layer(nn.Module):
    """The converted model, its last module giving the feature map: what Captum attributes to."""

    def __init__(self, model: Model, layer: str) -> None:
        super().__init__()
        self._value = layer
        self.converted = convert(model, [layer])
        self.tap = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, ...)`` -> ``(N, C, h, w)``."""
        made: Tensor = self.tap(self.converted(x)[self._value])
        return made


def summed(filter: int) -> Callable[[Tensor], Tensor]:
    """The neuron: the sum of filter k's feature map, ``(N, C, h, w)`` -> ``(N,)``."""
    return lambda maps: maps[:, filter].sum(dim=(1, 2))


class _Captum:
    def __init__(self, model: Model, layer: str) -> None:
        self._network = _Layer(model, layer)
        self._spec = model.input_spec

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`; the sum over colours of the attribution's absolute value, at the input's resolution."""
        axis = 0 if self._spec.layout == "NCHW" else -1
        maps = [
            np.stack([self._attribute(torch.from_numpy(image)[None], int(k))[0].abs().sum(dim=axis) for k in ids])
            for image, ids in zip(batch, filters, strict=True)
        ]
        return np.stack(maps).astype(np.float32)

    def _attribute(self, x: Tensor, filter: int) -> Tensor:
        raise NotImplementedError

    def _neuron(self, kind: Any, x: Tensor, filter: int, **options: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Captum tells of every hook and gradient flag that it sets
            attribution = kind(self._network, self._network.tap)
            made: Tensor = attribution.attribute(x, neuron_selector=summed(filter), **options)
        return made.detach()

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(filters, filters)


class CaptumInputXGradient(_Captum):
    """`captum.attr.NeuronGradient` times the input."""

    name = "captum-input-x-gradient"

    def _attribute(self, x: Tensor, filter: int) -> Tensor:
        return x * self._neuron(NeuronGradient, x, filter)


class CaptumIntegratedGradients(_Captum):
    """`captum.attr.NeuronIntegratedGradients` from a picture of zeros, 20 steps."""

    name = "captum-integrated-gradients"

    def _attribute(self, x: Tensor, filter: int) -> Tensor:
        return self._neuron(NeuronIntegratedGradients, x, filter, n_steps=INTEGRATION_STEPS)

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(INTEGRATION_STEPS * filters, INTEGRATION_STEPS * filters)


class CaptumGuidedBackprop(_Captum):
    """`captum.attr.NeuronGuidedBackprop`; it knows torch's ReLU alone, so behind a ReLU6 it is the plain gradient."""

    name = "captum-guided-backprop"

    def _attribute(self, x: Tensor, filter: int) -> Tensor:
        return self._neuron(NeuronGuidedBackprop, x, filter)


class CaptumOcclusion(_Captum):
    """`captum.attr.Occlusion` of squares of 16 pixels, 8 apart; no absolute value is lost: a drop is positive."""

    name = "captum-occlusion"

    def _attribute(self, x: Tensor, filter: int) -> Tensor:
        colours = self._spec.channels
        nchw = self._spec.layout == "NCHW"
        window = (colours, WINDOW, WINDOW) if nchw else (WINDOW, WINDOW, colours)
        step = (colours, WINDOW // 2, WINDOW // 2) if nchw else (WINDOW // 2, WINDOW // 2, colours)
        with torch.no_grad():
            made: Tensor = Occlusion(lambda images: summed(filter)(self._network(images))).attribute(
                x, sliding_window_shapes=window, strides=step, perturbations_per_eval=25
            )
        return made.clamp_min(0)

    def passes(self, filters: int) -> Passes:
        """See `Method`; one pass per place of the square, and one of the whole picture."""
        places = int(np.prod([1 + -(-(side - WINDOW) // (WINDOW // 2)) for side in self._spec.size]))
        return Passes((places + 1) * filters, 0)
