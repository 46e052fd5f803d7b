"""The zoo's results as a table for people and one for programs."""

from __future__ import annotations

import json
import platform
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import onnx2torch
import onnxruntime
import torch

Result = dict[str, Any]

_WORDS = {"passed": "ok", "failed": "**failed**", "crashed": "**crashed**", "late": "**late**", "not made": "-"}


def _counts(results: Iterable[Result]) -> dict[str, int]:
    counts = dict.fromkeys(_WORDS, 0)
    for result in results:
        counts[result["status"]] += 1
    return counts


def _bad(counts: dict[str, int]) -> int:
    return counts["failed"] + counts["crashed"] + counts["late"]


def summary(results: list[Result], rows: int | None = None) -> str:
    """One line: how many of the rows that could be made passed."""
    counts = _counts(results)
    made = len(results) - counts["not made"]
    share = 100 * counts["passed"] / made if made else 0.0
    missing = f"; {rows - len(results)} of {rows} rows are not run yet" if rows and rows > len(results) else ""
    late = f"{counts['late']} are over the time limit; " if counts["late"] else ""
    return (
        f"{counts['passed']} of {made} files convert with parity at every tap ({share:.1f} %); {counts['failed']} fail "
        f"with a message, {counts['crashed']} crash; {late}{counts['not made']} could not be made by their exporter or "
        f"tool{missing}"
    )


def versions() -> dict[str, str]:
    """Of what the files were made and measured with."""
    return {
        "python": platform.python_version(),
        "onnx": onnx.__version__,
        "onnx2torch": getattr(onnx2torch, "__version__", "1.5.15"),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }


def _families(results: list[Result]) -> list[str]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result["family"]].append(result)
    lines = [
        "| family | networks | files | ok | failed | not made | largest error | largest drift |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family in sorted(groups, key=str.lower):
        rows = groups[family]
        counts = _counts(rows)
        errors = [row["error"] for row in rows if row["status"] == "passed"]
        drifts = [row.get("drift", 0.0) for row in rows if row["status"] == "passed"]
        names = dict.fromkeys(row["network"] for row in rows)
        shown = ", ".join(names) if len(names) <= 6 else f"{len(names)}"
        largest, drift = (f"{max(numbers, default=0.0):.1e}" for numbers in (errors, drifts))
        lines.append(
            f"| {family} | {shown} | {len(rows)} | {counts['passed']} | {_bad(counts)} | "
            f"{counts['not made']} | {largest} | {drift} |"
        )
    return lines


def _columns(results: list[Result], key: str, plain: str) -> list[str]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result[key] or plain].append(result)
    lines = [f"| {key} | files | ok | failed | not made |", "|---|---|---|---|---|"]
    for name in sorted(groups):
        counts = _counts(groups[name])
        lines.append(f"| {name} | {len(groups[name])} | {counts['passed']} | {_bad(counts)} | {counts['not made']} |")
    return lines


def plain(text: str) -> str:
    """Without colours, and without the folder that the file lay in; for a cell of a table."""
    return re.sub(r"\S*/(?=model\.onnx)", "", re.sub(r"\x1b\[[0-9;]*m", "", text)).replace("|", "/")[:300]


def _problems(results: list[Result], statuses: tuple[str, ...]) -> list[str]:
    found = [result for result in results if result["status"] in statuses]
    lines = [f"| file | {'what is said' if 'failed' in statuses else 'why'} |", "|---|---|"]
    return [*lines, *(f"| {r['id']} | {plain(str(r['error']))} |" for r in found)] if found else ["none"]


README = re.compile(r"^\| models that convert .*$", re.MULTILINE)


def readme_row(document: Result) -> str:
    """The row of README's table that says how many files were measured, made from coverage.json."""
    networks = "models that convert to torch, of torchvision, timm, Keras, Paddle, onnx"
    return f"| {networks} | {document['summary']} ([all](docs/coverage.md)) | `make coverage` |"


def write_readme(path: Path, document: Result) -> None:
    """Bring README's row up to date."""
    path.write_text(README.sub(lambda _: readme_row(document), path.read_text()))


def write_reports(results: list[Result], folder: Path, rows: int) -> None:
    """Write ``coverage.md`` and ``coverage.json``, and the row of the README beside their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    results = [{**r, "error": plain(r["error"])} if isinstance(r.get("error"), str) else r for r in results]
    results = sorted(results, key=lambda result: (result["family"].lower(), result["id"]))
    taken = ", ".join(f"{name} {version}" for name, version in versions().items())
    by_node = sum(result.get("drift", 0.0) > 0 for result in results)
    text = [
        "# What converts",
        "",
        f"{summary(results, rows)}. Measured by `make coverage` ({taken}).",
        "",
        "A file passes when every conv layer (and, but for detectors, every output) agrees with onnxruntime on two",
        "images: max abs(a - b) / max abs(b) <= 1e-4, or what [design/0002](design/0002-conversion.md) says of the",
        f"{by_node} files that are compared node by node (quantised, or amplifying float32's rounding; their drift is",
        "the difference when both sides run by themselves) and of half precision (2e-2). Weights are random, the",
        "statistics and scales of batch norms too.",
        "",
        *_families(results),
        "",
        *_columns(results, "exporter", ""),
        "",
        *_columns(results, "change", "as exported"),
        "",
        "## Failed",
        "",
        *_problems(results, ("failed", "crashed", "late")),
        "",
        "## Not made",
        "",
        "What the exporter, or the tool behind it, refuses: no file, so nothing to convert.",
        "",
        *_problems(results, ("not made",)),
    ]
    (folder / "coverage.md").write_text("\n".join(text) + "\n")
    document = {"versions": versions(), "rows": rows, "summary": summary(results, rows), "results": results}
    (folder / "coverage.json").write_text(json.dumps(document, indent=1) + "\n")
    if (folder.parent / "README.md").is_file():
        write_readme(folder.parent / "README.md", document)
