"""Reading a finished run: its manifest, the lines of its files, and its columns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from .column_folder import COLUMNS, ColumnSpec
from .folder import INDEX
from .manifest import IndexLine, index_lines, read_manifest


class FinishedRun:
    """A folder that `explain`, `dissect` or `perturb` filled; nothing is written.

    Attributes:
        path: the folder.
        manifest: its manifest.
        kind: the command that filled it.

    Args:
        path: the folder.
        kind: the command that is expected; None takes any.

    Raises:
        OutputError: no such run, or an unfinished one.
    """

    def __init__(self, path: str | Path, kind: str | None = None) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self.path, kind)
        self.kind: str = self.manifest["kind"]
        if self.manifest.get("state") != "done":
            raise OutputError(f"{path} holds an unfinished run of '{self.kind}': finish it with --resume")

    def lines(self, name: str, kind: type[Any] = IndexLine) -> Iterator[dict[str, Any]]:
        """The lines of a file of the folder, for example ``explanations.jsonl``, each checked by a schema.

        Raises:
            OutputError: a line is damaged.
        """
        return (members for _, members in index_lines(self.path / name, kind))

    @cached_property
    def index(self) -> tuple[dict[str, Any], ...]:
        """The lines of the images that did not fail, in the order of the columns' rows."""
        return tuple(line for line in self.lines(INDEX) if line.get("error") is None)

    def column(self, name: str, spec: ColumnSpec) -> NDArray[Any]:
        """A column, one row per line of `index`; mapped, not read.

        Raises:
            OutputError: it is not there, or not as long as the index.
        """
        path, (dtype, shape) = self.path / COLUMNS / name, spec
        whole = (len(self.index), *shape)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}; run it again") from error
        expected = int(np.prod(whole, dtype=np.int64)) * np.dtype(dtype).itemsize
        if size != expected:
            raise OutputError(f"{path} has {size} bytes, expected {expected}: run it again with --overwrite")
        return np.memmap(path, dtype, "r", shape=whole) if size else np.zeros(whole, dtype)

    def has_column(self, name: str) -> bool:
        """Whether the run kept a column."""
        return (self.path / COLUMNS / name).is_file()
