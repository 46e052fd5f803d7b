"""A table as Markdown and as a picture, beside the page that one can click in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..data.files import write_file
from ..errors import UsageError
from ..runtime.drawing.overlay import encode_png
from ..runtime.drawing.typeface import BOLD, REGULAR, Style, printable, put_text, shorten, text_width
from ..runtime.stream import Pixels

FORMATS: Final = ("json", "md", "png")
PICTURE_ROWS: Final = 60
"""Rows in a picture; Markdown and JSON have all."""

_TITLE = Style(20, BOLD, (240, 241, 245))
_HEAD = Style(14, BOLD, (200, 205, 215))
_CELL = Style(14, REGULAR, (236, 238, 242))
_BACKGROUND, _HEAT = (17, 19, 24), (176, 108, 0)
_MARGIN, _ROW, _PAD, _WIDEST = 22, 24, 9, 320


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: of the table.
        head: names of the columns.
        rows: texts, as many as columns; `None` is an empty cell.
        heat: per row and column a share in [0, 1] of shade, or nothing.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    heat: tuple[tuple[float, ...], ...] = ()

    def to_markdown(self) -> str:
        """The table as Markdown; nothing in a name is markup."""
        lines = [f"# {_plain(self.title)}", "", _line(self.head), _line(["---"] * len(self.head))]
        lines += [_line([_plain(cell or "") for cell in row]) for row in self.rows]
        return "\n".join(lines) + "\n"

    def to_picture(self) -> Pixels:
        """The first rows as a picture, uint8 (h, w, 3) RGB."""
        shown = self.rows[:PICTURE_ROWS]
        widths = [
            min(_WIDEST, 2 * _PAD + max(text_width(text or "", _HEAD) for text in (name, *(row[i] for row in shown))))
            for i, name in enumerate(self.head)
        ]
        width = max(sum(widths), min(text_width(self.title, _TITLE), 1200)) + 2 * _MARGIN
        left_out = len(self.rows) - len(shown)
        height = 2 * _MARGIN + 34 + _ROW * (len(shown) + 1 + (left_out > 0))
        picture = np.full((height, width, 3), _BACKGROUND, dtype=np.uint8)
        put_text(picture, shorten(self.title, _TITLE, width - 2 * _MARGIN), (_MARGIN, _MARGIN + 16), _TITLE)
        top = _MARGIN + 34
        for line, row in enumerate([self.head, *shown]):
            x, y = _MARGIN, top + line * _ROW
            for i, cell in enumerate(row):
                if line and self.heat:
                    shade = min(max(self.heat[line - 1][i], 0.0), 1.0)
                    box = picture[y : y + _ROW - 2, x : x + widths[i] - 2]
                    box[...] = np.rint((1 - shade) * np.array(_BACKGROUND) + shade * np.array(_HEAT)).astype(np.uint8)
                style = _CELL if line else _HEAD
                put_text(picture, shorten(cell or "", style, widths[i] - 2 * _PAD + 2), (x + _PAD, y + 16), style)
                x += widths[i]
        if left_out:
            put_text(picture, f"{left_out} more rows", (_MARGIN + _PAD, height - _MARGIN), _HEAD)
        return picture


def write_formats(
    folder: Path,
    formats: Sequence[str],
    table: Table,
    document: Callable[[], Iterable[str]],
    picture: Callable[[], Pixels] | None = None,
) -> None:
    """Write ``report.json``, ``report.md``, ``report.png``, as far as asked for.

    Args:
        folder: where to.
        formats: `FORMATS` asked for.
        table: what Markdown shows.
        document: pieces of the JSON document.
        picture: the picture; None: that of the table.

    Raises:
        OutputError: one cannot be written.
    """
    contents: Mapping[str, Callable[[], Iterable[bytes]]] = {
        "json": lambda: (piece.encode("utf-8") for piece in document()),
        "md": lambda: [table.to_markdown().encode("utf-8")],
        "png": lambda: [encode_png((picture or table.to_picture)())],
    }
    for name in formats:
        if name not in contents:
            raise UsageError(f"no format '{name}'; there are {', '.join(FORMATS)}")
        write_file(folder / f"report.{name}", contents[name]())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    shown = printable(text)
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!&" else letter for letter in shown)


def short_number(value: float | None) -> str | None:
    """A figure of a table, to three places."""
    return None if value is None else f"{value:.3f}"
