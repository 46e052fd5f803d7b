"""The report of `perturb`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..report.sheet import framed, record, sheet
from ..runs.column_folder import ColumnFolder
from ..runtime.drawing.typeface import printable
from .effects import FEWEST, Effect
from .perturbation import Perturbation


def write_perturbation_page(folder: ColumnFolder, result: Perturbation, kinds: Sequence[str]) -> None:
    """Write ``report.html`` of a `perturb` run."""
    facts = {"layer": result.layer, "images": str(result.images)}
    if result.accuracy is not None:
        facts["accuracy"] = f"{result.accuracy:.3f}"
    check = result.summary["control_check"].get("difference")
    if check:
        facts["control minus second control"] = f"{check[0]:+.4f} [{check[1]:+.4f}, {check[2]:+.4f}]"
    frame = framed(
        "perturb",
        "What happens when parts are disturbed",
        result.layer,
        lead="Small disturbances inside each region, against the same ones in area-matched random regions.",
        facts=facts,
        files="effects.csv, effects.parquet and ablation.csv",
        note="All figures are in effects.parquet.",
        about={
            "kinds": list(kinds),
            "fewest": FEWEST,
            "names": {str(k): printable(name) for k, name in result.names.items()},
            "summary": result.summary,
            "ablation": {name: {str(k): drop for k, drop in row.items()} for name, row in result.ablation.items()},
        },
    )
    folder.write("report.html", sheet(frame, _regions(result.effects)))


def _regions(cells: Sequence[Effect]) -> Iterator[str]:
    groups: dict[tuple[str, int | str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        members = vars(cell).copy()
        for name in ("kind", "region", "label", "images"):
            del members[name]
        groups.setdefault((cell.kind, cell.region, cell.label), []).append(members)
    images = {(cell.kind, cell.region, cell.label): cell.images for cell in cells}
    for key, listed in groups.items():
        kind, region, label = key
        members = {"kind": kind, "region": region, "label": label, "images": images[key], "cells": listed}
        yield record(f"{kind} {region} {label}", members)
