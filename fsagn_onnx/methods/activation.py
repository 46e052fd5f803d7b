"""`activation`: the filter's own feature map, upsampled. The baseline of Network Dissection (Bau et al. 2017)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from .interface import Passes, own_maps

METHODS: Final = {"activation": "make_activation"}


class Activation:
    """Saliency = F_k itself; needs nothing but one pass of the model."""

    name = "activation"

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """See `Method`; the map has the layer's own resolution."""
        return own_maps(feature_map, filters)

    def passes(self, filters: int) -> Passes:
        """See `Method`."""
        return Passes(0, 0)


def make_activation(model: Model, layer: str) -> Activation:
    """The method for any layer of any model."""
    return Activation()
