"""Which filters carry the model's answers in a set of pictures: those are looked at, and counted per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError, UsageError
from ..runs.tapped_explainer import TappedExplainer
from ..runtime.classes import Classes
from ..runtime.contract import DECISIVE
from ..runtime.filter_request import FilterRequest
from ..runtime.stream import DECODERS, Prepared, ordered_map, prepare

__all__ = ["DecisiveFilters", "asked_decisive", "find_decisive"]


@dataclass(frozen=True)
class DecisiveFilters:
    """Filters that are among the K which add most to the model's answer, counted over pictures.

    Attributes:
        most: K.
        pictures: class -> pictures in which it is the answer.
        counts: class -> filter -> in how many of these the filter is among the K.
        given: ids that are looked at too.
    """

    most: int
    pictures: Mapping[str, int]
    counts: Mapping[str, Mapping[int, int]]
    given: tuple[int, ...] = ()

    @property
    def filters(self) -> tuple[int, ...]:
        """Ids, ascending: decisive in at least one picture, or given."""
        return tuple(sorted({*self.given, *(k for found in self.counts.values() for k in found)}))

    def of(self, filter: int) -> dict[str, int]:
        """Class -> in how many pictures a filter is decisive for it, the most first."""
        found = [(name, counts[filter]) for name, counts in self.counts.items() if filter in counts]
        return dict(sorted(found, key=lambda item: (-item[1], item[0])))

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON; what the summary of a run holds."""
        return {"most": self.most, "pictures": dict(self.pictures)}


def asked_decisive(request: FilterRequest) -> int:
    """How many decisive filters of each picture a request asks for; 0: the filters are the same in all.

    Raises:
        UsageError: it asks for other filters that each picture chooses.
    """
    wishes = [slot for slot in request.slots if slot < 0]
    if any(slot != DECISIVE for slot in wishes):
        raise UsageError("filters to dissect must be 'all', ids like '3,17', or 'decisive:K'")
    return len(wishes)


def find_decisive(
    tapped: TappedExplainer, classes: Classes, request: FilterRequest, images: Iterable[Path], batch_size: int
) -> DecisiveFilters:
    """Find the decisive filters of every picture, in a pass of its own; pictures that cannot be read are left out.

    Args:
        tapped: the explainer.
        classes: how the model's outputs are read.
        request: asks for ``decisive:K``, and perhaps for ids.
        images: the pictures.
        batch_size: pictures per pass.

    Raises:
        ImageError: no picture could be read.
        UsageError: the explainer cannot be asked about classes.
    """
    most = asked_decisive(request)
    pictures: Counter[str] = Counter()
    counts: dict[str, Counter[int]] = {}
    named = ((str(path), path) for path in images)
    prepared = ordered_map(lambda item: prepare(item, tapped.spec, preview=False), named, DECODERS, batch_size)
    try:
        while batch := list(islice(prepared, batch_size)):
            ready = [item.values for item in batch if isinstance(item, Prepared)]
            if not ready:
                continue
            for number, filters in tapped.decisive(np.stack(ready), most):
                name = classes.name(number)
                pictures[name] += 1
                counts.setdefault(name, Counter()).update(filters)
    finally:
        prepared.close()
    if not pictures:
        raise ImageError("no image could be looked at, so no filter is decisive")
    given = tuple(slot for slot in request.slots if slot >= 0)
    return DecisiveFilters(most, dict(sorted(pictures.items())), counts, given)
