"""What `explain` says: a short table per image, failures, and where the results are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..explanations.folder import REPORT, ExplanationFolder
from ..explanations.job import Written
from ..explanations.json_document import json_pieces
from ..runs.manifest import MANIFEST
from ..runtime.drawing.typeface import printable
from ..runtime.explained_area import Area, Evidence
from ..runtime.explanation import Explanation
from ..runtime.findings import percent
from ..runtime.keeping import keeping, kept, kept_how, sized
from ..runtime.sentence import sentence
from ..runtime.stream import Failure
from ..runtime.wording import answer_lines

MAX_TABLES: Final = 20
"""Images whose table is printed; the results of the others are in the folder."""
MAX_ROWS: Final = 10
"""Filters in one table."""


class Terminal:
    """Prints results as they come: tables to standard output, failures and progress to standard error.

    Args:
        quiet: print nothing to standard output.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._out = Console(highlight=False, quiet=quiet)
        self._err = Console(stderr=True, highlight=False)
        self._printed = 0

    def follow(self, results: Iterable[Written | Failure]) -> Iterator[Written | Failure]:
        """Pass results on, printed, with progress where standard error or output is a terminal."""
        watched = self._out if self._out.is_terminal and not self._out.quiet else self._err
        columns = (
            SpinnerColumn(),
            TextColumn("explaining"),
            TextColumn("{task.completed} images"),
            TimeElapsedColumn(),
        )
        with Progress(
            *columns,
            console=watched,
            transient=True,
            disable=not watched.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as progress:
            task = progress.add_task("", total=None)
            for result in results:
                self._show(result)
                progress.advance(task)
                yield result

    def _show(self, result: Written | Failure) -> None:
        if isinstance(result, Failure):
            self._err.print(Text(f"failed: {printable(result.message)}"), soft_wrap=True)
            return
        self._printed += 1
        if self._printed <= MAX_TABLES:
            for line in image_lines(result.explanation):
                self._out.print(line, soft_wrap=isinstance(line, Text))
        elif self._printed == MAX_TABLES + 1:
            self._out.print("... further images are written, but not listed here")

    def hint(self, text: str) -> None:
        """A piece of advice, on standard error."""
        self._err.print(Text(f"hint: {text}"), soft_wrap=True)

    def summary(self, folder: ExplanationFolder, provider: str) -> None:
        """Counts, where everything is, and the next command."""
        where = folder.path
        lines = [
            f"{folder.explained} explained, {folder.failed} failed, on {provider}",
            *(
                (f"pictures  {where / 'overlays'}", f"masks     {where / 'masks'}", f"report    {where / REPORT}")
                if folder.explained
                else (f"no report: no image could be explained; the failures are in {where / MANIFEST}",)
            ),
        ]
        for line in lines:
            self._out.print(Text(line), soft_wrap=True)


def image_lines(explanation: Explanation) -> Iterator[Text | Table]:
    """Name and size, the model's answers, and a table of the filters."""
    height, width = explanation.size
    yield Text.assemble((printable(explanation.name), "bold"), f"  {width} x {height}")
    for line in answer_lines(explanation, places=True):
        yield Text("  " + printable(line))
    for found in explanation.evidence:
        yield Text("  " + printable(sentence(explanation, found) or _evidence(found)))
    decided = any(explained.contribution is not None for explained in explanation.filters)
    named = any(explained.part for explained in explanation.filters)
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for word in ("filter", "peak", "area", "keeps", "random", *(["contribution", "share"] if decided else [])):
        table.add_column(word, justify="right")
    if named:
        table.add_column("part")
    for explained in explanation.filters[:MAX_ROWS]:
        row = [str(explained.id), f"{explained.peak:.2f}", *_area(explained)]
        if decided:
            row += [
                "-" if explained.contribution is None else f"{explained.contribution:+.2f}",
                "-" if explained.share is None else percent(explained.share),
            ]
        table.add_row(*row, *([printable(explained.part or "")] if named else []))
    yield table
    shown = explanation.filters[:MAX_ROWS]
    if any(found.active and found.suffices and kept_how(found) == "predicted" for found in shown):
        yield Text("  ~ predicted; --measure runs the model instead", style="dim")
    if len(explanation.filters) > MAX_ROWS:
        yield Text(f"  ... {len(explanation.filters) - MAX_ROWS} more filters")


def _area(found: Area) -> tuple[str, str, str]:
    """Size of an area, what it keeps, and what a random one of that size keeps."""
    if not found.active or not found.suffices:
        return sized(found), "-", "-"
    random = "-" if found.retention_random is None else percent(found.retention_random)
    about = "~" if kept_how(found) == "predicted" else ""
    return sized(found), f"{about}{kept(found)}" or "-", random


def _evidence(found: Evidence) -> str:
    """A decision where no sentence could be formed."""
    line = f"{found.title} {percent(found.score)}: log-odds {found.decision:.2f}"
    if found.removed is None:
        return f"{line}; its evidence: {keeping(found, 'the decision')}"
    line = f"{line}, evidence area {percent(found.area)}"
    why = "hiding as much elsewhere costs about as much" if found.falls else "hiding it costs little"
    return f"{line}; measuring does not show that it rests there: {why}"


def print_explanations(folder: ExplanationFolder, out: TextIO | None = None) -> None:
    """Print `json_pieces`."""
    stream = sys.stdout if out is None else out
    for piece in json_pieces(folder):
        stream.write(piece)
