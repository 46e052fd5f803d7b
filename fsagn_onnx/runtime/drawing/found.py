"""Drawing what a model finds: boxes with their classes, and the map of a segmentation network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..findings import Detection, Segmentation
from ..stream import Pixels
from .typeface import BOLD, Color, Style, put_text, shorten, text_width

if TYPE_CHECKING:
    from ..explanation import Explanation

__all__ = ["MOST_DRAWN", "class_color", "draw_findings"]

COLORS: Final[tuple[Color, ...]] = (
    (255, 190, 60), (80, 190, 255), (120, 220, 110), (255, 110, 130), (190, 140, 255), (255, 140, 60),
    (60, 215, 200), (240, 225, 90), (255, 150, 215), (160, 185, 90), (120, 150, 255), (215, 170, 130),
)  # fmt: skip
MOST_DRAWN: Final = 20
"""Boxes drawn into a picture: the best ones."""
LEGEND: Final = 5
"""Classes of a map that its legend names: the largest ones."""
_INK: Final = (12, 12, 16)
_LETTERS: Final = 12
"""Pixels of the smallest letters; of a large picture's they are a 36th of its shorter side."""
_COVER: Final = 0.45
"""Opacity of a map over the picture."""


def class_color(index: int) -> Color:
    """The colour of a class, the same in every picture."""
    return COLORS[index % len(COLORS)]


def draw_findings(picture: Pixels, explanation: Explanation) -> Pixels:
    """A copy of a picture, which is the image at some size, with the classes' map, its legend, and the best boxes."""
    drawn = picture.copy()
    if explanation.segmentation is not None:
        drawn = _mapped(drawn, explanation, explanation.segmentation)
        _write_legend(drawn, explanation.segmentation)
    for box in reversed((explanation.detections or ())[:MOST_DRAWN]):
        _draw_box(drawn, box, explanation.size)
    return drawn


def _draw_box(picture: Pixels, found: Detection, size: tuple[int, int]) -> None:
    height, width = picture.shape[:2]
    zoom = np.array([width / size[1], height / size[0]] * 2)
    limits = np.array([width, height] * 2) - 1
    x0, y0, x1, y1 = np.clip(np.rint(np.asarray(found.box) * zoom), 0, limits).astype(int).tolist()
    color = class_color(found.index)
    stroke = max(2, _letters(picture) // 8)
    cv2.rectangle(picture, (x0, y0), (x1, y1), _INK, stroke + 2)
    cv2.rectangle(picture, (x0, y0), (x1, y1), color, stroke)
    line = _line(picture)
    top = y0 - line if y0 >= line else min(y0, height - line)
    _write(picture, f"{found.title} {100 * found.score:.0f}%", (x0, top), color)


def _write_legend(picture: Pixels, found: Segmentation) -> None:
    """The colours of the largest classes, from the bottom left corner on upwards."""
    tinted = [part for part in found.segments if not _is_background(part.index, part.label)][:LEGEND]
    line = _line(picture)
    for place, part in enumerate(reversed(tinted), start=1):
        _write(picture, part.title, (0, picture.shape[0] - place * line), class_color(part.index))


def _letters(picture: Pixels) -> int:
    return max(_LETTERS, int(min(picture.shape[:2])) // 36)


def _line(picture: Pixels) -> int:
    letters = _letters(picture)
    return letters + letters // 6


def _write(picture: Pixels, text: str, corner: tuple[int, int], color: Color) -> None:
    """A line of text on a ground of a colour, its upper left corner as near to ``corner`` as it fits."""
    height, width = picture.shape[:2]
    letters, line = _letters(picture), _line(picture)
    style = Style(letters, BOLD, _INK)
    shown = shorten(text, style, width - letters // 2)
    top = corner[1]
    if not shown or height < 2 * line or top < 0:
        return
    wide = min(width, text_width(shown, style) + letters // 2)
    left = min(corner[0], width - wide)
    picture[top : top + line, left : left + wide] = color
    put_text(picture, shown, (left + letters // 4, top + line - letters // 4), style)


def _mapped(picture: Pixels, explanation: Explanation, found: Segmentation) -> Pixels:
    """The picture with the colours of the classes over it, but for what a class called background holds."""
    height, width = picture.shape[:2]
    rows_of, columns_of = found.places.shape
    (scale_x, _, shift_x), (_, scale_y, shift_y) = explanation.geometry.grid_matrix(rows_of, columns_of).tolist()
    x = ((np.arange(width) + 0.5) * explanation.size[1] / width - shift_x) / scale_x
    y = ((np.arange(height) + 0.5) * explanation.size[0] / height - shift_y) / scale_y
    rows, columns = np.floor(y).astype(int), np.floor(x).astype(int)
    seen = ((rows >= 0) & (rows < rows_of))[:, None] & ((columns >= 0) & (columns < columns_of))
    places = found.places[np.clip(rows, 0, rows_of - 1)[:, None], np.clip(columns, 0, columns_of - 1)]
    places = np.where(seen, places, -1)
    palette = np.array(COLORS, dtype=np.float32)
    tinted = (1 - _COVER) * picture + _COVER * palette[places % len(COLORS)]
    plain: NDArray[np.bool_] = places < 0
    if any(_is_background(segment.index, segment.label) for segment in found.segments):
        plain |= places == 0
    return np.where(plain[..., None], picture, np.rint(tinted)).astype(np.uint8)


def _is_background(index: int, label: str | None) -> bool:
    return index == 0 and label is not None and "background" in label.casefold()
