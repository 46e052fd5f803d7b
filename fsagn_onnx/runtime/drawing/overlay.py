"""Drawing: an image and the areas of its filters, side by side (numpy and OpenCV only).

Every picture is drawn at a fixed size of its panel, whatever the size of the image, so that lines and letters are the
same for a thumbnail and for a photograph of 50 megapixels. Nothing is drawn on what the caller handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..explained_area import Area, Evidence
from ..findings import percent
from ..keeping import kept, kept_how, sized
from ..masks import Mask, upsample
from ..sentence import contributed, sentence
from ..stream import Pixels
from ..wording import answer_lines
from .found import draw_findings
from .typeface import BOLD, REGULAR, Color, Style, put_text, shorten

if TYPE_CHECKING:
    from ..explanation import Explanation, FilterExplanation

TILE: Final = (300, 340)
"""Largest height and width in pixels of a picture in the panel."""
MIN_TILE_WIDTH: Final = 216
"""A caption needs this much."""
COLUMNS: Final = 7
STYLES: Final = ("outline", "heat")
"""How areas are drawn."""
OUTLINED: Final = STYLES[0]
MAX_FILTERS: Final = 17
"""Filters, and decisions, drawn in one panel; the masks and the report hold the others."""
MAX_DECISIONS: Final = 5

BACKGROUND: Final = (17, 19, 24)
OUTLINE: Final = (255, 190, 60)
HALO: Final = (12, 12, 16)

_TITLE = Style(21, BOLD, (240, 241, 245))
_SUBTITLE = Style(16, REGULAR, (172, 178, 190))
_NAME = Style(17, BOLD, (240, 241, 245))
_FIGURES = Style(15, REGULAR, (172, 178, 190))
_MARGIN, _GUTTER, _HEAD, _CAPTION, _LINE_HEIGHT = 24, 16, 78, 34, 19

_DIM: Final = 0.36
"""Brightness of what lies outside the area, as a share."""
_SATURATION: Final = 0.2
"""Colour that stays outside the area, as a share."""

_LINES: Final = ((4.0, HALO, 0.55), (2.0, OUTLINE, 1.0))
"""Width in pixels, colour and opacity of what outlines an area, drawn in this order."""
_HEAT_LINES: Final = ((3.5, HALO, 0.5), (1.5, (255, 255, 255), 1.0))
_BLEND: Final = 0.5
"""Share of the heat map in the blend."""
_LINE_REACH: Final = 2.5
"""Pixels from the border up to which the widest line is seen."""
_PNG: Final = (
    [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    if hasattr(cv2, "IMWRITE_PNG_FILTER")
    else []
)
"""Half the bytes of OpenCV's default for these pictures, in less time; OpenCV 4 cannot choose the filter."""
_SLOPE: Final = np.array([[-0.5, 0.0, 0.5]], dtype=np.float32)


