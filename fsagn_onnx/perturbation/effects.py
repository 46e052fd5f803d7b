"""What disturbances do, per region x class x disturbance x strength: paired with controls, intervals and q values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..dissection.scores import Floats
from ..dissection.significance import q_values
from ..runs.column_folder import ColumnFolder
from ..runs.tables import finite
from .disturbances import LEVELS

ALL: Final = "all"
"""Class, or disturbance, that stands for all of them."""
RESAMPLES: Final = 999
FEWEST: Final = 5
"""Groups of fewer images are left out."""
MOST: Final = 4000
"""Images per group that are looked at, the first ones: keeps memory flat."""


@dataclass
class Group:
    """The images in which one region was disturbed, of one class or of all.

    Attributes:
        kind: ``filter`` or ``part``.
        id: of the filter, or number of the part.
        label: class, or `ALL`.
        drops: per image (D, LEVELS, 4) changes of the score, see `REGIONS`.
        winners: per image (D, LEVELS, 4) classes decided for.
        classes: per image the judged and the undisturbed decision.
        images: rows of the images in the run.
    """

    kind: str
    id: int
    label: str
    drops: list[NDArray[np.float32]] = field(default_factory=list)
    winners: list[NDArray[np.int32]] = field(default_factory=list)
    classes: list[NDArray[np.int32]] = field(default_factory=list)
    images: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Effect:
    """One cell of the table.

    Attributes:
        kind: ``filter`` or ``part``.
        region: filter id, or name of the part.
        label: class, or ``all``.
        disturbance: its name, or ``all``: the mean over disturbances and strengths.
        level: 1..3, or 0 with ``all``.
        images: how many.
        inside: mean drop of the judged class's score, disturbed inside.
        control: likewise in area-matched random regions.
        complement: likewise outside.
        effect: inside - control, the mean of the paired differences.
        low: lower end of its 95 % bootstrap interval.
        high: upper end.
        p: two-sided, signs of the paired differences flipped at random.
        q: p corrected for all cells of the table (Benjamini & Hochberg).
        flipped: share of images whose decision changes, disturbed inside.
        flipped_control: likewise in the controls.
        accuracy: share of right decisions, undisturbed.
        accuracy_inside: disturbed inside.
        accuracy_control: disturbed in the controls.
    """

    kind: str
    region: int | str
    label: str
    disturbance: str
    level: int
    images: int
    inside: float
    control: float
    complement: float
    effect: float
    low: float
    high: float
    p: float
    q: float
    flipped: float
    flipped_control: float
    accuracy: float
    accuracy_inside: float
    accuracy_control: float


def collect_groups(folder: ColumnFolder, slots: int, classes: Sequence[str]) -> list[Group]:
    """Group the rows of a run by region, once over all classes and once per class."""
    groups: dict[tuple[str, int, str], Group] = {}
    columns = folder.columns
    for start, drops in columns["drops"].slices(folder.rows):
        stop = start + len(drops)
        ids, winners = columns["ids"].read(start, stop), columns["winners"].read(start, stop)
        judged = columns["classes"].read(start, stop)
        for n, slot in np.argwhere(ids >= 0).tolist():
            kind = "filter" if slot < slots else "part"
            for label in (ALL, classes[start + n]):
                key = (kind, int(ids[n, slot]), label)
                group = groups.setdefault(key, Group(*key))
                if len(group.drops) < MOST:
                    group.drops.append(drops[n, slot].copy())
                    group.winners.append(winners[n, slot].copy())
                    group.classes.append(judged[n])
                    group.images.append(start + n)
    order = sorted(groups, key=lambda key: (key[0], key[1], key[2] != ALL, key[2]))
    return [groups[key] for key in order if len(groups[key].drops) >= FEWEST]


def paired_test(differences: Floats, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean, 95 % interval and p value of paired differences.

    Args:
        differences: (n, cells).
        seed: of the resampling.

    Returns:
        mean, low and high (percentile bootstrap over images), and p (two-sided sign-flip test), each (cells,).
    """
    rng = np.random.default_rng(seed)
    count = len(differences)
    mean = differences.mean(axis=0)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    low, high = np.quantile(weights @ differences, [0.025, 0.975], axis=0)
    signs = rng.integers(0, 2, size=(RESAMPLES, count)) * 2 - 1
    null = np.abs(signs @ differences) / count
    p = (1 + (null >= np.abs(mean) - 1e-15).sum(axis=0)) / (RESAMPLES + 1)
    return mean, low, high, p


def effects(groups: Sequence[Group], kinds: Sequence[str], parts: Sequence[str], seed: int) -> list[Effect]:
    """The cells of all groups, with q values over all of them."""
    cells: list[dict[str, Any]] = []
    for group in groups:
        cells += _cells(group, kinds, parts, seed)
    q = q_values(np.array([cell["p"] for cell in cells]))
    return [Effect(**cell, q=finite(value) or 0.0) for cell, value in zip(cells, q.tolist(), strict=True)]


