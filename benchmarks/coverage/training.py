"""Whether `inspect` keeps its word: what it calls trainable trains, exports and agrees in onnxruntime.

    python -m benchmarks.coverage.training [--only TEXT] [--results build/coverage-train.jsonl] [--again] [--report]

Takes a row of every family of the coverage zoo (benchmarks/coverage), of every exporter and of every kind of change
(quantised, half, optimised). Each is inspected, then trained for some pairs through the ramp of smaller inputs, then
exported; export refuses to write a file that onnxruntime and torch disagree about, so a row that is written has passed.
A line per row is appended to the results at once, and a run goes on where it was interrupted. Writes
docs/coverage-train.json and docs/coverage-train.md.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import cv2
import torch

from fsagn_onnx.errors import FsagnError
from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import load_model
from fsagn_onnx.testing.synthetic import SyntheticParts

from .check import require_session
from .rows import Row, all_rows
from .running import run_stored, stored
from .table import plain, versions

OPTIONS = TrainingOptions(pairs=12, images_per_step=2, filters_per_image=2)
"""Three steps: one at each size of the ramp."""

WORDS = {
    "passed": "yes, and it trains, exports and agrees",
    "refused": "no, and `train` says the same before its first step",
    "surprise": "**yes, but `train` fails**",
    "modest": "**no, but `train` succeeds**",
    "crashed": "**crash**",
    "late": "**over the time limit**",
    "not made": "could not be made by its exporter or tool",
}
"""Status -> what `inspect` said and what came of it."""


BY_DYNAMO = ("BAT", "HaloNet")
"""Families that torch's classic exporter cannot write."""


def chosen() -> list[Row]:
    """The first plain row of every family, the first of every exporter, then of every kind of change.

    Of a family what the classic exporter writes, if it can.
    """
    rows = all_rows()
    kept: dict[str, Row] = {}
    for key in ("family", "exporter"):
        seen: set[str] = set()
        for row in rows:
            other = key == "family" and ("dynamo" in row.exporter) != (row.family in BY_DYNAMO)
            if not row.change and getattr(row, key) not in seen and not other:
                seen.add(getattr(row, key))
                kept.setdefault(row.id, row)
    changes: set[str] = set()
    for row in rows:
        if row.change and row.change not in changes:
            changes.add(row.change)
            kept.setdefault(row.id, row)
    return list(kept.values())


