"""From the sums of a run to the rows of its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runs.tables import finite
from ..statistics.bootstrap import Interval
from .decisive import DecisiveFilters
from .dissection import LEVEL, METRICS, FilterRow
from .groups import Groups
from .scores import DETECTOR, Floats, Scores
from .significance import FEWEST, PlaceTest, q_values
from .untrained import UntrainedTest


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything that a run found out, K filters and P parts.

    Attributes:
        filters: ids.
        parts: names.
        limits: (K,) peaks from which filters are active.
        overall: sums over all images.
        per_class: sums per class.
        place: permutation test, or None without annotations.
        untrained: comparison with untrained networks, or None where it cannot be made.
        groups: of the filters.
        references: per filter the images in which it is strongest.
        names: that the user gave.
        decisive: which of them carry the answers, where that was asked.
    """

    filters: tuple[int, ...]
    parts: tuple[str, ...]
    limits: Floats
    overall: Scores
    per_class: Mapping[str, Scores]
    place: PlaceTest | None
    untrained: UntrainedTest | None
    groups: Groups
    references: Sequence[tuple[str, ...]]
    names: Mapping[int, str]
    decisive: DecisiveFilters | None = None

    def p_values(self) -> Floats:
        """(K, P), the larger of both tests' p values: a part is given where both null hypotheses fall."""
        if self.place is None:
            return np.ones((len(self.filters), len(self.parts)))
        return self.place.p if self.untrained is None else np.maximum(self.place.p, self.untrained.p)

    def chosen_p_values(self) -> Floats:
        """(K, P), the same for the one part that a filter is given: untrained filters choose theirs in the same way."""
        if self.place is None or self.untrained is None:
            return self.p_values()
        return np.maximum(self.place.p, self.untrained.chosen_p)


def filter_rows(found: Findings) -> tuple[FilterRow, ...]:
    """The rows of the table, in the order of the filters."""
    metrics = found.overall.compute()
    p = found.p_values()
    metrics["p"] = p
    metrics["expected_iou"] = np.full_like(p, np.nan) if found.place is None else found.place.expected
    entropy = found.overall.entropy()
    best, q = _best_parts(found, metrics["matched_iou"], found.chosen_p_values())
    classes = {name: (scores.active, scores.images, scores.compute()["matched_iou"]) for name, scores in
               found.per_class.items()}  # fmt: skip
    rows = []
    for k, number in enumerate(found.filters):
        named = best[k] >= 0 and q[k] <= LEVEL
        also = _further(found, metrics["matched_iou"][k], p[k], int(best[k])) if named else ()
        rows.append(
            FilterRow(
                filter=number,
                name=found.names.get(number),
                part=found.parts[best[k]] if named else None,
                also=also,
                q=finite(q[k]),
                best=found.parts[best[k]] if best[k] >= 0 else None,
                frequency=finite(found.overall.active[k] / max(found.overall.images, 1)) or 0.0,
                active=int(found.overall.active[k]),
                entropy=finite(entropy[k]) if found.parts else None,
                group=int(found.groups.numbers[k]) if found.groups.numbers[k] >= 0 else None,
                threshold=finite(found.limits[k]),
                parts={
                    part: {metric: finite(metrics[metric][k, i]) for metric in METRICS}
                    for i, part in enumerate(found.parts)
                },
                classes={name: _in_class(found.parts, k, *sums) for name, sums in classes.items() if sums[0][k]},
                references=found.references[k],
                decisive={} if found.decisive is None else found.decisive.of(number),
            )
        )
    return tuple(rows)


def _best_parts(found: Findings, iou: Floats, p: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Best part of every filter by size-matched IoU (-1: none), and the q value that it has (NaN: not tested)."""
    best = np.full(len(found.filters), -1, dtype=np.int64)
    q = np.full(len(found.filters), np.nan)
    if found.place is None:
        return best, q
    seen = np.isfinite(iou).any(axis=1)
    best[seen] = np.nan_to_num(iou[seen], nan=-1).argmax(axis=1)
    tested = np.flatnonzero(seen & (found.place.images >= FEWEST))
    q[tested] = q_values(p[tested, best[tested]])
    return best, q


def _further(found: Findings, iou: Floats, p: Floats, best: int) -> tuple[str, ...]:
    """Further parts of a filter: both tests agree (corrected for the choice among parts), and IoU as of a detector."""
    order = np.argsort(-np.nan_to_num(iou), kind="stable")
    return tuple(
        found.parts[i] for i in order.tolist() if i != best and p[i] <= LEVEL and np.nan_to_num(iou[i]) > DETECTOR
    )


def _in_class(parts: tuple[str, ...], k: int, active: Floats, images: int, iou: Floats) -> dict[str, Any]:
    members: dict[str, Any] = {"active": int(active[k]), "frequency": finite(active[k] / max(images, 1))}
    if parts and np.isfinite(iou[k]).any():
        best = int(np.nan_to_num(iou[k], nan=-1).argmax())
        members |= {"best": parts[best], "matched_iou": finite(iou[k, best])}
    return members


def summary(found: Findings, rows: Sequence[FilterRow], moved: Interval | None) -> dict[str, Any]:
    """Figures of the whole layer; ``moved`` is `instability_difference`."""
    members: dict[str, Any] = {
        "filters": len(rows),
        "dead": sum(row.threshold is None for row in rows),
        "groups": int(found.groups.numbers.max(initial=-1)) + 1,
        "silhouette": finite(found.groups.silhouette),
        "classes": {name: scores.images for name, scores in found.per_class.items()},
        **({} if found.decisive is None else {"decisive": found.decisive.to_dict()}),
    }
    if found.place is None or moved is None:
        return members
    named = [row for row in rows if row.part is not None]
    counts = {part: sum(row.part == part for row in named) for part in found.parts}
    metrics = found.overall.compute()
    best = [found.parts.index(row.best) for row in rows if row.best is not None]
    at = (np.array([k for k, row in enumerate(rows) if row.best is not None], dtype=np.int64), np.array(best, np.int64))
    members |= {
        "tested": sum(row.q is not None for row in rows),
        "named": len(named),
        "named_per_part": counts,
        "detectors": sum(any((values["iou"] or 0) > DETECTOR for values in row.parts.values()) for row in rows),
        "untrained_filters": 0 if found.untrained is None else found.untrained.filters,
        "instability": {
            "mask": _mean(metrics["instability"][at]),
            "peak": _mean(metrics["peak_instability"][at]),
            "difference": [finite(moved.mean), finite(moved.low), finite(moved.high)],
        },
    }
    return members


def _mean(values: Floats) -> float | None:
    kept = values[np.isfinite(values)]
    return finite(float(kept.mean())) if kept.size else None
