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
_INK: Final = (12, 12, 16)
_LETTERS: Final = 12
"""Pixels of the smallest letters; of a large picture's they are a 36th of its shorter side."""
_COVER: Final = 0.45
"""Opacity of a map over the picture."""


def class_color(index: int) -> Color:
    """The colour of a class, the same in every picture."""
    return COLORS[index % len(COLORS)]


def draw_findings(picture: Pixels, explanation: Explanation) -> Pixels:
    """A copy of a picture, which is the image at some size, with the classes' map and the best boxes."""
    drawn = picture.copy()
    if explanation.segmentation is not None:
        drawn = _mapped(drawn, explanation, explanation.segmentation)
    for box in reversed((explanation.detections or ())[:MOST_DRAWN]):
        _draw_box(drawn, box, explanation.size)
    return drawn


def _draw_box(picture: Pixels, found: Detection, size: tuple[int, int]) -> None:
    height, width = picture.shape[:2]
    zoom = np.array([width / size[1], height / size[0]] * 2)
    limits = np.array([width, height] * 2) - 1
    x0, y0, x1, y1 = np.clip(np.rint(np.asarray(found.box) * zoom), 0, limits).astype(int).tolist()
    color = class_color(found.index)
    letters = max(_LETTERS, min(height, width) // 36)
    stroke, line = max(2, letters // 8), letters + letters // 6
    cv2.rectangle(picture, (x0, y0), (x1, y1), _INK, stroke + 2)
    cv2.rectangle(picture, (x0, y0), (x1, y1), color, stroke)
    style = Style(letters, BOLD, _INK)
    text = shorten(f"{found.title} {100 * found.score:.0f}%", style, width - letters // 2)
    if not text or height < 2 * line:
        return
    top = y0 - line if y0 >= line else min(y0, height - line)
    wide = min(width, text_width(text, style) + letters // 2)
    left = min(x0, width - wide)
    picture[top : top + line, left : left + wide] = color
    put_text(picture, text, (left + letters // 4, top + line - letters // 4), style)


def _mapped(picture: Pixels, explanation: Explanation, found: Segmentation) -> Pixels:
    """The picture with the colours of the classes over it; one class alone is left as it is, all others are tinted."""
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
    if any(segment.index == 0 and _is_background(segment.label) for segment in found.segments):
        plain |= places == 0
    return np.where(plain[..., None], picture, np.rint(tinted)).astype(np.uint8)


def _is_background(label: str | None) -> bool:
    return label is not None and "background" in label.casefold()
