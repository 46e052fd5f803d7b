"""Captum's attributions of a class: integrated gradients and occlusion. Needs the extra `peers`."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
import torch
from captum.attr import IntegratedGradients, Occlusion
from numpy.typing import NDArray
from torch import Tensor

from ..model import Model
from .class_gradient import DecisionModule
from .interface import Passes

CLASS_METHODS: Final = {"integrated-gradients": "ClassIntegratedGradients", "occlusion": "ClassOcclusion"}
NEEDS: Final = {
    "torch": "pip install 'fsagn-onnx[train]', or use rise-class or recipro-cam",
    "captum": "pip install 'fsagn-onnx[peers]'",
}

STEPS: Final = 50
WINDOW_SHARE: Final = 7
"""The occluded square is a seventh of the shorter side; it moves by half of it."""


class _CaptumClass:
    def __init__(self, model: Model, layer: str) -> None:
        self._decision, self._spec = DecisionModule(model, []), model.input_spec

    def _value(self, images: Tensor, classes: Tensor) -> Tensor:
        return self._decision.decision(self._decision(images)[1], classes.expand(len(images)))

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`; the positive part of the sum over colours, at the input's resolution."""
        axis = 1 if self._spec.layout == "NCHW" else -1
        maps = []
        for image, number in zip(torch.from_numpy(batch), torch.from_numpy(classes), strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Captum tells of every gradient flag that it sets
                found = self._attribute(image[None], number[None])
            maps.append(found.detach().sum(dim=axis)[0].clamp_min(0).numpy())
        return np.stack(maps).astype(np.float32)

    def _attribute(self, x: Tensor, number: Tensor) -> Tensor:
        raise NotImplementedError


class ClassIntegratedGradients(_CaptumClass):
    """`captum.attr.IntegratedGradients` of the decision value from the picture's mean colour, 50 steps."""

    passes = Passes(STEPS, STEPS)

    def _attribute(self, x: Tensor, number: Tensor) -> Tensor:
        sides = (2, 3) if self._spec.layout == "NCHW" else (1, 2)
        baseline = x.mean(dim=sides, keepdim=True).expand_as(x)
        kind: Any = IntegratedGradients(self._value)
        made: Tensor = kind.attribute(
            x, baselines=baseline, additional_forward_args=(number,), n_steps=STEPS, internal_batch_size=STEPS
        )
        return made


class ClassOcclusion(_CaptumClass):
    """`captum.attr.Occlusion` of the decision value: squares of a seventh of the shorter side, in the mean colour."""

    def __init__(self, model: Model, layer: str) -> None:
        super().__init__(model, layer)
        size = self._spec.size
        self._window = max(2, min(size) // WINDOW_SHARE)
        self._step = max(1, self._window // 2)
        places = int(np.prod([1 + -(-(side - self._window) // self._step) for side in size]))
        self.passes = Passes(places + 1, 0)

    def _attribute(self, x: Tensor, number: Tensor) -> Tensor:
        colours, nchw = self._spec.channels, self._spec.layout == "NCHW"
        sides = (2, 3) if nchw else (1, 2)
        baseline = x.mean(dim=sides, keepdim=True).expand_as(x)
        window, step = self._window, self._step
        with torch.no_grad():
            kind: Any = Occlusion(self._value)
            made: Tensor = kind.attribute(
                x,
                sliding_window_shapes=(colours, window, window) if nchw else (window, window, colours),
                strides=(colours, step, step) if nchw else (step, step, colours),
                baselines=baseline,
                additional_forward_args=(number,),
                perturbations_per_eval=25,
            )
        return made
