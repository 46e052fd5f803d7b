"""Variants of an explainer file: its precision, whether it preprocesses, and a request fixed inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ExplainerError, UsageError
from ..schema import Meta, one_of, within

PRECISIONS: Final = ("fp32", "fp16", "int8")

MOST_FILTERS: Final = 2**20
"""More filters than any layer has; what is made for each is made only then."""

FILL: Final = -1
"""A slot of `filters` that asks for the strongest filter not asked for by id; in `filter_ids`: nothing was left."""


@dataclass(frozen=True)
class Variant:
    """In what an explainer file differs from the plain one; the object `variant` of its metadata.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``int8``: what the convolutions compute in. Inputs and outputs stay float32.
        preprocessing: the image input is uint8 RGB (N, H0, W0, 3) of any size; the graph resizes and normalises.
        filters: the file answers these filters only, in this order; empty: any. It has no input ``filters`` then.
        top: the file answers the ``top`` strongest filters (of `filters`, where given) and has no input ``filters``.
        loss: how far the answers are from the float32 file's, as measured at export; empty for float32.

    Raises:
        ExplainerError: a precision that is not known, or a number of filters that cannot be.
    """

    precision: Annotated[str, one_of(PRECISIONS)] = "fp32"
    preprocessing: bool = False
    filters: Annotated[tuple[int, ...], Meta(max_length=MOST_FILTERS)] = ()
    top: Annotated[int, within(1, MOST_FILTERS)] | None = None
    loss: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ExplainerError(f"precision must be one of {', '.join(PRECISIONS)}, but is {self.precision!r}")
        if len(set(self.filters)) != len(self.filters) or any(k < 0 for k in self.filters):
            raise ExplainerError(f"filters must be different ids from 0 on, but are {list(self.filters)}")
        if self.top is not None and (self.top < 1 or (self.filters and self.top > len(self.filters))):
            among = f" of {len(self.filters)} filters" if self.filters else ""
            raise ExplainerError(f"top must be at least 1 and no more than there are, but is {self.top}{among}")

    @property
    def slots(self) -> tuple[int, ...] | None:
        """The request inside the file, or None where the file has the input ``filters``."""
        if self.top is not None:
            return (FILL,) * self.top
        return self.filters or None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; null stands for "any" and "not measured"."""
        return {
            "precision": self.precision,
            "preprocessing": self.preprocessing,
            "filters": list(self.filters) or None,
            "top": self.top,
            "loss": dict(self.loss) or None,
        }

    def check(self, count: int) -> None:
        """Refuse a variant that asks for filters that the layer has not.

        Args:
            count: filters of the layer.

        Raises:
            ExplainerError: naming what it asks for.
        """
        if (self.top or 0) > count or len(self.filters) > count or max(self.filters, default=0) >= count:
            asked = f"top {self.top}" if (self.top or 0) > count else f"{len(self.filters)} filters"
            asked += f" up to {max(self.filters)}" if self.filters else ""
            raise ExplainerError(f"variant asks for {asked} of a layer with {count} filters")


def check_request(slots: tuple[int, ...], variant: Variant, source: str) -> None:
    """Refuse a request that a file with a fixed request cannot answer.

    Raises:
        UsageError: an id outside the fixed set, an id of a file that answers the strongest only, or too many.
    """
    fixed = variant.slots
    if fixed is None:
        return
    if any(slot < FILL for slot in slots):
        what = f"'top:{variant.top}'" if variant.top is not None else "'all' or ids"
        raise UsageError(f"{source} answers a request fixed inside, not decisive filters: ask for {what}")
    if variant.top is not None:
        if any(slot != FILL for slot in slots):
            raise UsageError(f"{source} answers its {variant.top} strongest filters only: ask for 'top:{variant.top}'")
        if len(slots) > variant.top:
            raise UsageError(f"{source} answers {variant.top} filters, but {len(slots)} were asked for")
        return
    if missing := [slot for slot in slots if slot != FILL and slot not in fixed]:
        listed = ", ".join(map(str, fixed))
        raise UsageError(f"{source} answers the filters {listed} only, but {missing[0]} was asked for")


def check_filters(filters: NDArray[np.int64], count: int, layer: str, least: int = FILL) -> None:
    """Refuse filters (N, K) that the graph would misread, or that onnxruntime would refuse in its own words.

    Args:
        filters: the request.
        count: filters of the layer.
        layer: its name, for the message.
        least: the smallest number that asks for something, -1, or -3 of files that answer questions about classes.

    Raises:
        UsageError: another id than -1 and those of the layer, or more slots than it has filters.
    """
    if filters.ndim != 2 or filters.shape[1] > count:
        raise UsageError(f"filters must be (N, K) with K <= {count}, all of layer '{layer}', but are {filters.shape}")
    if filters.size and (filters.min() < least or filters.max() >= count):
        wrong = int(filters[(filters < least) | (filters >= count)][0])
        raise UsageError(
            f"no filter {wrong}: layer '{layer}' has {count} filters, 0..{count - 1}; -1 asks for the strongest"
        )


def pick(ids: NDArray[np.int64], peaks: NDArray[np.float32], slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the file's fixed slots answer a request.

    Args:
        ids: (N, F) the filters that the file answered.
        peaks: (N, F) their peaks.
        slots: (N, K) the request, ids or -1.

    Returns:
        (N, K) positions along F; -1 where nothing was left.
    """
    chosen = np.full(slots.shape, FILL, dtype=np.int64)
    for n, row in enumerate(slots):
        strongest = [int(place) for place in np.argsort(-peaks[n], kind="stable") if ids[n, place] not in row]
        for k, slot in enumerate(row):
            if slot == FILL:
                chosen[n, k] = strongest.pop(0) if strongest else FILL
            else:
                chosen[n, k] = int(np.flatnonzero(ids[n] == slot)[0])
    return chosen
