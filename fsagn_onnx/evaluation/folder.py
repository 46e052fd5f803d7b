"""Where an evaluation keeps its results: a line per image as they come, tables and plots at the end.

DIR/run.json          what was asked for; a run goes on only with the same
DIR/images.jsonl      a line per image: what every metric measured
DIR/evaluation.json   all rows, costs, dead filters, failures
DIR/evaluation.md     the same as tables
DIR/plots/*.png       one per metric (with matplotlib)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..data.files import LineFile, make_folder, read_lines, write_file
from ..errors import OutputError, UsageError
from .result import Evaluation

RUN: Final = "run.json"
LINES: Final = "images.jsonl"
TABLE: Final = "evaluation.json"
MARKDOWN: Final = "evaluation.md"


class Folder:
    """The folder of a run.

    Args:
        path: the folder; made if it is not there.
        arguments: what was asked for.
        resume: go on with the lines that are there.
        overwrite: start anew.

    Raises:
        OutputError: the folder cannot be written, or holds results already, or those of another run.
        UsageError: both ``resume`` and ``overwrite``.
    """

    def __init__(
        self, path: Path, arguments: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> None:
        if resume and overwrite:
            raise UsageError("--resume and --overwrite exclude each other: go on with the results, or replace them")
        self.path = path
        make_folder(path)
        content = json.dumps(arguments, indent=1, sort_keys=True) + "\n"
        there = path / RUN
        if there.exists() and not overwrite:
            if not resume:
                raise OutputError(
                    f"{path} holds an evaluation already: --resume goes on with it, --overwrite replaces it"
                )
            self._check(there, json.loads(content))
        else:
            (path / LINES).unlink(missing_ok=True)
            write_file(there, [content.encode()])
        self._lines = LineFile(path / LINES)

    @staticmethod
    def _check(there: Path, arguments: Mapping[str, Any]) -> None:
        try:
            before = json.loads(there.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{there} cannot be read ({error}); start anew with --overwrite") from error
        other = sorted(name for name in {*before, *arguments} if before.get(name) != arguments.get(name))
        if other:
            raise OutputError(
                f"{there.parent} was made with other {', '.join(other)}; give the same, or start anew with --overwrite"
            )

    def lines(self) -> Iterator[dict[str, Any]]:
        """The images measured so far."""
        for line in read_lines(self.path / LINES):
            yield json.loads(line)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add an image."""
        self._lines.append(json.dumps(record, allow_nan=False).encode() + b"\n")

    def finish(self, evaluation: Evaluation) -> None:
        """Write the tables."""
        write_file(self.path / TABLE, [json.dumps(evaluation.to_dict(), allow_nan=False, indent=1).encode(), b"\n"])
        write_file(self.path / MARKDOWN, [evaluation.to_markdown().encode()])

    def close(self) -> None:
        """Close the file of lines."""
        self._lines.close()
