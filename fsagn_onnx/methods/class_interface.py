"""What a class method is: it says where a picture carries the decision for one class."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .interface import Passes


class ClassMethod(Protocol):
    """A way to find what a decision hangs on, without training."""

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Evidence for one class in each of N images.

        Args:
            batch: ``(N, ...)`` preprocessed, in the model's layout.
            classes: ``(N,)`` numbers of classes.

        Returns:
            ``(N, h, w)`` at any resolution; higher is kept first.
        """

    @property
    def passes(self) -> Passes:
        """The cost of one class in one image, beyond the pass that gives the answer."""
