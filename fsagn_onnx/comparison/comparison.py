"""`compare`: what moved between two runs, with intervals; for inspection lines and for model updates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..data.files import make_folder, write_file
from ..dissection.scores import Floats
from ..dissection.significance import q_values
from ..errors import UsageError
from ..perturbation.effects import RESAMPLES, paired_test
from ..report.sheet import framed, record, sheet
from ..runs.manifest import brief
from ..runs.tables import csv_text, finite
from .summary import RunSummary, arrays, summarise

FEWEST: Final = 8
"""Things seen in fewer images of a run are left out."""
PAIRED: Final = 0.5
"""Runs that share this part of the images of the smaller one are compared image by image."""


@dataclass(frozen=True)
class Change:
    """One thing in both runs.

    Attributes:
        what: ``area``, ``evidence area``, ``log-odds``, ``peak``, ``place``, ``active``, ``answers``, ``hangs on ...``
            (the share of the support, where runs of `explain` tell it), ``follows ...``, ``part``.
        of: filter or class.
        before: mean in the first run (a name for ``part``).
        after: mean in the second.
        change: after - before; of peaks relative to before; of places the mean distance in image diagonals.
        low: lower end of the 95 % interval of the change.
        high: its upper end.
        q: false-discovery-corrected p value; None for ``part`` and ``place``.
        images: images behind it (the smaller number).
        drifted: q up to the level and a change of at least the asked size (for ``place``: its interval above it).
    """

    what: str
    of: str
    before: float | str | None
    after: float | str | None
    change: float | None
    low: float | None
    high: float | None
    q: float | None
    images: int
    drifted: bool


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        runs: the two folders.
        kind: of both runs.
        paired: whether they were compared image by image.
        images: number of images of each.
        changes: drifted ones first, the largest first.
    """

    runs: tuple[str, str]
    kind: str
    paired: bool
    images: tuple[int, int]
    changes: tuple[Change, ...]

    @property
    def drifted(self) -> tuple[Change, ...]:
        """What drifted."""
        return tuple(change for change in self.changes if change.drifted)


def compare(first: str | Path, second: str | Path, *, level: float = 0.05, least: float = 0.05) -> Comparison:
    """What moved between two runs of `explain`, `dissect` or `perturb`.

    Args:
        first: folder of the run that counts as normal.
        second: folder of the other.
        level: q up to which a change counts.
        least: size from which it counts: shares, IoU, scores and retention as they are, peaks relative to before,
            places in image diagonals.

    Raises:
        OutputError: a folder holds no finished run.
        UsageError: the runs are of different kinds or about different things.

    Example:
        >>> for seed in range(2):
        ...     _ = dissect("model.onnx", "explainer.onnx", "photos", f"run-{seed}", filters="0,1", seed=seed)
        >>> compare("run-0", "run-1").drifted
        ()
    """
    if not 0 < level < 1 or not 0 <= least < 1:
        raise UsageError(f"level and least must be between 0 and 1, but got {level} and {least}")
    before, after = summarise(Path(first)), summarise(Path(second))
    if before.kind != after.kind:
        raise UsageError(f"{first} is a run of '{before.kind}', {second} one of '{after.kind}'; compare like with like")
    for name, value in before.about.items():
        if after.about[name] != value:
            raise UsageError(
                f"the runs differ in {name} ({brief(value)} and {brief(after.about[name])}); only runs of the "
                "same layer, with the same settings, say the same things"
            )
    images = [_images(run) for run in (before, after)]
    together = images[0] & images[1]
    is_paired = bool(together) and len(together) >= PAIRED * min(len(side) for side in images)
    rows = _numbers(before, after, is_paired) + _effects(before, after)
    changes = _judged(rows, level, least) + _places(before, after, least) + _parts(before, after)
    changes.sort(key=lambda change: (not change.drifted, -abs(change.change or 0), change.what, change.of))
    return Comparison((str(first), str(second)), before.kind, is_paired, (before.images, after.images), tuple(changes))


def _images(run: RunSummary) -> set[str]:
    return {image for values in run.values.values() for image in values}


def _numbers(before: RunSummary, after: RunSummary, is_paired: bool) -> list[dict[str, Any]]:
    rows = []
    for seed, key in enumerate(sorted(before.values.keys() | after.values.keys())):
        a, b = before.shares(key), after.shares(key)
        if is_paired:
            common = sorted(a.keys() & b.keys())
            left, right = arrays(a, common), arrays(b, common)
        else:
            left, right = arrays(a, sorted(a)), arrays(b, sorted(b))
        if min(len(left), len(right)) < FEWEST:
            continue
        scale = max(abs(float(left.mean())), 1e-9) if key[0] == "peak" else 1.0
        change, low, high, p = _paired(left, right, seed) if is_paired else _two_samples(left, right, seed)
        rows.append(
            {
                "what": key[0],
                "of": key[1],
                "before": finite(float(left.mean())),
                "after": finite(float(right.mean())),
                "change": finite(change / scale),
                "low": finite(low / scale),
                "high": finite(high / scale),
                "p": p,
                "images": min(len(left), len(right)),
            }
        )
    return rows


