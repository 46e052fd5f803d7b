"""What a pass over the images leaves on disk: a row per image and kind of number, read in slices at flat memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..data.closing import Closing
from ..data.files import cannot_write
from ..errors import OutputError

SLICE_BYTES: Final = 32 * 2**20
"""Bytes that are held in memory at a time while a column is read."""


class Column(Closing):
    """A file of equal rows, one per image.

    Args:
        path: the file; made if it is not there.
        dtype: of the numbers.
        shape: of one row.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, np.dtype(dtype), shape
        self.row_bytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise cannot_write(path, error) from error

    def __len__(self) -> int:
        self._file.flush()
        return self.path.stat().st_size // self.row_bytes

    def append(self, rows: Sequence[NDArray[Any]]) -> None:
        """Append rows.

        Raises:
            OutputError: they cannot be written.
        """
        try:
            self._file.write(np.stack(rows).astype(self.dtype, copy=False).reshape(len(rows), *self.shape).tobytes())
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def cut(self, rows: int) -> None:
        """Keep the first rows only."""
        self._file.truncate(rows * self.row_bytes)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, shape (stop - start, *shape).

        Raises:
            OutputError: the file is shorter.
        """
        wanted = (stop - start) * self.row_bytes
        self._file.seek(start * self.row_bytes)
        content = self._file.read(wanted)
        if len(content) != wanted:
            raise OutputError(f"{self.path} is shorter than its index says: start again with --overwrite")
        return np.frombuffer(content, self.dtype).reshape(stop - start, *self.shape)

    def row(self, index: int) -> NDArray[Any]:
        """One row."""
        row: NDArray[Any] = self.read(index, index + 1)[0]
        return row

    def slices(self, rows: int, limit: int = SLICE_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
        """(first row, rows) in order, at most ``limit`` bytes at a time."""
        step = max(1, limit // max(self.row_bytes, 1))
        for start in range(0, rows, step):
            yield start, self.read(start, min(start + step, rows))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
