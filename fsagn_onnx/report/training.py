"""What `train` shows: a progress bar on a terminal, a line per unreadable picture, silence in a pipe."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from ..runtime.typeface import printable


class Step(Protocol):
    """The figures of a step that are shown; `generator.Progress` has them."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def steps(self) -> int:
        """Steps in all."""

    @property
    def pairs_per_second(self) -> float:
        """Speed."""

    @property
    def retention(self) -> float:
        """Running mean."""

    @property
    def seconds_left(self) -> float:
        """At the present speed."""

    @property
    def calibration(self) -> float:
        """Running mean of |predicted - true| retention."""

    @property
    def judging(self) -> bool:
        """The masks are done; the retention head learns by itself."""


class TrainingBar:
    """Progress on standard error: running retention, pairs/s, time left.

    Attributes:
        failures: pictures that could not be read, with the reason.
        retention: running mean retention at the last step.
    """

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.retention = float("nan")
        self._console = Console(stderr=True, highlight=False)
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task: TaskID = self._progress.add_task("starting", total=None)

    def step(self, figures: Step) -> None:
        """Show a step."""
        self.retention = figures.retention
        minutes, seconds = divmod(round(figures.seconds_left), 60)
        aim = f"retention {figures.retention:.3f}"
        if figures.judging:
            aim = f"predicted retention off by {figures.calibration:.3f}"
        described = f"{aim}  {figures.pairs_per_second:.0f} pairs/s  {minutes}:{seconds:02} left"
        self._progress.update(self._task, completed=figures.step, total=figures.steps, description=described)

    def failure(self, path: Path, message: str) -> None:
        """Report a picture that cannot be read; training goes on."""
        self.failures[str(path)] = message
        self._console.print(Text(f"failed: {printable(message)}"), soft_wrap=True)

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
