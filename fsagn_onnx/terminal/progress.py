"""Progress, failures and stages of a long job on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..runtime.drawing.typeface import printable
from ..runtime.stream import Failure


def show_progress(results: Iterable[object], doing: str) -> None:
    """Consume the results of a job; failures go to standard error, progress only to a terminal.

    Args:
        results: a `Failure` or anything else per image.
        doing: the job in a word, "dissecting".
    """
    console = Console(stderr=True, highlight=False)
    columns = (SpinnerColumn(), TextColumn(doing), TextColumn("{task.completed} images"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for result in results:
            if isinstance(result, Failure):
                console.print(Text(f"failed: {printable(result.message)}"), soft_wrap=True)
            progress.advance(task)


def stage(doing: str) -> None:
    """Say what a job does now; on a terminal only."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        console.print(Text(f"{doing} ..."), style="dim")