def draw_panel(explanation: Explanation, style: str = OUTLINED) -> Pixels:
    """The image and the areas of its filters, side by side, labelled.

    Args:
        explanation: of the image.
        style: one of `STYLES`: the area bright and outlined, or all ranks as a heat map over the picture.

    Returns:
        uint8 (h, w, 3) RGB.

    Raises:
        UsageError: the explanation was made without a preview, or no such style.
    """
    check_style(style)
    if explanation.preview.size == 0:
        raise UsageError(f"{explanation.name}: explained with previews=False, so there is no picture to draw on")
    decisions = explanation.evidence[:MAX_DECISIONS]
    filters = explanation.filters[: MAX_FILTERS - len(decisions)]
    shown: list[Area] = [*decisions, *filters]
    picture = fitted(explanation.preview, TILE)
    tile_width, tile_height = max(picture.shape[1], MIN_TILE_WIDTH), picture.shape[0]
    tiles = 1 + len(shown)
    columns = min(COLUMNS, tiles)
    rows = -(-tiles // columns)
    captions = [_image_figures(explanation), *map(decision_figures, decisions), *map(filter_figures, filters)]
    width = 2 * _MARGIN + columns * tile_width + (columns - 1) * _GUTTER
    row_height = tile_height + _CAPTION + _LINE_HEIGHT * max(2, *map(len, captions))
    panel = np.empty((_HEAD + rows * row_height + _MARGIN // 2, max(width, 480), 3), dtype=np.uint8)
    panel[0] = BACKGROUND
    panel[1:] = panel[0]  # row by row: filling all pixels with a colour takes as long as drawing the rest
    _head(panel, explanation, len(filters))
    for number in range(tiles):
        x = _MARGIN + (number % columns) * (tile_width + _GUTTER)
        y = _HEAD + (number // columns) * row_height
        if number == 0:
            tile, title = draw_findings(dim_unseen(picture, explanation)[0], explanation), "image"
        else:
            tile, title = draw_filter(picture, explanation, shown[number - 1], style), shown[number - 1].heading
        left = x + (tile_width - tile.shape[1]) // 2 if tile.shape[1] < MIN_TILE_WIDTH else x
        panel[y : y + tile_height, left : left + tile.shape[1]] = tile
        put_text(panel, shorten(title, _NAME, tile_width), (x, y + tile_height + 24), _NAME)
        for line, text in enumerate(captions[number]):
            place = (x, y + tile_height + 44 + _LINE_HEIGHT * line)
            put_text(panel, shorten(text, _FIGURES, tile_width), place, _FIGURES)
    return panel


def draw_filter(picture: Pixels, explanation: Explanation, explained: Area, style: str) -> Pixels:
    """A copy of the picture with the area of a filter or a decision; all of it is dim where there is none."""
    if not explained.active or not explained.suffices:
        return highlight(picture, np.zeros(picture.shape[:2], dtype=np.float32))
    kept = shown_area(explanation, explained, picture.shape[:2])
    if style == OUTLINED:
        return highlight(picture, kept)
    return heat(picture, warmth(explanation, explained, picture.shape[:2]), kept)


def check_style(style: str) -> None:
    """Raise an error for a style that there is not.

    Raises:
        UsageError: it is none of `STYLES`.
    """
    if style not in STYLES:
        raise UsageError(f"style must be one of {', '.join(STYLES)}, but got '{style}'")


def _image_figures(explanation: Explanation) -> list[str]:
    figures = [f"{explanation.size[1]} × {explanation.size[0]} pixels"]
    return figures if _seen(explanation, explanation.size)[1] else [*figures, "bright: what the model sees"]


def _head(panel: Pixels, explanation: Explanation, shown: int) -> None:
    width = panel.shape[1] - 2 * _MARGIN
    name = explanation.path.name if explanation.path is not None else explanation.name
    put_text(panel, shorten(name, _TITLE, width), (_MARGIN, 36), _TITLE)
    answers = " · ".join(answer_lines(explanation))
    left_out = len(explanation.filters) - shown
    if why := sentence(explanation):
        answers = why
    if left_out:
        answers += f" · {left_out} more filters in the masks"
    put_text(panel, shorten(answers, _SUBTITLE, width), (_MARGIN, 61), _SUBTITLE)


def decision_figures(found: Evidence) -> list[str]:
    """Decision value and area; what the model answers without the area, or how much of the decision it keeps."""
    lines = [f"log-odds {found.decision:.1f} · {_size(found)}"]
    if found.removed is not None:
        lines.append(f"without it {found.removed.title} {percent(found.removed.score)}")
    elif share := kept(found):
        lines.append(f"keeps {share} of the decision")
    return lines


def filter_figures(explained: FilterExplanation) -> list[str]:
    """Peak and area; what it adds to the decision; what area and random area keep. A line each: tiles are narrow."""
    if not explained.active:
        return [f"peak {explained.peak:.2f}", "not active in this image"]
    lines = [f"peak {explained.peak:.2f} · {_size(explained)}"]
    if explained.contribution is not None:
        lines.append(contributed(explained))
    if explained.suffices and (share := kept(explained)):
        lines.append(f"keeps {share}, {kept_how(explained)}")
        if explained.retention_random is not None:
            lines.append(f"a random area keeps {percent(explained.retention_random)}")
    return lines


def _size(found: Area) -> str:
    return f"area {sized(found)}" if found.suffices else sized(found)


def fitted(image: Pixels, box: tuple[int, int]) -> Pixels:
    """A copy of an image as large as fits into (height, width); tiny ones keep their pixels visible as squares."""
    height, width = image.shape[:2]
    scale = min(box[0] / height, box[1] / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST if scale > 4 else cv2.INTER_CUBIC
    resized: Pixels = cv2.resize(image, size, interpolation=kind).astype(np.uint8, copy=False)
    return resized


def shown_area(explanation: Explanation, explained: Area, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The area of a filter on a resized copy of the image.

    Args:
        explanation: the image's explanation.
        explained: the filter.
        shape: (h, w) of the copy.

    Returns:
        float32 (h, w): the share of each pixel that is kept, softened by about a pixel so that its edge is smooth.
    """
    mask: Mask = explanation.input_mask(explained)
    matrix = _onto(explanation, shape)
    kept = cv2.warpAffine(mask.astype(np.float32), matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR)
    softness = max(1.0, 0.5 * max(matrix[0, 0], matrix[1, 1]))
    return np.asarray(cv2.GaussianBlur(kept, (0, 0), softness, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)


def warmth(explanation: Explanation, explained: Area, shape: tuple[int, int]) -> NDArray[np.float32]:
    """How early each pixel of a resized copy of the image, of size ``shape``, is kept.

    Returns:
        float32 (h, w) in [0, 1]: 1 minus the area rank; NaN where the model did not look.
    """
    early = 1 - upsample(explained.area_rank[None], explanation.geometry.size)[0]
    height, width = shape
    matrix = _onto(explanation, shape)
    ones = np.ones(explanation.geometry.size, dtype=np.uint8)
    seen = cv2.warpAffine(ones, matrix, (width, height), flags=cv2.INTER_NEAREST)
    warm = cv2.warpAffine(
        np.asarray(early, dtype=np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.where(seen > 0, np.clip(warm, 0, 1), np.float32("nan"))


def _onto(explanation: Explanation, shape: tuple[int, int]) -> NDArray[np.float64]:
    """OpenCV's 2x3 map from the model's input to a copy of the image of this size."""
    (scale_x, _, shift_x), (_, scale_y, shift_y) = explanation.geometry.matrix.tolist()
    zoom_x, zoom_y = shape[1] / explanation.size[1], shape[0] / explanation.size[0]
    scale_x, shift_x, scale_y, shift_y = (
        scale_x * zoom_x,
        shift_x * zoom_x,
        scale_y * zoom_y,
        shift_y * zoom_y,
    )
    # OpenCV's coordinates name the centres of pixels, geometry's their corners.
    return np.array(
        [[scale_x, 0, shift_x + (scale_x - 1) / 2], [0, scale_y, shift_y + (scale_y - 1) / 2]],
        dtype=np.float64,
    )


def highlight(picture: Pixels, kept: NDArray[np.float32]) -> Pixels:
    """A copy of a picture: dimmed and nearly gray outside the area, untouched inside, its border outlined.

    Args:
        picture: uint8 (h, w, 3) RGB.
        kept: float32 (h, w) in [0, 1], see `shown_area`; the area is where it is above one half.
    """
    gray = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    painted = cv2.addWeighted(picture, _SATURATION * _DIM, gray, (1 - _SATURATION) * _DIM, 10)
    distance = _distance(kept)
    cv2.copyTo(picture, (distance >= 0.5).view(np.uint8), painted)
    # Only the pixels at the border mix colours; they are few.
    places = np.flatnonzero(np.abs(distance) < _LINE_REACH)
    near, inside = distance.reshape(-1, 1)[places], picture.reshape(-1, 3)[places].astype(np.float32)
    outside = (gray.reshape(-1, 3)[places] * (1 - _SATURATION) + inside * _SATURATION) * _DIM + 10
    drawn = outside + np.clip(near + 0.5, 0, 1) * (inside - outside)
    _outline(drawn, near)
    painted.reshape(-1, 3)[places] = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    return np.asarray(painted, dtype=np.uint8)


def heat(picture: Pixels, warm: NDArray[np.float32], kept: NDArray[np.float32]) -> Pixels:
    """A copy of a picture with a heat map over it: red is kept first, blue last; the area is outlined.

    Args:
        picture: uint8 (h, w, 3) RGB.
        warm: float32 (h, w) in [0, 1] or NaN, see `warmth`.
        kept: float32 (h, w) in [0, 1], see `shown_area`.
    """
    gray = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    seen = np.isfinite(warm)
    level = np.rint(255 * np.where(seen, warm, 0)).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    painted = np.where(seen[..., None], cv2.addWeighted(colors, _BLEND, gray, 1 - _BLEND, 0), gray * _DIM)
    painted = painted.astype(np.uint8)
    distance = _distance(kept)
    places = np.flatnonzero(np.abs(distance) < _LINE_REACH)
    drawn = painted.reshape(-1, 3)[places].astype(np.float32)
    _outline(drawn, distance.reshape(-1, 1)[places], _HEAT_LINES)
    painted.reshape(-1, 3)[places] = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    return np.asarray(painted, dtype=np.uint8)


def _distance(kept: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels to the border of an area, positive inside."""
    slope_x = cv2.filter2D(kept, cv2.CV_32F, _SLOPE, borderType=cv2.BORDER_REPLICATE)
    slope_y = cv2.filter2D(kept, cv2.CV_32F, _SLOPE.T, borderType=cv2.BORDER_REPLICATE)
    slope = np.maximum(cv2.magnitude(slope_x, slope_y), np.float32(1e-3))
    return np.asarray((kept - np.float32(0.5)) / slope, dtype=np.float32)


def _outline(
    drawn: NDArray[np.float32], near: NDArray[np.float32], lines: tuple[tuple[float, Color, float], ...] = _LINES
) -> None:
    """Draw the lines over colours (n, 3) of pixels that are ``near`` (n, 1) pixels inside the border."""
    for width, color, opacity in lines:
        line = opacity * np.clip(width / 2 + 0.5 - np.abs(near), 0, 1)
        drawn += line * (np.asarray(color, dtype=np.float32) - drawn)


def dim_unseen(picture: Pixels, explanation: Explanation) -> tuple[Pixels, bool]:
    """A copy of a picture, dimmed where the model's preprocessing cuts it off; and whether nothing is cut off."""
    (x0, y0, x1, y1), everything = _seen(explanation, picture.shape[:2])
    if everything:
        return picture.copy(), True
    dimmed = (picture * _DIM).astype(np.uint8)
    dimmed[y0:y1, x0:x1] = picture[y0:y1, x0:x1]
    return dimmed, False


def _seen(explanation: Explanation, shape: tuple[int, ...]) -> tuple[tuple[int, int, int, int], bool]:
    """What the model sees of a copy of the image of this size, (x0, y0, x1, y1); and whether that is all of it."""
    height, width = explanation.size
    corners = explanation.geometry.points_to_original([(0, 0), explanation.geometry.size[::-1]])
    seen = np.clip(corners, 0, (width, height)) * (shape[1] / width, shape[0] / height)
    (x0, y0), (x1, y1) = np.rint(seen).astype(int).tolist()
    return (x0, y0, x1, y1), x0 <= 1 and y0 <= 1 and x1 >= shape[1] - 1 and y1 >= shape[0] - 1


def encode_png(picture: Pixels) -> bytes:
    """A PNG file of an RGB picture."""
    return bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), _PNG)[1])
