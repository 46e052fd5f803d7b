"""Detectors whose heads are outputs of their own, a pair for each map: scores, and distributions of the distances."""

from __future__ import annotations

from .box_heads import STRIDES
from .detector import Detector, DetectorSearch
from .outputs import Output

__all__ = ["find_levels"]


def find_levels(search: DetectorSearch, layout: str) -> Detector | None:
    """PicoDet: for every stride scores (N, cells, classes) and distributions over distances (N, cells, 4 bins).

    A distance from the cell's centre to a side is the mean of a softmax over its bins, in strides (Li et al. 2020,
    Generalized Focal Loss).
    """
    pairs: dict[int, tuple[Output, Output]] = {}
    for stride in STRIDES:
        cells = -(-search.size[0] // stride) * -(-search.size[1] // stride)
        here = [o for o in search.of_rank(3) if o.axis == 0 and o.floating and o.shape and o.shape[1] == cells]
        scores = [o for o in here if search.trace.squashed(o.name) is not None]
        sides = [o for o in here if o not in scores and _bins(o) is not None and search.trace.raw(o.name)]
        if len(scores) == 1 and len(sides) == 1:
            pairs[stride] = scores[0], sides[0]
    widths = {((one.shape or ())[2:], _bins(other)) for one, other in pairs.values()}
    if len(pairs) < 2 or len(widths) != 1:
        return None
    roles = {f"scores{stride}": one.name for stride, (one, _) in pairs.items()}
    roles |= {f"boxes{stride}": other.name for stride, (_, other) in pairs.items()}
    (classes, _), strides = widths.pop(), ", ".join(map(str, pairs))
    reason = f"scores and distances for each cell of stride {strides}"
    return Detector(layout, roles, classes=classes[0], suppress=True, reason=reason)


def _bins(item: Output) -> int | None:
    width = (item.shape or (None,))[-1]
    return width // 4 if width is not None and width >= 8 and width % 4 == 0 else None
