"""Text in pictures: OpenCV 5's own variable font where it is there, Hershey's strokes with OpenCV 4."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

REGULAR: Final = 400
BOLD: Final = 650

_HERSHEY_HEIGHT: Final = 30.0
"""Pixels of line height of Hershey's strokes at scale 1, so that both fonts look equally large."""


@dataclass(frozen=True)
class Style:
    """How a line of text looks: size in pixels (of the em), weight (`REGULAR`, `BOLD`), colour in RGB."""

    size: int
    weight: int
    color: Color


def printable(text: str) -> str:
    """A name as it may be shown: control characters and broken encodings become a replacement character.

    File names can hold anything, escape sequences of terminals included.
    """
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in clean)


def text_width(text: str, style: Style) -> int:
    """Width in pixels of a line of text."""
    if face := _face():
        return int(cv2.getTextSize((0, 0), printable(text), (0, 0), face, style.size, style.weight)[2])
    return _hershey_width(_ascii(text), style)


def put_text(picture: NDArray[np.uint8], text: str, place: tuple[int, int], style: Style) -> None:
    """Write a line of text into an RGB picture; ``place`` is the left end of the baseline, (x, y)."""
    if face := _face():
        cv2.putText(picture, printable(text), place, style.color, face, style.size, style.weight)
        return
    kind, scale, thickness = _hershey(style)
    cv2.putText(picture, _ascii(text), place, kind, scale, style.color, thickness, cv2.LINE_AA)


def shorten(text: str, style: Style, width: int) -> str:
    """Text cut in its middle, if need be, so that it is not wider than ``width`` pixels."""
    text = printable(text)
    if text_width(text, style) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(_elided(text, middle), style) <= width:
            low = middle
        else:
            high = middle - 1
    return _elided(text, low)


def _elided(text: str, kept: int) -> str:
    tail = kept // 2
    return text[: kept - tail] + "…" + (text[-tail:] if tail else "")


def _face() -> Any:
    """A new font object (one may not be shared between threads), or None with OpenCV 4."""
    kind = getattr(cv2, "FontFace", None)
    return None if kind is None else kind("sans")


def _hershey(style: Style) -> tuple[int, float, int]:
    bold = style.weight > (REGULAR + BOLD) // 2
    return cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX, style.size / _HERSHEY_HEIGHT, 1


def _hershey_width(text: str, style: Style) -> int:
    kind, scale, thickness = _hershey(style)
    return cv2.getTextSize(text, kind, scale, thickness)[0][0]


def _ascii(text: str) -> str:
    """The nearest text that Hershey's strokes can show."""
    plain = printable(text).replace("·", "|").replace("×", "x").replace("…", "...")
    plain = plain.replace("\N{THIN SPACE}", "").replace("\N{NO-BREAK SPACE}", " ")
    decomposed = unicodedata.normalize("NFKD", plain)
    letters = (letter for letter in decomposed if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else "?" for letter in letters)
