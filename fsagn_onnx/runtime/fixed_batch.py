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


def in_batches(run: Callable[[Arrays], Arrays], feeds: Mapping[str, Array], size: int) -> Arrays:
    """Run images in groups of a fixed size, the last one filled up by repeating its last image.

    Args:
        run: computes outputs for feeds of exactly ``size`` images.
        feeds: arrays (N, ...), N > 0 the same in all.
        size: images per group.

    Returns:
        Outputs (N, ...); one that has no axis of ``size`` images comes as the first group has it.
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
        whole = first.shape[:1] == (size,)
        joined[name] = np.concatenate([part[name] for part in parts])[:count] if whole else first
    return joined
