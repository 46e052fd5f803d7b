"""Any number of images through a graph that takes a fixed number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]


def fixed_size(shapes: Iterable[tuple[int | None, ...]]) -> int | None:
    """The batch size that the inputs' shapes agree on; None if it is free, or if they differ."""
    sizes = {shape[0] for shape in shapes if shape and shape[0] is not None}
    return sizes.pop() if len(sizes) == 1 else None


def in_batches(
    run: Callable[[Arrays], Arrays],
    feeds: Mapping[str, Array],
    size: int,
    axes: Mapping[str, int | None] | None = None,
) -> Arrays:
    """Run images in groups of a fixed size, the last one filled up by repeating its last image.

    Args:
        run: computes outputs for feeds of exactly ``size`` images.
        feeds: arrays (N, ...), N > 0 the same in all.
        size: images per group.
        axes: output -> the axis of its images, None: it has none. Of others, the first one counts if it has ``size``.

    Returns:
        Outputs of all N images; one that has no axis of images comes as the first group has it.
    """
    count = len(next(iter(feeds.values())))
    parts = []
    for start in range(0, count, size):
        part = {name: array[start : start + size] for name, array in feeds.items()}
        missing = size - len(next(iter(part.values())))
        if missing:
            part = {name: np.concatenate([array, array[-1:].repeat(missing, axis=0)]) for name, array in part.items()}
        parts.append(run(part))
    joined: Arrays = {}
    for name, first in parts[0].items():
        axis = axes[name] if axes is not None and name in axes else 0
        divided = axis is not None and first.shape[axis : axis + 1] == (size,)
        if not divided:
            joined[name] = first
            continue
        whole = np.concatenate([part[name] for part in parts], axis=axis)
        joined[name] = whole[(slice(None),) * (axis or 0) + (slice(count),)]
    return joined
