"""Which filters of a model's layers never answer to a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..model.layers import Layer
from ..model.model import Model
from ..runtime.feature_maps import FeatureMaps
from ..runtime.stream import Failure, Prepared, named_images, prepare

BATCH: Final = 4
"""Images per pass; all layers' maps of a pass are in memory at once."""


@dataclass
class DeadFilters:
    """What a set of images showed.

    Attributes:
        images: how many images went through the model.
        failures: those that could not be read.
        dead: tapped value -> ids of the filters that never exceed 0 or never change, in any place of any image.
    """

    images: int = 0
    failures: list[Failure] = field(default_factory=list)
    dead: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Range:
    """Smallest and largest value of each filter so far."""

    low: NDArray[np.float32]  # (C,)
    high: NDArray[np.float32]  # (C,)

    def joined(self, maps: NDArray[np.float32]) -> _Range:
        low, high = np.fmin.reduce(maps, axis=(0, 2, 3)), np.fmax.reduce(maps, axis=(0, 2, 3))
        return _Range(np.fmin(self.low, low), np.fmax(self.high, high))

    def dead(self) -> list[int]:
        return [int(k) for k in np.flatnonzero(~(self.high > 0) | (self.high <= self.low))]


def dead_filters(
    model: Model,
    layers: Sequence[Layer],
    images: Sequence[str],
    on_image: Callable[[int], None] = lambda done: None,
) -> DeadFilters:
    """Run images through a model at flat memory and find the filters that stay silent.

    Args:
        model: the CNN.
        layers: the layers to watch.
        images: files, folders or globs.
        on_image: is told how many images are done.

    Raises:
        ImageError: no image can be read.
        FsagnError: onnxruntime cannot run the model.
    """
    found = DeadFilters()
    ranges = {
        layer.value: _Range(np.full(layer.channels, np.inf, np.float32), np.full(layer.channels, -np.inf, np.float32))
        for layer in layers
    }
    with FeatureMaps.of_model(model, list(ranges)) as layer_maps:
        for batch in _batches(model, images, found):
            computed = layer_maps.run(np.stack([item.values for item in batch]))
            for value, maps in computed.items():
                ranges[value] = ranges[value].joined(maps)
            found.images += len(batch)
            on_image(found.images)
    if not found.images:
        because = f"; the first: {found.failures[0].message}" if found.failures else ""
        raise ImageError(f"no image could be read in {', '.join(images)}: name files, folders or globs{because}")
    found.dead = {value: values.dead() for value, values in ranges.items()}
    return found


def _batches(model: Model, images: Sequence[str], found: DeadFilters) -> Iterator[list[Prepared]]:
    """Batches of readable images; the others are noted."""

    def readable() -> Iterator[Prepared]:
        for named in named_images(images):
            item = prepare(named, model.input_spec)
            if isinstance(item, Prepared):
                yield item
            else:
                found.failures.append(item)

    stream = readable()
    while batch := list(islice(stream, BATCH)):
        yield batch
