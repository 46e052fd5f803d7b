"""Maps of a class out of one backward pass: class activation map, Grad-CAM, LayerCAM, gradient x activation.

With F the feature map of a layer, z_c the class's number before the softmax where the model gives it, and d_c the
decision value (log-odds of the class, method.md "The decision"):

    cam                     sum_k F_k mean(dz_c/dF_k), for pooling and a linear classifier (Zhou et al. 2016)
    grad-cam                its positive part (Selvaraju et al. 2017)
    layer-cam               sum_k F_k relu(dz_c/dF_k), positive part (Jiang et al. 2021)
    gradient-x-activation   sum_k F_k dd_c/dF_k, positive part
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..conversion import convert
from ..errors import UsageError
from ..generator.network import resize
from ..model import Model
from ..model.classifier import SINGLE
from ..runtime.classes import classes_of
from .interface import Passes

CLASS_METHODS: Final = {
    "cam": "Cam",
    "grad-cam": "GradCam",
    "layer-cam": "LayerCam",
    "gradient-x-activation": "GradientXActivation",
}
NEEDS: Final = {"torch": "pip install 'fsagn-onnx[train]', or use rise-class or recipro-cam"}

LEAST: Final = 1e-12
"""Probabilities are kept so far from 0 and 1."""


def class_numbers(values: Tensor, classes: Tensor, scores: str) -> Tensor:
    """The number z_c that the model gives a class; of one logit, -z for class 0: ``(N, ...)``, ``(N,)`` -> ``(N,)``."""
    numbers = values.reshape(len(values), -1)
    if scores in SINGLE:
        return torch.where(classes == 1, numbers[:, 0], -numbers[:, 0])
    return numbers.gather(1, classes[:, None])[:, 0]


def decision_values(values: Tensor, classes: Tensor, scores: str) -> Tensor:
    """The decision value d_c, the log-odds of a class, out of the numbers that the model gives.

    Logits: z_c - logsumexp of the others; probabilities: log p - log(1 - p); one logit: itself, its negative for
    class 0.

    Args:
        values: ``(N, ...)``, the output that classifies.
        classes: ``(N,)`` numbers of classes.
        scores: what the numbers are, of `SCORES`.

    Returns:
        ``(N,)``.
    """
    numbers = values.reshape(len(values), -1)
    if scores == "logits":
        own = torch.zeros_like(numbers, dtype=torch.bool).scatter(1, classes[:, None], True)
        return class_numbers(values, classes, scores) - numbers.masked_fill(own, -torch.inf).logsumexp(dim=1)
    if scores == "logit":
        return class_numbers(values, classes, scores)
    if scores == "sigmoid":
        share = numbers[:, 0].double()
        share = torch.where(classes == 1, share, 1 - share)
    else:
        share = class_numbers(values, classes, scores).double()
        share = share.exp() if scores == "log-probabilities" else share
    share = share.clamp(LEAST, 1 - LEAST)
    return (share.log() - (-share).log1p()).to(values.dtype)


class DecisionModule:
    """The converted model with a layer's feature map and the output that classifies.

    Args:
        model: the CNN.
        layers: value names.

    Raises:
        UsageError: the model does not classify.
    """

    def __init__(self, model: Model, layers: list[str]) -> None:
        classifier = classes_of(model).classifier
        if classifier.output is None:
            raise UsageError(f"{model.path}: class methods need a model that classifies, but {classifier.reason}")
        self._output, self.scores = classifier.output, classifier.scores
        self._module = convert(model, list(dict.fromkeys([*layers, classifier.output])))

    def __call__(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """All values, and the numbers of the output that classifies."""
        values = self._module(images)
        return values, values[self._output]

    def decision(self, numbers: Tensor, classes: Tensor) -> Tensor:
        """d_c of the numbers, ``(N,)``."""
        return decision_values(numbers, classes, self.scores)


class _ClassGradient:
    """One forward and one backward pass, read at one layer.

    Args:
        model: the CNN.
        layer: value name; the gradient is taken there.
    """

    passes = Passes(1, 1)

    def __init__(self, model: Model, layer: str) -> None:
        self._decision, self._layer = DecisionModule(model, [layer]), layer

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`; the map has the layer's own resolution."""
        images, asked = torch.from_numpy(batch).requires_grad_(True), torch.from_numpy(classes)
        values, numbers = self._decision(images)
        maps = values[self._layer]
        (gradient,) = torch.autograd.grad(self._target(numbers, asked).sum(), maps)
        made: NDArray[np.float32] = self._map(maps.detach(), gradient).numpy()
        return made

    def _target(self, numbers: Tensor, classes: Tensor) -> Tensor:
        return class_numbers(numbers, classes, self._decision.scores)

    def _map(self, maps: Tensor, gradient: Tensor) -> Tensor:
        raise NotImplementedError


class Cam(_ClassGradient):
    """Class activation map: the layer's filters, each with the weight of the class."""

    def _map(self, maps: Tensor, gradient: Tensor) -> Tensor:
        return (maps * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1)


class GradCam(Cam):
    """The positive part of the class activation map."""

    def _map(self, maps: Tensor, gradient: Tensor) -> Tensor:
        return super()._map(maps, gradient).clamp_min(0)


class LayerCam(_ClassGradient):
    """Every place with its own positive gradient."""

    def _map(self, maps: Tensor, gradient: Tensor) -> Tensor:
        return (maps * gradient.clamp_min(0)).sum(dim=1).clamp_min(0)


class GradientXActivation:
    """Every place with its own gradient of the decision value; the positive part of the sum.

    Args:
        model: the CNN.
        layer: value name; several, joined by ``+``, give the sum of their maps, each over its peak, at the finest one.
    """

    passes = Passes(1, 1)

    def __init__(self, model: Model, layer: str) -> None:
        known = {found.value for found in model.layers}
        self._layers = [layer] if layer in known else layer.split("+")
        self._decision = DecisionModule(model, self._layers)

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`; the map has the resolution of the layer, or of the finest of them."""
        images, asked = torch.from_numpy(batch).requires_grad_(True), torch.from_numpy(classes)
        values, numbers = self._decision(images)
        wanted = [values[name] for name in self._layers]
        gradients = torch.autograd.grad(self._decision.decision(numbers, asked).sum(), wanted)
        maps = [
            (own.detach() * gradient).sum(dim=1).clamp_min(0) for own, gradient in zip(wanted, gradients, strict=True)
        ]
        if len(maps) > 1:
            finest = max((single.shape[1], single.shape[2]) for single in maps)
            peaks = [single.amax(dim=(1, 2), keepdim=True).clamp_min(LEAST) for single in maps]
            sized = [resize((single / peak)[:, None], finest)[:, 0] for single, peak in zip(maps, peaks, strict=True)]
            maps = [torch.stack(sized).sum(dim=0)]
        made: NDArray[np.float32] = maps[0].numpy()
        return made
