"""Writing files so that a killed run leaves only whole ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ..errors import OutputError
from .closing import Closing

PART: Final = ".part"
"""Ending of temporary names."""


def write_file(path: Path, pieces: Iterable[bytes], *, durable: bool = False) -> None:
    """Write a file under a temporary name and rename it; the folder must be there.

    Args:
        path: the file.
        pieces: its content.
        durable: wait for the disk before the rename, so that a power cut leaves the old file or the new one.

    Raises:
        OutputError: it cannot be written, for example because the disk is full; nothing is left of it.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        try:
            with part.open("wb") as file:
                file.writelines(pieces)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: a file is in the way, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(f"cannot write into {path}: it is a file, expected a folder; choose another --out") from error
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The one-line error for a file or folder that cannot be written."""
    return OutputError(f"cannot write {path}: {error.strerror or error}; free some space or choose another --out")


class LineFile(Closing):
    """A file of whole lines that grows: each line is one write, and a half line at its end is cut off when opened.

    Attributes:
        path: the file; made if it is not there.

    Raises:
        OutputError: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            self._cut_half_line()
        except OSError as error:
            raise cannot_write(path, error) from error

    def _cut_half_line(self) -> None:
        end = os.lseek(self._file, 0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            os.lseek(self._file, start, os.SEEK_SET)
            newline = os.read(self._file, end - start).rfind(b"\n")
            if newline >= 0:
                os.ftruncate(self._file, start + newline + 1)
                return
            end = start
        os.ftruncate(self._file, 0)

    def append(self, line: bytes) -> None:
        """Append one line, which ends with a line break.

        Raises:
            OutputError: it cannot be written; the file is as before.
        """
        size = os.fstat(self._file).st_size
        rest = line
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            os.ftruncate(self._file, size)
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file, with their line breaks; nothing where there is no file.

    Raises:
        OutputError: the file cannot be read.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
