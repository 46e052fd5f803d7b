"""Whether a filter's masks follow a part: permutation test per filter, and false-discovery correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..runs.column_folder import ColumnFolder
from .scores import Floats

MAX_IMAGES: Final = 128
"""Images per filter that the test looks at: the filter's strongest ones of the pool."""
MAX_POOL: Final = 2048
"""Annotated images that tests choose from, evenly spaced over the run: keeps memory flat."""
FEWEST: Final = 8
"""A filter that is active in fewer images of the pool is not tested."""


@dataclass(frozen=True, eq=False)
class PlaceTest:
    """Result of the permutation test for K filters and P parts.

    Attributes:
        images: (K,) images tested.
        observed: (K, P) mean IoU in these images.
        expected: (K, P) mean IoU when the masks are laid over the parts of other images.
        p: (K, P) share of permutations whose largest standardised IoU over all parts reaches the part's own
            (Westfall & Young: corrected for the choice among parts); 1 where there is nothing to test.
    """

    images: NDArray[np.int64]
    observed: Floats
    expected: Floats
    p: Floats


def strongest_rows(
    folder: ColumnFolder, limits: Floats, usable: NDArray[np.bool_], count: int
) -> list[NDArray[np.int64]]:
    """Per filter the rows with the highest peaks, strongest first, among usable images where it is active."""
    peaks = folder.columns["peaks"]
    filters = len(limits)
    best = np.full((filters, 0), -np.inf, dtype=np.float32)
    where = np.zeros((filters, 0), dtype=np.int64)
    for start, values in peaks.slices(folder.rows):
        ids = np.arange(start, start + len(values))
        ranked = np.where(usable[ids, None] & (values >= limits), values, -np.inf).T  # (K, n)
        best = np.concatenate([best, ranked], axis=1)
        where = np.concatenate([where, np.broadcast_to(ids, ranked.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, where = np.take_along_axis(best, order, axis=1), np.take_along_axis(where, order, axis=1)
    return [where[k][np.isfinite(best[k])] for k in range(filters)]


def cross_iou(masks: NDArray[np.bool_], cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of the mask of image i with the parts of image j: (n, cells) and (n, P, cells) -> (n, n, P)."""
    count, parts, size = cells.shape
    kept = masks.astype(np.float32)
    inter = (kept @ cells.reshape(count * parts, size).T).reshape(len(kept), count, parts)
    union = kept.sum(axis=1)[:, None, None] + cells.sum(axis=2)[None] - inter
    return np.asarray(inter / np.maximum(union, 1e-9), dtype=np.float32)


def max_test(
    iou: NDArray[np.float32], there: NDArray[np.bool_], orders: NDArray[np.intp]
) -> tuple[Floats, Floats, Floats]:
    """The permutation test of one filter.

    The masks of the filter's images are laid over the parts of its other images. Under the null hypothesis, the mask
    lies where it lies in the picture whatever the parts' places, any such assignment is as good as the true one.

    Args:
        iou: (n, n, P) of `cross_iou`.
        there: (n, P), whether the image has the part.
        orders: (permutations, n), the permutations of the images.

    Returns:
        observed and expected mean IoU and max-corrected p values, each (P,).
    """
    count, _, parts = iou.shape
    permutations = len(orders)
    own, by_part = np.arange(count), np.ascontiguousarray(iou.transpose(2, 0, 1)).reshape(parts, count * count)
    weights = np.maximum(there.sum(axis=0), 1)
    observed = iou[own, own].sum(axis=0) / weights
    null = np.empty((permutations, parts))
    step = max(1, 4_000_000 // max(count * parts, 1))
    for start in range(0, permutations, step):
        drawn = by_part.take(own * count + orders[start : start + step], axis=1)  # (P, step, n)
        null[start : start + step] = drawn.sum(axis=2).T / weights
    expected, spread = null.mean(axis=0), null.std(axis=0)
    scale = np.maximum(spread, 1e-9)
    largest = ((null - expected) / scale).max(axis=1)
    z = (observed - expected) / scale
    p = (1 + (largest[:, None] >= z[None] - 1e-12).sum(axis=0)) / (permutations + 1)
    p[~there.any(axis=0) | (spread < 1e-9)] = 1.0
    return observed, expected, p


def drawn_orders(images: int, permutations: int, seed: int) -> NDArray[np.intp]:
    """Random orders of n images, (permutations, n)."""
    drawn = np.random.default_rng((seed, images)).random((permutations, images))
    return np.asarray(np.argsort(drawn, axis=1))


def place_test(
    folder: ColumnFolder, limits: Floats, grid: tuple[int, int], parts: int, permutations: int, seed: int
) -> PlaceTest:
    """Test every filter of a run; see `max_test`."""
    annotated = np.array([line["annotated"] for line in folder.index()], dtype=np.bool_)
    pool = spread(np.flatnonzero(annotated), MAX_POOL)
    usable = np.zeros(folder.rows, dtype=np.bool_)
    usable[pool] = True
    chosen = strongest_rows(folder, limits, usable, MAX_IMAGES)
    wanted: dict[int, list[int]] = {}
    for k, ids in enumerate(chosen):
        for index in ids.tolist():
            wanted.setdefault(index, []).append(k)
    size = grid[0] * grid[1]
    masks: list[dict[int, NDArray[np.uint8]]] = [{} for _ in chosen]
    cells: dict[int, NDArray[np.uint8]] = {}
    for index in sorted(wanted):
        bits = folder.columns["masks"].row(index)
        cells[index] = part_cells(folder, index, parts)
        for k in wanted[index]:
            masks[k][index] = bits[k]
    result = PlaceTest(
        np.array([len(ids) for ids in chosen]), *(np.full((len(limits), parts), fill) for fill in (0.0, 0.0, 1.0))
    )
    orders: dict[int, NDArray[np.intp]] = {}  # the same for all filters with as many images
    for k, ids in enumerate(chosen):
        if len(ids) < FEWEST:
            continue
        if len(ids) not in orders:
            orders[len(ids)] = drawn_orders(len(ids), permutations, seed)
        own = np.unpackbits(np.stack([masks[k][index] for index in ids.tolist()]), axis=1, count=size)
        own_parts = np.stack([cells[index] for index in ids.tolist()]).astype(np.float32) / np.float32(
            255
        )  # (n, P, cells)
        there = np.asarray(own_parts.any(axis=2))
        outcome = max_test(cross_iou(own.astype(np.bool_), own_parts), there, orders[len(ids)])
        result.observed[k], result.expected[k], result.p[k] = outcome
    return result


def spread(ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most ``count`` of the ids, evenly spaced."""
    if len(ids) <= count:
        return ids
    return ids[np.linspace(0, len(ids) - 1, count).round().astype(np.int64)]


def part_cells(folder: ColumnFolder, index: int, parts: int) -> NDArray[np.uint8]:
    """Coverage of all P parts in one image of a run, uint8 (P, cells); 0 where the image lacks the part."""
    ids, covered = folder.columns["part_ids"].row(index), folder.columns["part_cells"].row(index)
    cells = np.zeros((parts, covered.shape[1]), dtype=np.uint8)
    cells[ids[ids >= 0]] = covered[ids >= 0]
    return cells


def q_values(p: Floats) -> Floats:
    """Benjamini & Hochberg's adjusted p values (1995): q of the i-th smallest of n is the least n p_j / j, j >= i.

    As `scipy.stats.false_discovery_control`, whose import takes longer than a small run.
    """
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(q, 1.0)