def _cells(group: Group, kinds: Sequence[str], parts: Sequence[str], seed: int) -> list[dict[str, Any]]:
    drops = np.stack(group.drops).astype(np.float64)  # (n, D, L, 4)
    count = len(drops)
    classes, winners = np.stack(group.classes), np.stack(group.winners)
    flipped = winners != classes[:, 1][:, None, None, None]
    right = winners == classes[:, 0][:, None, None, None]
    difference = drops[..., 0] - drops[..., 1:3].mean(axis=3)
    flat = difference.reshape(count, -1)
    flat = np.concatenate([flat.mean(axis=1, keepdims=True), flat], axis=1)
    mean, low, high, p = paired_test(flat, seed)
    region = group.id if group.kind == "filter" else parts[group.id]
    places: list[tuple[str, int, Any]] = [(ALL, 0, (slice(None), slice(None)))]
    places += [(kind, level + 1, (d, level)) for d, kind in enumerate(kinds) for level in range(LEVELS)]
    cells = []
    for i, (kind, level, at) in enumerate(places):
        here = (slice(None), *at)
        values = {
            "inside": drops[..., 0][here].mean(),
            "control": drops[..., 1:3].mean(axis=3)[here].mean(),
            "complement": drops[..., 3][here].mean(),
            "effect": mean[i],
            "low": low[i],
            "high": high[i],
            "p": p[i],
            "flipped": flipped[..., 0][here].mean(),
            "flipped_control": flipped[..., 1:3].mean(axis=3)[here].mean(),
            "accuracy": (classes[:, 0] == classes[:, 1]).mean(),
            "accuracy_inside": right[..., 0][here].mean(),
            "accuracy_control": right[..., 1:3].mean(axis=3)[here].mean(),
        }
        rounded = {name: finite(float(value)) or 0.0 for name, value in values.items()}
        head = {"kind": group.kind, "region": region, "label": group.label}
        cells.append({**head, "disturbance": kind, "level": level, "images": count, **rounded})
    return cells


def control_check(groups: Sequence[Group], seed: int) -> dict[str, Any]:
    """The two area-matched controls against each other: their difference must hold 0 in its interval.

    The interval is over images, each the mean of its regions: regions of one image are not independent.
    """
    by_image: dict[int, list[float]] = {}
    for group in groups:
        if group.label == ALL:
            for image, drop in zip(group.images, group.drops, strict=True):
                by_image.setdefault(image, []).append(float((drop[..., 1] - drop[..., 2]).mean()))
    if not by_image:
        return {}
    per_image = np.array([[np.mean(differences)] for _, differences in sorted(by_image.items())])
    mean, low, high, _ = paired_test(per_image, seed)
    regions = sum(map(len, by_image.values()))
    difference = [finite(float(value[0])) for value in (mean, low, high)]
    return {"difference": difference, "regions": regions, "images": len(by_image)}


def ranking(cells: Sequence[Effect], kind: str) -> dict[str, list[dict[str, Any]]]:
    """Per class, the regions from the one that the model leans on most: by the mean effect of all disturbances."""
    ranked: dict[str, list[dict[str, Any]]] = {}
    flips = smallest_flips(cells)
    for cell in cells:
        if cell.kind == kind and cell.disturbance == ALL:
            ranked.setdefault(cell.label, []).append(
                {
                    "region": cell.region,
                    "images": cell.images,
                    "effect": cell.effect,
                    "interval": [cell.low, cell.high],
                    "q": cell.q,
                    "flipped": cell.flipped,
                    "smallest": flips.get((cell.kind, cell.region, cell.label), {}),
                }
            )
    for rows in ranked.values():
        rows.sort(key=lambda row: -row["effect"])
    return ranked


def smallest_flips(cells: Sequence[Effect]) -> dict[tuple[str, int | str, str], dict[str, int]]:
    """Region and class -> disturbance -> smallest strength that changes half of the decisions or more."""
    found: dict[tuple[str, int | str, str], dict[str, int]] = {}
    for cell in cells:
        if cell.level and cell.flipped >= 0.5:
            levels = found.setdefault((cell.kind, cell.region, cell.label), {})
            levels[cell.disturbance] = min(levels.get(cell.disturbance, LEVELS), cell.level)
    return found


def agreement(
    cells: Sequence[Effect], ablation: Mapping[str, Mapping[int, float]]
) -> dict[str, dict[str, float | int | None]]:
    """Per class: Spearman's correlation of disturbing filters' areas with switching the filters off."""
    from scipy.stats import spearmanr

    found: dict[str, dict[str, float | int | None]] = {}
    for label, drops in ablation.items():
        pairs = [
            (cell.effect, drops[int(cell.region)])
            for cell in cells
            if cell.kind == "filter" and cell.label == label and cell.disturbance == ALL and int(cell.region) in drops
        ]
        if len(pairs) >= FEWEST and all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):
            result = spearmanr(*zip(*pairs, strict=True))
            found[label] = {
                "filters": len(pairs),
                "correlation": finite(float(result.statistic)),
                "p": finite(float(result.pvalue)),
            }
    return found
