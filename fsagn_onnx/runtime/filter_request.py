"""Which filters the caller asks for, and how they go through the graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .engine import EngineMetadata
from .variant import FILL

FILTERS_PER_PASS: Final = 64
"""So many filters asked for by id go through the graph at a time."""


@dataclass(frozen=True)
class FilterRequest:
    """Filters asked for of every image.

    Attributes:
        slots: filter ids, or -1 for "the strongest not asked for by id"; no id twice.
    """

    slots: tuple[int, ...]

    @classmethod
    def parse(cls, filters: str | int | Sequence[int], metadata: EngineMetadata) -> FilterRequest:
        """Read what the caller asks for.

        Args:
            filters: ``top:K``, ``all``, ids with commas (``3,17``), or a sequence of ids and -1.
            metadata: names the layer and its number of filters.

        Returns:
            A request without repeated ids, for at most as many filters as the layer has (``top:K``: or the file
            answers). Of a file with a fixed set, ``all`` is that set.

        Raises:
            UsageError: a text of another form, an id out of range, or nothing asked for.
        """
        count, fixed = metadata.filters, metadata.variant.slots
        if isinstance(filters, str):
            text = filters.strip()
            if text == "all":
                return cls(tuple(range(count)) if fixed is None else fixed)
            if text.startswith("top:"):
                counts = read_ids(text.removeprefix("top:"), got=filters)
                if len(counts) > 1 or counts[0] < 1:
                    raise UsageError(f"filters must ask for at least one, as 'top:1' does, but got '{filters}'")
                return cls((FILL,) * min(counts[0], count if fixed is None else len(fixed)))
            slots = list(read_ids(text))
        else:
            slots = [filters] if isinstance(filters, int) else [int(slot) for slot in filters]
        if not slots:
            raise UsageError("no filters asked for; expected 'top:K', 'all' or filter ids")
        for slot in slots:
            if slot != FILL and not 0 <= slot < count:
                raise UsageError(f"no filter {slot}: layer '{metadata.layer}' has {count} filters, 0..{count - 1}")
        apart = [slot for place, slot in enumerate(slots) if slot == FILL or slot not in slots[:place]]
        asked = sum(slot != FILL for slot in apart)
        spare = itertools.count()
        return cls(tuple(slot for slot in apart if slot != FILL or next(spare) < count - asked))

    def ascending(self) -> FilterRequest:
        """The same filters by ascending id, the strongest others last."""
        ids = sorted(slot for slot in self.slots if slot != FILL)
        return FilterRequest((*ids, *(slot for slot in self.slots if slot == FILL)))

    def ids(self) -> tuple[int, ...]:
        """The ids, where the same filters are asked for of every image.

        Raises:
            UsageError: it asks for the strongest filters of each image.
        """
        if FILL in self.slots:
            raise UsageError(
                f"filters must be 'all' or ids like '3,17', the same in every image, but got the {len(self)} strongest"
            )
        return self.slots

    def passes(self, images: int = 1, size: int = FILTERS_PER_PASS) -> Iterator[NDArray[np.int64]]:
        """The request for a batch, cut into passes of at most ``size`` filters.

        Slots to be filled depend on all others, so that a request with such slots is one pass.

        Yields:
            int64 (images, K), K summing up to the number of slots.
        """
        if FILL in self.slots:
            size = len(self.slots)
        for start in range(0, len(self.slots), size):
            yield FilterRequest(self.slots[start : start + size]).tiled(images)

    def tiled(self, images: int) -> NDArray[np.int64]:
        """The request for a batch: int64 (images, K)."""
        return np.tile(np.asarray(self.slots, dtype=np.int64), (images, 1))

    def __len__(self) -> int:
        return len(self.slots)


def read_ids(text: str, expected: str = "'top:K', 'all' or ids like '3,17'", got: str = "") -> tuple[int, ...]:
    """Whole numbers with commas between them.

    Args:
        text: the numbers.
        expected: what filters must be, for the message.
        got: what the user wrote, if more than the text.

    Raises:
        UsageError: another form.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"filters must be {expected}, but got '{got or text}'") from None
