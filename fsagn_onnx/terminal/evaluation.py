"""What `evaluate` says: progress on a terminal, a short table, failures, where the results are."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..evaluation.plots import MISSING
from ..evaluation.result import Evaluation
from .bar import Bar

SHOWN = 4
"""Infills beside one another in the printed table."""


class EvaluationBar(Bar):
    """A bar on standard error, on a terminal only; to be used in a `with` statement."""

    def __init__(self) -> None:
        super().__init__(TextColumn("evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    def image(self, done: int, count: int) -> None:
        """Show how many images are done."""
        self.show(done, count)


def show(evaluation: Evaluation, out: Path | None, plots: list[Path] | None) -> None:
    """Print one table per metric to standard output, and where everything is."""
    console = Console(highlight=False)
    console.print(
        f"layer {evaluation.layer}: {evaluation.images} images, {evaluation.pairs} (image, filter) pairs, "
        f"{len(evaluation.dead)} dead filters left out",
        soft_wrap=True,
    )
    for metric in evaluation.metrics():
        console.print(Text(metric, "bold"))
        console.print(_table(evaluation, metric))
    if out is not None:
        console.print(Text(f"tables  {out / 'evaluation.md'}"), soft_wrap=True)
        console.print(Text(f"report  {out / 'report.html'}"), soft_wrap=True)
        console.print(Text(MISSING if plots is None else f"plots   {out / 'plots'}"), soft_wrap=True)


def _table(evaluation: Evaluation, metric: str) -> Table:
    """The first infill with its interval, the others without; everything is in the files."""
    rows = [row for row in evaluation.rows if row.metric == metric]
    infills = list(dict.fromkeys(row.infill for row in rows))[:SHOWN]
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("method")
    for infill in infills:
        table.add_column(infill or "", justify="right", no_wrap=True)
    cells = {(row.method, row.infill): row.value for row in rows}
    for method in dict.fromkeys(row.method for row in rows):
        found = [cells.get((method, infill)) for infill in infills]
        means = ["" if value is None else f"{value.mean:.3f}" for value in found[1:]]
        table.add_row(method, "" if found[0] is None else str(found[0]), *means)
    return table


def failures(evaluation: Evaluation) -> None:
    """List the images that could not be read, on standard error."""
    console = Console(stderr=True, highlight=False)
    for failure in evaluation.failures:
        console.print(Text(f"failed: {failure.message}"), soft_wrap=True)
