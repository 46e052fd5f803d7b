"""What a method is: it gives a saliency map per asked filter."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Passes(NamedTuple):
    """What a method costs beyond the one pass that gives the feature map.

    Attributes:
        forward: images that go through the model.
        backward: images whose gradient is taken.
    """

    forward: int
    backward: int


class Method(Protocol):
    """A way to find where a filter looks, without training."""

    @property
    def name(self) -> str:
        """As on the command line."""

    def saliency(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Saliency of K filters in N images.

        Args:
            batch: ``(N, ...)`` preprocessed, in the model's layout.
            feature_map: ``(N, C, fh, fw)`` of the explained layer.
            filters: ``(N, K)`` ids in 0..C-1.

        Returns:
            ``(N, K, h, w)`` at any resolution; higher is kept first.
        """

    def passes(self, filters: int) -> Passes:
        """The cost of K filters in one image."""


def own_maps(feature_map: NDArray[np.float32], filters: NDArray[np.int64]) -> NDArray[np.float32]:
    """F_k of the asked filters: ``(N, C, fh, fw)`` and ``(N, K)`` -> ``(N, K, fh, fw)``."""
    return np.take_along_axis(feature_map, filters[:, :, None, None], axis=1)
