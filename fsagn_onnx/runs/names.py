"""File names for results: safe on every system, distinct, and the same in every run."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import PurePath
from typing import Final

MAX_BYTES: Final = 120
"""Longest stem in bytes of UTF-8; with the hash and an ending it stays below every file system's limit."""

_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)


def safe_stem(path: str) -> str:
    """The stem of a path with nothing but letters, digits, `-`, `_`, `.` and spaces (any alphabet)."""
    stem = unicodedata.normalize("NFC", PurePath(path).stem)
    kept = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in stem)
    kept = kept.encode("utf-8")[:MAX_BYTES].decode("utf-8", "ignore").strip(". ")
    if not kept:
        return "image"
    return f"{kept}_" if kept.split(".")[0].casefold() in _RESERVED else kept


def digest(text: str) -> bytes:
    """Eight bytes that stand for a path, broken encodings included."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class Names:
    """Gives every image a name of its own: its stem, and a hash of its path where the stem is taken.

    Names differ in more than case. Memory: about 80 bytes per image.
    """

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def take(self, name: str) -> None:
        """Mark a name as taken."""
        self._taken.add(digest(name.casefold()))

    def give(self, path: str) -> str:
        """A name for a path, not given before."""
        stem = safe_stem(path)
        name, length = stem, 4
        while digest(name.casefold()) in self._taken:
            name = f"{stem}-{digest(path).hex()[:length]}"
            length += 4
            if length > 20:
                name = f"{name}-{len(self._taken)}"
        self.take(name)
        return name
