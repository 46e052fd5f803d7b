"""One line per evaluation with what the masks are judged by; every figure is on the infill that nothing trained on.

    python -m benchmarks.quality.bars build/datasets/synthetic/vgg/evaluation.json ...

Reads what `evaluate` wrote (or any JSON file with its rows) and prints a Markdown table of the first method, `--method`
says which else. Cells of what was not measured stay empty.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

HELD_OUT = "inpaint"
VERIFY = "blur"


@dataclass(frozen=True)
class Measured:
    """The rows of one file.

    Attributes:
        rows: by (metric, method, infill).
        method: whose line it is.
        images: measured.
        name: of the line.
    """

    rows: dict[tuple[str, str, str | None], dict[str, float]]
    method: str
    images: int
    name: str

    def cell(self, metric: str, infill: str | None = HELD_OUT, *, interval: bool = True) -> str:
        """One figure of the method, with its interval; empty where it was not measured."""
        return self._told(self.rows.get((metric, self.method, infill)), interval)

    def apart(self, other: str) -> str:
        """The paired difference of the method's retention AUC to another one's."""
        direct = self.rows.get((f"AUC - {other}", self.method, HELD_OUT))
        turned = self.rows.get((f"AUC - {self.method}", other, HELD_OUT))
        if direct is None and turned is not None:
            direct = {"mean": -turned["mean"], "low": -turned["high"], "high": -turned["low"]}
        return self._told(direct, True, "+")

    def lift(self) -> str:
        """The lift over random masks, and how many times the feature map's it is."""
        own, base = (self.rows.get(("lift over random", name, HELD_OUT)) for name in (self.method, "activation"))
        if own is None or base is None:
            return ""
        return f"{own['mean']:.3f} ({own['mean'] / base['mean']:.2f}x the feature map's)"

    def beside(self, metric: str) -> str:
        """The figure, and the best of the other methods with its name."""
        others = {
            name: row["mean"] for (title, name, _), row in self.rows.items() if title == metric and name != self.method
        }
        if not others:
            return ""
        best = max(others, key=others.__getitem__)
        return f"{self.cell(metric, None)} ({best} {others[best]:.3f})"

    @staticmethod
    def _told(row: dict[str, float] | None, interval: bool, sign: str = "") -> str:
        if row is None:
            return ""
        mean, low, high = (format(row[key], f"{sign}.3f") for key in ("mean", "low", "high"))
        return f"{mean} [{low}, {high}]" if interval else mean


def columns(found: Measured) -> dict[str, str]:
    """Title and cell of every column."""
    return {
        "data x network": found.name,
        "images": str(found.images),
        "retention AUC": found.cell("retention AUC"),
        "- feature map": found.apart("activation"),
        "- optimise": found.apart("optimise"),
        "lift": found.lift(),
        "share of the gain": found.cell("share of the gain"),
        "on another image": found.cell("mask on another image", interval=False),
        "specificity": found.cell("specificity"),
        "calibration": found.cell("|predicted - measured retention|", VERIFY, interval=False),
        "pointing game": found.beside("pointing game"),
        "part IoU": found.beside("part IoU"),
        "intervention": found.beside("intervention agreement"),
    }


def read(path: Path, method: str | None) -> Measured:
    """One evaluation.

    Raises:
        click.ClickException: the file is none.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = {(row["metric"], row["method"], row["infill"]): row["value"] for row in document["rows"]}
        name = path.parent.name if path.stem == "evaluation" else path.stem
        return Measured(rows, method or document["methods"][0], document["images"], name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.ClickException(
            f"{path} must be an evaluation.json that `fsagn-onnx evaluate` wrote: {error!r}"
        ) from error


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--method", help="Default: the first of each file.")
def main(files: tuple[Path, ...], method: str | None) -> None:
    lines = [columns(read(path, method)) for path in files]
    filled = [title for title in lines[0] if any(line[title] for line in lines)]
    print(f"| {' | '.join(filled)} |\n{'|---' * len(filled)}|")
    for line in lines:
        print(f"| {' | '.join(line[title] for title in filled)} |")


if __name__ == "__main__":
    main()
