"""Anti-aliased drawing: pieces are drawn at four times the resolution and averaged.

OpenCV fills a polygon up to and with its outline, so shapes are up to 1/8 pixel larger than their corners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from .shapes import Piece, Points, Tone

Colour = tuple[int, int, int]  # RGB, 0..255
Colours = Mapping[Tone, Colour]
Matrix = npt.NDArray[np.float64]  # (2, 3): units -> pixels; pixel (r, c) covers [c, c + 1) x [r, r + 1)

SUPERSAMPLING: Final = 4
_FRACTION_BITS: Final = 3  # coordinates are given to OpenCV in eighths of a fine pixel


@dataclass(frozen=True)
class Tile:
    """A drawn shape on a rectangle of the picture.

    Attributes:
        rows, columns: where the rectangle lies in the picture.
        colour: float32 (h, w, 3) in 0..255, multiplied by alpha.
        alpha: float32 (h, w) in [0, 1], the share of each pixel that is covered.
    """

    rows: slice
    columns: slice
    colour: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32]

    def paste(self, canvas: npt.NDArray[np.float32]) -> None:
        """Draw over `canvas`, float32 (H, W, 3) in 0..255, in place."""
        region = canvas[self.rows, self.columns]
        region *= 1 - self.alpha[..., None]
        region += self.colour


def _fixed(contour: Points, matrix: Matrix, corner: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Units -> OpenCV's fixed-point coordinates on the fine tile whose first pixel is `corner`."""
    pixels = contour @ matrix[:, :2].T + matrix[:, 2] - corner
    return np.rint((pixels * SUPERSAMPLING - 0.5) * (1 << _FRACTION_BITS)).astype(np.int32)


def _draw_piece(
    fine: npt.NDArray[np.uint8],
    piece: Piece,
    points: list[npt.NDArray[np.int32]],
    colours: Colours,
    unit: float,
    edge: float,
) -> None:
    """Draw one piece on the fine tile; `unit` and `edge` (the outline's width) are in fine pixels."""
    fill, ink = (*colours[piece.tone], 255), (*colours["ink"], 255)
    if piece.width:
        wide = piece.width * unit
        if piece.edge and edge:
            cv2.polylines(fine, points, False, ink, round(wide + edge), cv2.LINE_8, _FRACTION_BITS)
        width = max(1, round(wide - edge if piece.edge else wide))
        cv2.polylines(fine, points, False, fill, width, cv2.LINE_8, _FRACTION_BITS)
        return
    cv2.fillPoly(fine, points, fill, cv2.LINE_8, _FRACTION_BITS)
    if piece.edge and edge:
        cv2.polylines(fine, points, True, ink, max(1, round(edge)), cv2.LINE_8, _FRACTION_BITS)


def draw(pieces: Sequence[Piece], matrix: Matrix, colours: Colours, size: int, edge: float) -> Tile | None:
    """Draw pieces in order on a tile of a picture of `size` x `size` pixels.

    Args:
        pieces: what to draw, in units.
        matrix: (2, 3), units -> pixels.
        colours: RGB of each tone.
        size: height and width of the picture in pixels.
        edge: width of the outline in pixels; 0 for none.

    Returns:
        The tile, or None when all of it lies outside the picture.
    """
    unit = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    margin = 1 + edge + unit * max(piece.width for piece in pieces)
    corners = np.concatenate([contour for piece in pieces for contour in piece.contours])
    corners = corners @ matrix[:, :2].T + matrix[:, 2]
    x0, y0 = np.clip(np.floor(corners.min(axis=0) - margin), 0, size).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(corners.max(axis=0) + margin), 0, size).astype(int).tolist()
    if x0 >= x1 or y0 >= y1:
        return None
    fine = np.zeros(((y1 - y0) * SUPERSAMPLING, (x1 - x0) * SUPERSAMPLING, 4), dtype=np.uint8)
    for piece in pieces:
        points = [_fixed(contour, matrix, np.array([x0, y0])) for contour in piece.contours]
        _draw_piece(fine, piece, points, colours, unit * SUPERSAMPLING, edge * SUPERSAMPLING)
    pixels = cv2.resize(fine, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Tile(slice(y0, y1), slice(x0, x1), pixels[..., :3], pixels[..., 3] / np.float32(255))
