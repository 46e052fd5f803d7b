"""The synthetic parts set: three disjoint splits of rendered pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...errors import UsageError
from .render import SIZE, Sample, render

SPLITS: Final = {"train": 0, "val": 1_000_000_000, "test": 2_000_000_000}  # split -> its first seed
LONGEST: Final = 1_000_000_000  # pictures per split


class SyntheticParts:
    """A split of the synthetic set; picture i is rendered when it is asked for.

    Classes take turns, so every ten pictures hold each class once. Pictures are independent of `length`:
    picture i of a longer set is the same.

    Args:
        split: `train`, `val` or `test`.
        length: how many pictures.
        size: height and width in pixels.

    Raises:
        UsageError: no such split, or a length or size out of range.
    """

    def __init__(self, split: str, length: int, size: int = SIZE) -> None:
        if split not in SPLITS:
            raise UsageError(f"no split {split!r} of the synthetic set; use one of {', '.join(SPLITS)}")
        if not 0 <= length <= LONGEST:
            raise UsageError(f"length of the synthetic set must be in 0..{LONGEST}, but got {length}")
        if not 16 <= size <= 4096:
            raise UsageError(f"size of synthetic pictures must be in 16..4096 pixels, but got {size}")
        self.split = split
        self.length = length
        self.size = size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Sample:
        return render(self.seed(i), size=self.size)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(self.length))

    def seed(self, i: int) -> int:
        """The seed of picture i, for `render(seed, remove=...)`.

        Raises:
            IndexError: i is not in 0..length - 1.
        """
        if not 0 <= i < self.length:
            raise IndexError(f"picture {i} of a synthetic set of {self.length}")
        return SPLITS[self.split] + i
