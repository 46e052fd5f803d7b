"""A second look at a few images of a run: their whole feature maps, also those of the untrained network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.input_spec import InputSpec
from ..runtime.feature_maps import FeatureMaps
from ..runtime.stream import Failure, prepare

MAX_SAMPLE: Final = 128
"""Images that are looked at again."""
_BATCH: Final = 16


@dataclass(frozen=True, eq=False)
class ImageSample:
    """Images of a run, fitted to the model's input.

    Attributes:
        rows: their rows in the run, ascending.
        values: float32 (n, ...), normalised.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float32]

    def feature_maps(self, network: FeatureMaps) -> Iterator[NDArray[np.float32]]:
        """The layer's feature map (C, fh, fw) of each image, in order."""
        for start in range(0, len(self.values), _BATCH):
            yield from network.maps(self.values[start : start + _BATCH])


def draw_sample(paths: Sequence[str], rows: NDArray[np.int64], spec: InputSpec) -> ImageSample:
    """Read images of a run again; those that cannot be read any more are left out."""
    kept: list[int] = []
    values: list[NDArray[np.float32]] = []
    for index in rows.tolist():
        item = prepare((paths[index], Path(paths[index])), spec)
        if not isinstance(item, Failure):
            kept.append(index)
            values.append(item.values)
    return ImageSample(np.array(kept, dtype=np.int64), np.stack(values) if values else np.zeros((0, 1), np.float32))
