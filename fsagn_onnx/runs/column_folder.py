"""The folder of a `dissect` or `perturb` run: an index of images, and columns with a row for each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from ..data.files import LineFile, make_folder, write_file
from ..errors import OutputError
from ..runtime.stream import Failure
from .columns import Column
from .folder import ROWS, RunFolder
from .manifest import MAX_FAILURES, index_lines, listed, versions

COLUMNS: Final = "columns"
NAMES_FILE: Final = "names.json"
"""The user's own names of filters: no run removes them."""
ColumnSpec = tuple[str, tuple[int, ...]]
"""Type of a column's numbers, and shape of one row."""


class ColumnFolder(RunFolder):
    """A folder that grows by one row and one line per image.

    Attributes:
        columns: by name, once they are opened.
        count: lines of the index so far, one per image, failed ones too.
        rows: images that have a row in the columns.
    """

    kept = frozenset({NAMES_FILE})
    tables: ClassVar[tuple[str, ...]] = ()
    """Further files that the command writes."""

    def __init__(
        self, path: Path, subject: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> None:
        super().__init__(path, subject, resume=resume, overwrite=overwrite)
        make_folder(path / COLUMNS)
        self.columns: dict[str, Column] = {}
        self.count = self.rows = 0
        self._read: tuple[dict[str, Any], ...] | None = None
        self.write_state("running", {})

    def results(self) -> Iterator[Path]:
        """Index, columns, tables and reports."""
        yield from super().results()
        for name in (COLUMNS, ROWS, *self.tables, *(f"report.{ending}" for ending in ("html", "json", "md", "png"))):
            yield self.path / name

    def open_columns(self, specs: Mapping[str, ColumnSpec]) -> None:
        """Open the columns, and bring index and columns to the same length: the images that are whole."""
        for name, (dtype, shape) in specs.items():
            self.columns[name] = Column(self.path / COLUMNS / name, dtype, shape)
        complete = min((len(column) for column in self.columns.values()), default=0)
        whole: list[bytes] = []
        for line, members in index_lines(self.index_path):
            good = members.get("error") is None
            if good and self.rows >= complete:
                break
            whole.append(line)
            self.rows += good
        self.count = len(whole)
        self._index.close()
        write_file(self.index_path, whole)
        self._index = LineFile(self.index_path)
        for column in self.columns.values():
            column.cut(self.rows)

    def require_same_images(self, named: Iterable[tuple[str, object]]) -> None:
        """Compare the first images with the index.

        Raises:
            OutputError: they are others.
        """
        for (name, _), line in zip(named, self.lines(), strict=False):
            if name != line["path"]:
                raise OutputError(
                    f"{self.path} was written for other images ('{line['path']}' then, '{name}' now): give the same "
                    "images in the same order, or replace the results with --overwrite"
                )

    def append(self, images: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> None:
        """Write line and row (None: it failed) of some images: the rows first, then the lines."""
        rows = [row for _, row in images if row is not None]
        if rows:
            for name, column in self.columns.items():
                column.append([row[name] for row in rows])
        if images:
            self.append_line("".join(json.dumps(line, allow_nan=False) + "\n" for line, _ in images).encode("ascii"))
        self.rows += len(rows)
        self.count += len(images)
        self._read = None

    def index(self) -> tuple[dict[str, Any], ...]:
        """The lines of the images that did not fail, in the order of the columns' rows; read once."""
        if self._read is None:
            self._read = tuple(line for line in self.lines() if line.get("error") is None)
        return self._read

    def failures(self) -> list[Failure]:
        """The images that failed."""
        return [Failure(line["path"], line["error"]) for line in self.lines() if line.get("error") is not None]

    def failed(self) -> dict[str, Any]:
        """What the manifest says of images that failed."""
        failures = self.failures()
        return {"failed": len(failures), "failures": listed(failures[:MAX_FAILURES])}

    def write_state(self, state: str, results: Mapping[str, Any]) -> None:
        """Write the manifest: ``running`` or ``done``, and what came of it."""
        self.write_manifest({"kind": self.kind, "state": state, "versions": versions(), **self.subject, **results})

    def close(self) -> None:
        """Close all files."""
        super().close()
        for column in self.columns.values():
            column.close()


class DissectionFolder(ColumnFolder):
    """The folder of a `dissect` run."""

    kind = "dissect"
    tables = ("filters.jsonl", "filters.csv", "filters.parquet", "masks.json")


class PerturbationFolder(ColumnFolder):
    """The folder of a `perturb` run."""

    kind = "perturb"
    tables = ("effects.jsonl", "effects.csv", "effects.parquet", "ablation.csv")
