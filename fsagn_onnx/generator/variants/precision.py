"""Lower precisions by name: every file of this folder registers its own.

A precision's name stands in `fsagn_onnx.runtime.variant.PRECISIONS` too, because the runtime reads files without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ...discovery import import_all


@dataclass(frozen=True, eq=False)
class PlainExplainer:
    """The float32 explainer that a lower precision is made from.

    Attributes:
        proto: its graph.
        image: name of the image input.
        feature_map: value name of the explained layer.
        outputs: the model's own outputs in the file.
        batch: (n, ...) preprocessed calibration images.
    """

    proto: onnx.ModelProto
    image: str
    feature_map: str
    outputs: Sequence[str]
    batch: NDArray[np.float32]


Lower = Callable[[PlainExplainer], onnx.ModelProto]


@dataclass(frozen=True)
class Precision:
    """What makes the graph, and whether it needs images to calibrate on."""

    lower: Lower
    calibrated: bool


_FOUND: Final[dict[str, Precision]] = {}


def precision(name: str, *, calibrated: bool = False) -> Callable[[Lower], Lower]:
    """Register a function under a name of `PRECISIONS`.

    Args:
        name: of the precision.
        calibrated: it needs images; without, random fields serve to measure what is lost.
    """

    def register(lower: Lower) -> Lower:
        _FOUND[name] = Precision(lower, calibrated)
        return lower

    return register


@cache
def lower_precisions() -> dict[str, Precision]:
    """All that are registered, by name."""
    import_all(__package__)
    return _FOUND
