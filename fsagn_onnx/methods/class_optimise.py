"""`optimise-class`: the mask of one class, fitted to one picture (Fong & Vedaldi 2017; Fong et al. 2019)."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..generator.area import soft_mask, standardise
from ..generator.infill import blend
from ..generator.network import gaussian_kernel, resize
from ..model import Model
from ..runtime.infill import MASK_FREE
from ..runtime.masks import grid_of, grid_stride
from .class_gradient import DecisionModule
from .interface import Passes
from .optimise import AREA_RANGE, STEPS, TAU

CLASS_METHODS: Final = {"optimise-class": "OptimiseClass"}
NEEDS: Final = {"torch": "pip install 'fsagn-onnx[train]', or use rise-class or recipro-cam"}

INFILLS: Final = ("blur", "mean")


class OptimiseClass:
    """Saliency on the generator's grid, fitted by Adam from nothing.

    Every step takes the next infill in turn, draws an area (log-uniform in .03 .. .6) and lessens -log p_c(x') of the
    masked picture x', which is softplus(-d_c).

    Args:
        model: the CNN.
        layer: not needed.
        steps: forward and backward passes.
        rate: of Adam, in standard deviations of the saliency.
        seed: of the areas and of the first map.
    """

    def __init__(self, model: Model, layer: str, steps: int = STEPS, rate: float = 0.1, seed: int = 0) -> None:
        self._decision, self._spec = DecisionModule(model, []), model.input_spec
        self._steps, self._rate, self._seed = steps, rate, seed
        self._grid = grid_of(self._spec.size, grid_stride(self._spec.size))
        self.passes = Passes(steps, steps)

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`; the map is on the generator's grid."""
        return np.stack([self._one(image, number) for image, number in zip(batch, classes, strict=True)])

    def _value(self, images: Tensor, classes: Tensor) -> Tensor:
        return self._decision.decision(self._decision(images)[1], classes.expand(len(images)))

    def _one(self, image: NDArray[np.float32], number: np.int64) -> NDArray[np.float32]:
        rng = np.random.default_rng(self._seed)
        pixels = np.clip(np.rint(self._spec.denormalise(image)), 0, 255).astype(np.uint8)
        infills = [torch.from_numpy(self._spec.normalise(MASK_FREE[kind](pixels, rng)))[None] for kind in INFILLS]
        x, classes = torch.from_numpy(image)[None], torch.tensor([int(number)])
        free = torch.from_numpy(rng.normal(scale=0.01, size=self._grid).astype(np.float32)).requires_grad_(True)
        optimiser = torch.optim.Adam([free], lr=self._rate)
        low, high = np.log(AREA_RANGE)
        for step in range(self._steps):
            area = torch.tensor([np.exp(rng.uniform(low, high))], dtype=torch.float32)
            upsampled = resize(_smoothed(free)[None, None], self._spec.size)[:, 0]
            masked = blend(
                x, infills[step % len(infills)], soft_mask(standardise(upsampled), area, TAU), self._spec.layout
            )
            loss = torch.nn.functional.softplus(-self._value(masked, classes)).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return _smoothed(free).detach().numpy()


def _smoothed(saliency: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(saliency[None, None], (2, 2, 2, 2), mode="replicate")
    return torch.nn.functional.conv2d(padded, gaussian_kernel(1.0))[0, 0]
