"""Progress of a long job on the terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn


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

    def describe(self, text: str) -> None:
        """Say what the job does now, however far it is."""
        self._progress.update(self._task, description=text)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
