"""What a method is: it gives a saliency map per asked filter."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Method(Protocol):
    """A way to find where a filter looks, without training.

    Attributes:
        name: as on the command line.
    """

    name: str

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


def own_maps(feature_map: NDArray[np.float32], filters: NDArray[np.int64]) -> NDArray[np.float32]:
    """F_k of the asked filters: ``(N, C, fh, fw)`` and ``(N, K)`` -> ``(N, K, fh, fw)``."""
    return np.take_along_axis(feature_map, filters[:, :, None, None], axis=1)
