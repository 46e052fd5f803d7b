"""Opening files that someone else put there: only regular ones, and texts in the encodings that editors write."""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["decoded", "encoding_of", "is_url", "open_regular"]


_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_url(name: str | Path) -> bool:
    """Whether a name is that of something in a store (``s3://bucket/key``), not of a file."""
    return isinstance(name, str) and _URL.match(name) is not None


def open_regular(path: str | os.PathLike[str], *, pipes: bool = False) -> BinaryIO:
    """Open a regular file for reading; a pipe would wait for its writer, and a device may never end.

    Args:
        path: the file.
        pipes: take a pipe too, for what the user named himself (a shell's ``<(...)``).

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    _require_regular(os.stat(path).st_mode, pipes)
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | (0 if pipes else getattr(os, "O_NONBLOCK", 0)))
    try:
        _require_regular(os.fstat(file).st_mode, pipes)  # it may have been replaced in between
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def _require_regular(mode: int, pipes: bool) -> None:
    if stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode)):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    raise OSError(0, f"it is {kinds.get(stat.S_IFMT(mode), 'something else')}, expected a regular file")


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its first bytes: UTF-16 with or without its mark, else UTF-8 with or without its own.

    Args:
        start: at least the first four bytes, where there are so many.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(start) >= 2 and (start[0] == 0) != (start[1] == 0):
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return "utf-8-sig"


def decoded(content: bytes) -> str:
    """A text of UTF-8 or UTF-16, its byte order mark removed.

    Raises:
        UnicodeDecodeError: neither of the two.
    """
    return content.decode(encoding_of(content[:4]))
