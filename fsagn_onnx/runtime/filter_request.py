"""Which filters the caller asks for, and how they go through the graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .contract import WISHES
from .engine import EngineMetadata
from .variant import FILL, MOST_FILTERS

KINDS: Final = dict(zip(("top", "decisive", "against"), WISHES, strict=True))
"""Words of a request -> what stands in its slots."""

FORMS: Final = "'top:K', 'decisive:K', 'against:K', 'all' or ids like '3,17'"
"""What a request can be, for messages."""

FILTERS_PER_PASS: Final = 64
"""So many filters asked for by id go through the graph at a time."""


@dataclass(frozen=True)
class FilterRequest:
    """Filters asked for of every image.

    Attributes:
        slots: filter ids, or -1 for "the strongest not asked for by id", -2 for "the most contributing to the first
            class asked about", -3 for "what speaks most against it"; no id twice.
    """

    slots: tuple[int, ...]

    @classmethod
    def parse(cls, filters: str | int | Sequence[int], metadata: EngineMetadata) -> FilterRequest:
        """Read what the caller asks for.

        Args:
            filters: ``top:K`` (strongest), ``decisive:K`` (most contributing), ``against:K``, ``all``, ids, or several
                of these with commas (``3,17``, ``decisive:5,against:3``); or a sequence of ids, -1, -2 and -3.
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
            slots = [slot for part in text.split(",") for slot in read_part(part, filters)]
        else:
            slots = [filters] if isinstance(filters, int) else [int(slot) for slot in filters]
        if not slots:
            raise UsageError(f"no filters asked for; expected {FORMS}")
        for slot in slots:
            if slot not in WISHES and not 0 <= slot < count:
                raise UsageError(f"no filter {slot}: layer '{metadata.layer}' has {count} filters, 0..{count - 1}")
        apart = [slot for place, slot in enumerate(slots) if slot < 0 or slot not in slots[:place]]
        asked = sum(slot >= 0 for slot in apart)
        most = (count if fixed is None else len(fixed)) - asked
        spare = {wish: itertools.count() for wish in WISHES}
        kept = [slot for slot in apart if slot >= 0 or next(spare[slot]) < most]
        return cls(tuple(kept[: max(count, asked)]))

    def ascending(self) -> FilterRequest:
        """The same filters by ascending id, those that each image chooses last."""
        ids = sorted(slot for slot in self.slots if slot >= 0)
        return FilterRequest((*ids, *(slot for slot in self.slots if slot < 0)))

    @property
    def decisive(self) -> bool:
        """Whether it hangs on a class."""
        return any(slot < FILL for slot in self.slots)

    def ids(self) -> tuple[int, ...]:
        """The ids, where the same filters are asked for of every image.

        Raises:
            UsageError: it asks for filters that each image chooses.
        """
        if any(slot < 0 for slot in self.slots):
            kind = "decisive" if self.decisive else "strongest"
            raise UsageError(
                f"filters must be 'all' or ids like '3,17', the same in every image, but got the {len(self)} {kind}"
            )
        return self.slots

    def passes(self, images: int = 1, size: int = FILTERS_PER_PASS) -> Iterator[NDArray[np.int64]]:
        """The request for a batch, cut into passes of at most ``size`` filters.

        Slots to be filled depend on all others, so that a request with such slots is one pass.

        Yields:
            int64 (images, K), K summing up to the number of slots.
        """
        if any(slot < 0 for slot in self.slots):
            size = len(self.slots)
        for start in range(0, len(self.slots), size):
            yield FilterRequest(self.slots[start : start + size]).tiled(images)

    def tiled(self, images: int) -> NDArray[np.int64]:
        """The request for a batch: int64 (images, K)."""
        return np.tile(np.asarray(self.slots, dtype=np.int64), (images, 1))

    def __len__(self) -> int:
        return len(self.slots)


def read_part(text: str, got: str) -> tuple[int, ...]:
    """The slots of one part of a request: ``top:K``, ``decisive:K``, ``against:K`` or an id.

    Args:
        text: the part.
        got: what the user wrote.

    Raises:
        UsageError: another form.
    """
    kind, colon, number = text.strip().partition(":")
    if not colon:
        return read_ids(text, FORMS, got)
    if kind not in KINDS:
        raise UsageError(f"filters must be {FORMS}, but got '{got}'")
    (many,) = read_ids(number, FORMS, got)
    if many < 1:
        raise UsageError(f"filters must ask for at least one, as '{kind}:1' does, but got '{got}'")
    return (KINDS[kind],) * min(many, MOST_FILTERS)


def read_ids(text: str, expected: str = FORMS, got: str = "") -> tuple[int, ...]:
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
