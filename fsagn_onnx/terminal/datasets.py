"""What a large run says: progress, what failed, and where the dataset is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ..runs.folder import ROWS
from ..runs.manifest import MANIFEST
from ..runtime.drawing.typeface import printable
from ..scale.dataset import FAILED, SAMPLE, DatasetFolder
from ..scale.work import Outcome

MAX_FAILED: Final = 20
"""Failures that are printed; all are in the folder."""


class DatasetTerminal:
    """Prints what failed and how far the run is, to standard error; where everything is, to standard output.

    Args:
        quiet: print nothing to standard output but a JSON document.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = Console(highlight=False, quiet=quiet)
        self._err = Console(stderr=True, highlight=False)
        self._failed = 0

    def hint(self, text: str) -> None:
        """A piece of advice, on standard error."""
        self._err.print(Text(f"hint: {text}"), soft_wrap=True)

    def follow_parts(self, outcomes: Iterable[Outcome], pictures: int) -> Iterator[Outcome]:
        """Pass outcomes on; progress is shown where standard error is a terminal."""
        columns = (
            TextColumn("explaining"),
            BarColumn(),
            TextColumn("{task.completed} of {task.total} images"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns,
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as progress:
            task = progress.add_task("", total=pictures)
            for outcome in outcomes:
                for failed in outcome.facts.failures:
                    self._say_failed(failed.message)
                progress.advance(task, outcome.facts.explained + len(outcome.facts.failures))
                yield outcome

    def _say_failed(self, message: str) -> None:
        self._failed += 1
        if self._failed <= MAX_FAILED:
            self._err.print(Text(f"failed: {printable(message)}"), soft_wrap=True)
        elif self._failed == MAX_FAILED + 1:
            self._err.print(f"... further failures are in {FAILED} only")

    def dataset_summary(self, folder: DatasetFolder, *, as_json: bool) -> None:
        """Counts, and where everything is."""
        store = folder.store
        if as_json:
            members = {"out": store.where, "manifest": store.at(MANIFEST), "rows": store.at(ROWS),
                       "counts": folder.members()["counts"], "failures": folder.members()["failures"]}  # fmt: skip
            print(json.dumps(members))  # noqa: T201
            return
        lines = [
            f"{folder.explained} explained, {len(folder.failures)} failed",
            f"rows      {store.at(ROWS)}",
            *([f"failed    {store.at(FAILED)}"] if folder.failures else []),
            *([f"sample    {store.at(SAMPLE)}/report.html"] if store.has(SAMPLE) else []),
        ]
        for line in lines:
            self._out.print(Text(line), soft_wrap=True)
