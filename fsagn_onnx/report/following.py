"""Progress, failures and stages of a long job on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..runtime.stream import Failure
from ..runtime.typeface import printable


class Bar:
    """Progress of one job on standard error, on a terminal only; a context manager.

    Args:
        *columns: of the bar.
        starting: what stands beside it before the first `show`.
    """

    def __init__(self, *columns: ProgressColumn, starting: str = "") -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._task = self._progress.add_task(starting, total=None)

    def show(self, done: int, total: int, described: str = "") -> None:
        """Show how far the job is."""
        self._progress.update(self._task, completed=done, total=total, description=described)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def follow(results: Iterable[object], doing: str) -> None:
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