def trained(row: Row) -> dict[str, Any]:
    """What `inspect` says of one row, and what became of it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fsagn-coverage-") as base:
        folder = Path(base)
        file = folder / "model.onnx"
        row.build(file)
        result: dict[str, Any] = {"built_s": round(time.monotonic() - started, 2)}
        started = time.monotonic()
        try:
            document = inspect_file(file)
        except FsagnError as error:
            require_session(file)
            document = {"trainable": None, "trial": f"{type(error).__name__}: {error}"}
        said = bool(document["trainable"])
        if not said:
            trial = document["trial"] if document["trial"] != "not tried" else document["conversion"]
            result["trial"] = trial if trial != "not tried" else "; ".join(document["warnings"])
        pictures = folder / "pictures"
        pictures.mkdir()
        for index, picture in enumerate(SyntheticParts("train", 8)):
            cv2.imwrite(str(pictures / f"{index}.png"), picture.image[..., ::-1])
        try:
            model = load_model(file)
            result["layer"] = model.default_layer.value
            report = train(model, [pictures], folder / "explainer.onnx", options=OPTIONS, overwrite=True)
        except FsagnError as error:
            result |= {"status": "surprise" if said else "refused", "error": f"{type(error).__name__}: {error}"}
        else:
            result |= {"status": "passed" if said else "modest", "retention": report.retention}
            result |= {"order": report.saliency, "outputs": report.outputs}
        result["checked_s"] = round(time.monotonic() - started, 2)
    return result


def summary(results: list[dict[str, Any]], rows: int) -> str:
    """In one line: how often `inspect` was right."""
    counts = Counter(result["status"] for result in results)
    made = len(results) - counts["not made"]
    right = counts["passed"] + counts["refused"]
    late = f"{counts['late']} are over the time limit; " if counts["late"] else ""
    missing = f"; {rows - len(results)} of {rows} rows are not run yet" if rows > len(results) else ""
    return (
        f"`inspect` was right about {right} of {made} files: {counts['passed']} train and export with parity, "
        f"{counts['refused']} are refused before the first step; {counts['surprise'] + counts['crashed']} surprise, "
        f"{late}{counts['modest']} train although it said no; {counts['not made']} could not be made{missing}"
    )


def write_reports(results: list[dict[str, Any]], folder: Path, rows: int) -> None:
    """Write ``coverage-train.md`` and ``coverage-train.json``."""
    results = [
        {
            key: plain(value) if key in ("error", "trial") and isinstance(value, str) else value
            for key, value in r.items()
        }
        for r in sorted(results, key=lambda result: (result["family"].lower(), result["id"]))
    ]
    taken = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        "# What trains",
        "",
        f"{summary(results, rows)}. Measured by `python -m benchmarks.coverage.training` ({taken}).",
        "",
        "A file of every family, exporter and kind of change of the [coverage zoo](coverage.md): `inspect`, then a",
        f"training of {OPTIONS.pairs} pairs that meets every size of the ramp, then the export with its proof. Shown:",
        "the largest difference of retention between onnxruntime and torch (allowed: 1e-4), the largest drop of",
        "saliency along onnxruntime's order (1e-3), and the largest relative difference of the",
        "model's own outputs from the plain model's (1e-4).",
        "",
        "| family | file | does `inspect` say that it trains? | layer | retention | order | outputs |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        shown = "".join(f" {r[key]:.1e} |" if key in r else " |" for key in ("retention", "order", "outputs"))
        layer = f"`{r['layer']}`" if r.get("layer") and "`" not in r["layer"] else ""
        lines.append(f"| {r['family']} | {r['id']} | {WORDS[r['status']]} | {layer} |{shown}")
    told = [r for r in results if r["status"] != "passed"]
    if told:
        lines += ["", "## Where it does not train", "", "| file | what is said |", "|---|---|"]
        lines += [f"| {r['id']} | {r.get('error') or r.get('trial', '')} |" for r in told]
    (folder / "coverage-train.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    document = {"versions": versions(), "rows": rows, "summary": summary(results, rows), "results": results}
    (folder / "coverage-train.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _told(found: dict[str, Any]) -> None:
    seconds = found.get("built_s", 0) + found.get("checked_s", 0)
    print(f"{found['status']:9s}{found['family']:24s}{found['id']:50s}{seconds:7.1f} s", flush=True)
    if "error" in found:
        print(f"         {found['error']}", flush=True)


@click.command()
@click.option("--only", default="", help="Rows whose name contains this text; no report is written.")
@click.option("--results", type=Path, default=Path("build/coverage-train.jsonl"), show_default=True)
@click.option("--again", is_flag=True, help="Repeat the rows that did not pass.")
@click.option("--report", is_flag=True, help="Run nothing; write the report of what was run.")
@click.option("--docs", type=Path, default=Path("docs"), show_default=True, help="Folder of the report.")
def main(only: str, results: Path, again: bool, report: bool, docs: Path) -> None:
    """Train a generator for a file of every kind of the zoo."""
    torch.set_num_threads(1)
    rows = [row for row in chosen() if only in row.id]
    if report:
        known = stored(results)
        found = [known[row.id] for row in rows if row.id in known]
    else:
        found = run_stored(rows, results, 1, _told, again=again, examine=trained)
    print(summary(found, len(rows)))
    if not only:
        write_reports(found, docs, len(rows))
    raise SystemExit(any(r["status"] not in ("passed", "refused", "not made") for r in found))


if __name__ == "__main__":
    main()
