"""What `perturb` says on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any

from ..perturbation.disturbances import LEVELS, REGIONS
from ..perturbation.effects import FEWEST
from ..perturbation.perturbation import Perturbation
from ..perturbation.workload import Workload
from ..runtime.drawing.typeface import printable
from ..runtime.stream import Failure


def perturbation_json(result: Perturbation) -> str:
    """One JSON document: rankings, agreement and where the table is."""
    members = {
        "out": str(result.folder),
        "layer": result.layer,
        "images": result.images,
        "accuracy": result.accuracy,
        "cells": len(result.effects),
        "parts": result.parts,
        "filters": result.filters,
        "summary": result.summary,
    }
    return json.dumps(members, allow_nan=False)


def perturbation_lines(result: Perturbation) -> Iterator[str]:
    """Per class, what the model leans on, and where everything is."""
    accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.3f}"
    yield f"layer {result.layer}: {result.images} images{accuracy}"
    yield "drop of the class's score, inside minus area-matched control, mean over disturbances and strengths:"
    ranked = result.parts or result.filters
    if not any(ranked.values()):
        yield (
            f"  nothing: no part or filter was disturbed in {FEWEST} images or more; give more images, the same "
            "filters for all (--filters 3,17), or annotated parts (--parts)"
        )
    for label, rows in ranked.items():
        yield f"  {printable(label)}"
        for row in rows[:3]:
            low, high = row["interval"]
            weak = ", ".join(f"{kind} {level}" for kind, level in sorted(row["smallest"].items(), key=lambda i: i[1]))
            fragile = f"  half of the decisions flip at {weak}" if weak else ""
            interval = f"{row['effect']:+.3f} [{low:+.3f}, {high:+.3f}]"
            yield f"    {_region(result, row):<24} {interval}  q {row['q']:.3f}{fragile}"
    for label, figures in result.summary["agreement"].items():
        if label == "all":
            yield (
                f"switching filters off agrees with disturbing their areas: Spearman {figures['correlation']:.2f} "
                f"over {figures['filters']} filters"
            )
    yield f"table     {result.folder / 'effects.csv'}"
    yield f"report    {result.folder / 'report.html'}"


def workload_line(work: Workload) -> str:
    """What a run is going to do, before it starts."""
    parts = " and every annotated part" if work.parts else ""
    factors = f"{_some(work.images, 'image')} x {_some(work.filters, 'filter')}{parts}"
    strengths = f"{_some(work.disturbances, 'disturbance')} x {LEVELS} strengths x {len(REGIONS)} places"
    up_to = "at least" if work.parts else "up to"
    switched = f"; and {work.ablated:,} filters switched off in each image" if work.ablated else ""
    return f"{factors} x {strengths}: {up_to} {work.passes:,} passes through the model{switched}"


def saying_time(
    results: Iterable[object], images: int, say: Callable[[str], object], clock: Callable[[], float] = monotonic
) -> Iterator[object]:
    """Pass results on; after the first one, say how long the others take.

    Args:
        results: one per image.
        images: how many will come.
        say: is told the line.
        clock: seconds.
    """
    started, told = clock(), images < 2
    for result in results:
        if not told and not isinstance(result, Failure):
            taken, told = clock() - started, True
            say(f"the first image took {_duration(taken)}: about {_duration(taken * (images - 1))} for the others")
        yield result


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _region(result: Perturbation, row: dict[str, Any]) -> str:
    if isinstance(row["region"], str):
        return printable(row["region"])
    name = result.names.get(row["region"])
    return f"filter {row['region']}" + (f" ({printable(name)})" if name else "")
