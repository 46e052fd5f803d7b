"""Filters grouped by where and on what they fire, for naming by eye: no annotations are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .scores import Floats

MOST_GROUPS: Final = 24
LOPSIDED: Final = 0.9
"""Share of the filters in the largest group above which a grouping says no more than that a few are like no other."""
STRUCTURE: Final = 0.25
"""Silhouette below which there is no substantial structure (Kaufman and Rousseeuw 1990, table 4)."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of filters.

    Attributes:
        numbers: (K,) group of each filter, the largest group is 0; -1 for a filter that is active in no sampled image.
        silhouette: how well the groups are separated, -1 to 1; NaN for a single group.
    """

    numbers: NDArray[np.int64]
    silhouette: float


class Similarity:
    """Collects from images where filters fire together, and on what.

    Args:
        filters: K.
        channels: C of the feature maps.
        grid: (h, w) of the masks.
    """

    def __init__(self, filters: int, channels: int, grid: tuple[int, int]) -> None:
        self._grid = grid
        self._together = np.zeros((filters, filters))
        self._size = np.zeros(filters)
        self._pooled = np.zeros((filters, channels))
        self.active = np.zeros(filters)

    def update(
        self, masks: NDArray[np.bool_], active: NDArray[np.bool_], feature_map: NDArray[np.float32], strong: Floats
    ) -> None:
        """Add one image.

        Args:
            masks: (K, cells).
            active: (K,).
            feature_map: (C, fh, fw), all channels.
            strong: (C,) scale of each channel.
        """
        kept = (masks & active[:, None]).astype(np.float32)
        self._together += kept @ kept.T
        self._size += kept.sum(axis=1)
        self.active += active
        rows, columns = feature_map.shape[1:]
        coarse = np.stack(
            [cv2.resize(mask.reshape(self._grid), (columns, rows), interpolation=cv2.INTER_AREA) for mask in kept]
        )
        weights = coarse.reshape(len(kept), -1)
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
        scaled = np.maximum(feature_map, 0).reshape(len(feature_map), -1) / np.maximum(strong, 1e-9)[:, None]
        self._pooled += np.where(active[:, None], weights @ scaled.T, 0)

    def distances(self) -> Floats:
        """(K, K) in [0, 1]: 1 - half the masks' union IoU - half the cosine of the mask-pooled features."""
        union = self._size[:, None] + self._size[None] - self._together
        where = self._together / np.maximum(union, 1e-9)
        unit = self._pooled / np.maximum(np.linalg.norm(self._pooled, axis=1, keepdims=True), 1e-9)
        distance = 1 - where / 2 - np.clip(unit @ unit.T, 0, 1) / 2
        np.fill_diagonal(distance, 0)
        return np.asarray(np.clip((distance + distance.T) / 2, 0, 1), dtype=np.float64)


def group(similarity: Similarity, wanted: int | None = None) -> Groups:
    """Cluster the filters: average linkage by scipy, as many groups as separate best (silhouette).

    Args:
        similarity: of the filters.
        wanted: number of groups; None: 2 to 24, whichever separates best, or a single one where nearly all filters
            would be in one of them: then no groups stand out.

    Raises:
        UsageError: more groups than active filters.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage

    living = np.flatnonzero(similarity.active > 0)
    numbers = np.full(len(similarity.active), -1, dtype=np.int64)
    if wanted is not None and not 1 <= wanted <= max(len(living), 1):
        raise UsageError(f"groups must be in 1..{len(living)} (the filters that are active), but got {wanted}")
    distance = similarity.distances()[np.ix_(living, living)]
    counts = range(2, min(MOST_GROUPS, len(living) - 1) + 1) if wanted is None else [wanted]
    tree = linkage(distance[np.triu_indices(len(living), 1)], "average") if len(living) > 1 else None
    cuttable = [count for count in counts if 2 <= count < len(living)]
    if tree is None or not cuttable:  # one group, or one per filter
        alone = wanted is not None and wanted > 1
        best_labels = np.arange(len(living)) if alone else np.zeros(len(living), dtype=np.int64)
        numbers[living] = _by_size(best_labels.tolist())
        return Groups(numbers, float("nan"))
    cuts = list(cut_tree(tree, n_clusters=cuttable).T)
    if wanted is None:
        cuts = _standing_out(distance, cuts)
    best, best_labels = float("nan"), np.zeros(len(living), dtype=np.int64)
    for labels in cuts:
        score = silhouette(distance, labels)
        if not best >= score:
            best, best_labels = score, labels
    numbers[living] = _by_size(best_labels.tolist())
    return Groups(numbers, best)


def _standing_out(distance: Floats, cuts: Sequence[NDArray[np.integer]]) -> list[NDArray[np.integer]]:
    """The cuts to choose from: all, or where the best one is lopsided, even ones with structure, if there are any."""

    def lopsided(labels: NDArray[np.integer]) -> bool:
        return bool(np.bincount(labels).max() > LOPSIDED * len(labels))

    scores = [silhouette(distance, labels) for labels in cuts]
    if not lopsided(cuts[int(np.argmax(scores))]):
        return list(cuts)
    return [labels for labels, score in zip(cuts, scores, strict=True) if score >= STRUCTURE and not lopsided(labels)]


def silhouette(distance: Floats, labels: NDArray[np.integer]) -> float:
    """How well groups are separated (Rousseeuw 1987): mean of (b - a) / max(a, b), 0 for a group of one.

    Args:
        distance: (n, n).
        labels: (n,) groups 0, 1, ..., at least two.

    a is the mean distance to the others of the own group, b the least mean distance to another group.
    """
    member = np.eye(int(labels.max()) + 1)[labels]  # (n, groups)
    sizes, sums = member.sum(axis=0), distance @ member
    own = sizes[labels]
    a = (sums * member).sum(axis=1) / np.maximum(own - 1, 1)
    b = np.where(member > 0, np.inf, sums / sizes).min(axis=1)
    return float(np.where(own > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-300), 0).mean())


def _by_size(labels: Iterable[int]) -> NDArray[np.int64]:
    """Numbers in the order of size, ties by first appearance."""
    listed = np.array(list(labels), dtype=np.int64)
    found, first, counts = np.unique(listed, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    renamed = {int(found[old]): new for new, old in enumerate(order)}
    return np.array([renamed[int(label)] for label in listed], dtype=np.int64)
