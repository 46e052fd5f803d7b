"""What `train` shows: a progress bar on a terminal, a line per unreadable picture, silence in a pipe."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, TextColumn
from rich.text import Text

from ..runtime.drawing.typeface import printable
from .bar import Bar


class TrainingFigures(Protocol):
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


class TrainingBar(Bar):
    """Progress on standard error: running retention, pairs/s, time left.

    Attributes:
        failures: pictures that could not be read, with the reason.
        retention: running mean retention at the last step.
    """

    def __init__(self) -> None:
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.description}"))
        super().__init__(*columns, starting="starting")
        self.failures: dict[str, str] = {}
        self.retention = float("nan")

    def phase(self, doing: str) -> None:
        """Say what is done while no steps are: before the first one, between two, after the last one."""
        self.describe(doing)

    def step(self, figures: TrainingFigures) -> None:
        """Show a step."""
        self.retention = figures.retention
        minutes, seconds = divmod(round(figures.seconds_left), 60)
        aim = f"retention {figures.retention:.3f}"
        if figures.judging:
            aim = f"predicted retention off by {figures.calibration:.3f}"
        described = f"{aim}  {figures.pairs_per_second:.0f} pairs/s  {minutes}:{seconds:02} left"
        self.show(figures.step, figures.steps, described)

    def failure(self, path: Path, message: str) -> None:
        """Report a picture that cannot be read; training goes on."""
        self.failures[str(path)] = message
        self.console.print(Text(f"failed: {printable(message)}"), soft_wrap=True)