def _paired(left: Floats, right: Floats, seed: int) -> tuple[float, float, float, float]:
    mean, low, high, p = paired_test((right - left)[:, None], seed)
    return float(mean[0]), float(low[0]), float(high[0]), float(p[0])


def _two_samples(left: Floats, right: Floats, seed: int) -> tuple[float, float, float, float]:
    """Difference of means: percentile bootstrap of both samples, permutation of their images."""
    rng = np.random.default_rng(seed)
    change = float(right.mean() - left.mean())
    means = [rng.multinomial(len(s), np.full(len(s), 1 / len(s)), size=RESAMPLES) @ s / len(s) for s in (left, right)]
    low, high = np.quantile(means[1] - means[0], [0.025, 0.975])
    pooled = np.concatenate([left, right])
    null = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        mixed = rng.permutation(pooled)
        null[i] = mixed[: len(right)].mean() - mixed[len(right) :].mean()
    p = (1 + int((np.abs(null) >= abs(change) - 1e-15).sum())) / (RESAMPLES + 1)
    return change, float(low), float(high), p


def _effects(before: RunSummary, after: RunSummary) -> list[dict[str, Any]]:
    """Effects of two `perturb` runs: their difference, errors added in squares."""
    from scipy.stats import norm

    rows = []
    for key in sorted(before.effects.keys() & after.effects.keys()):
        (a, error_a), (b, error_b) = before.effects[key], after.effects[key]
        error = max(float(np.hypot(error_a, error_b)), 1e-9)
        rows.append(
            {
                "what": key[0],
                "of": key[1],
                "before": a,
                "after": b,
                "change": finite(b - a),
                "low": finite(b - a - 1.96 * error),
                "high": finite(b - a + 1.96 * error),
                "p": float(2 * norm.sf(abs(b - a) / error)),
                "images": min(before.images, after.images),
            }
        )
    return rows


def _judged(rows: Sequence[dict[str, Any]], level: float, least: float) -> list[Change]:
    q = q_values(np.array([row["p"] for row in rows]))
    changes = []
    for row, value in zip(rows, q.tolist(), strict=True):
        members = {name: row[name] for name in row if name != "p"}
        drifted = value <= level and abs(row["change"] or 0) >= least
        changes.append(Change(**members, q=finite(value), drifted=drifted))
    return changes


def _places(before: RunSummary, after: RunSummary, least: float) -> list[Change]:
    """How far each filter's area moved in the images that both runs have."""
    changes = []
    for seed, of in enumerate(sorted(before.places.keys() & after.places.keys())):
        a, b = before.places[of], after.places[of]
        common = sorted(a.keys() & b.keys())
        if len(common) < FEWEST:
            continue
        moved = np.array([np.hypot(a[i][0] - b[i][0], a[i][1] - b[i][1]) for i in common]) / np.sqrt(2)
        mean, low, high, _ = paired_test(moved[:, None], seed)
        changes.append(
            Change(
                "place", of, None, None, finite(float(mean[0])), finite(float(low[0])), finite(float(high[0])), None,
                len(common), bool(low[0] > least),
            )
        )  # fmt: skip
    return changes


def _parts(before: RunSummary, after: RunSummary) -> list[Change]:
    """Filters that were given a part in both runs, and another one."""
    return [
        Change("part", of, part, after.parts.get(of), None, None, None, None, 0, part != after.parts.get(of))
        for of, part in before.parts.items()
        if part is not None and after.parts.get(of) is not None
    ]


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write ``changes.jsonl``, ``changes.csv`` and ``report.html``.

    Raises:
        OutputError: the folder cannot be written.
    """
    make_folder(out)
    lines = [vars(change) for change in comparison.changes]
    write_file(out / "changes.jsonl", (json.dumps(line, allow_nan=False).encode() + b"\n" for line in lines))
    names = [item.name for item in fields(Change)]
    table = csv_text(names, ([line[name] for name in names] for line in lines))
    write_file(out / "changes.csv", [table.encode("utf-8")])
    write_file(out / "report.html", (piece.encode("utf-8") for piece in _page(comparison, lines)))


def _page(comparison: Comparison, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    first, second = comparison.images
    frame = framed(
        "compare",
        "What moved between two runs",
        comparison.kind,
        lead=(
            "Filters whose areas or parts moved, classes whose decisions hang on others now: the change from the first "
            "run to the second, with 95 % intervals and q values over all changes."
        ),
        facts={
            "before": comparison.runs[0],
            "after": comparison.runs[1],
            "images": f"{first} and {second}, " + ("compared one by one" if comparison.paired else "different ones"),
            "drifted": f"{len(comparison.drifted)} of {len(comparison.changes)}",
        },
        files="changes.csv and changes.jsonl",
    )
    yield from sheet(frame, (record(f"{line['what']} {line['of']}", line) for line in lines))
