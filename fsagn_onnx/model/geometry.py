"""From the pixels of a photograph to those of the model's input, and back.

Coordinates are continuous, (x, y): pixel (row r, column c) covers [c, c + 1) x [r, r + 1). OpenCV's
half-pixel resizing is then exactly x_input = x_original * W / W0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UsageError

__all__ = ["Geometry", "Window", "crop_window", "letterbox_window", "resize_pixels"]

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Window:
    """A rectangle in whole pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the pixels of a model's input come from in the original image.

    Attributes:
        original: (H0, W0) of the upright original.
        size: (H, W) of the model's input.
        matrix: 2x3 float64, diagonal scale and shift: (x, y, 1) of the model's input -> (x, y) of the
            original.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    matrix: NDArray[np.float64]

    @classmethod
    def from_windows(cls, original: tuple[int, int], size: tuple[int, int], source: Window, target: Window) -> Geometry:
        """The map under which `target`, in the model's input, shows `source`, in the original."""
        scale_x, scale_y = source.width / target.width, source.height / target.height
        shift_x, shift_y = source.left - target.left * scale_x, source.top - target.top * scale_y
        matrix = np.array([[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y]], dtype=np.float64)
        return cls(original, size, matrix)

    def points_to_original(self, xy: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) points (x, y) of the model's input -> of the original; they may lie outside of it."""
        points = np.asarray(xy, dtype=np.float64)
        return points * self.matrix[[0, 1], [0, 1]] + self.matrix[:, 2]

    def points_to_input(self, xy: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) points (x, y) of the original -> of the model's input; they may lie outside of it."""
        points = np.asarray(xy, dtype=np.float64)
        return (points - self.matrix[:, 2]) / self.matrix[[0, 1], [0, 1]]

    def grid_matrix(self, h: int, w: int) -> NDArray[np.float64]:
        """The 2x3 map from cells of an h x w grid over the model's input to pixels of the original."""
        cell = np.array([self.size[1] / w, self.size[0] / h, 1.0], dtype=np.float64)
        return self.matrix * cell

    def mask_to_original(self, mask: NDArray[Scalar]) -> NDArray[Scalar]:
        """Look up, for each pixel of the original, the input pixel that its centre falls into.

        Args:
            mask: (H, W), boolean or any other kind of number.

        Returns:
            (H0, W0) of the same dtype; False (zero) where the model did not see the original.

        Raises:
            UsageError: the mask has another size than the model's input.
        """
        if mask.shape != self.size:
            raise UsageError(f"the mask must have the model's input size {self.size}, but has {mask.shape}")
        rows = self._source_index(self.original[0], self.matrix[1, 1], self.matrix[1, 2])
        columns = self._source_index(self.original[1], self.matrix[0, 0], self.matrix[0, 2])
        seen_rows = (rows >= 0) & (rows < self.size[0])
        seen_columns = (columns >= 0) & (columns < self.size[1])
        shown = mask.take(rows[seen_rows], axis=0).take(columns[seen_columns], axis=1)
        if shown.shape == self.original:
            return shown
        full = np.zeros(self.original, dtype=mask.dtype)
        full[np.ix_(seen_rows, seen_columns)] = shown
        return full

    @staticmethod
    def _source_index(length: int, scale: float, shift: float) -> NDArray[np.int64]:
        index: NDArray[np.int64] = np.floor((np.arange(length) + 0.5 - shift) / scale).astype(np.int64)
        return index


def crop_window(original: tuple[int, int], size: tuple[int, int], fraction: float) -> Window:
    """The centred window of the model's aspect ratio: `fraction` of the largest one, in whole pixels."""
    height0, width0 = original
    height, width = size
    unit = fraction * min(height0 / height, width0 / width)
    crop_height = min(height0, max(1, round(unit * height)))
    crop_width = min(width0, max(1, round(unit * width)))
    return Window((height0 - crop_height) // 2, (width0 - crop_width) // 2, crop_height, crop_width)


def letterbox_window(original: tuple[int, int], size: tuple[int, int]) -> Window:
    """The centred window of the model's input that shows the whole original at its own aspect ratio."""
    height0, width0 = original
    height, width = size
    factor = min(height / height0, width / width0)
    shown_height = min(height, max(1, round(height0 * factor)))
    shown_width = min(width, max(1, round(width0 * factor)))
    return Window((height - shown_height) // 2, (width - shown_width) // 2, shown_height, shown_width)


def resize_pixels(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H0, W0, 3) to (H, W, 3): area average along an axis that shrinks, bilinear where it grows."""
    height, width = size
    shrunk = min(height, image.shape[0]), min(width, image.shape[1])
    resized: NDArray[Any] = image
    if shrunk != resized.shape[:2]:
        resized = cv2.resize(resized, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if size != resized.shape[:2]:
        resized = cv2.resize(resized, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized.reshape(height, width, *image.shape[2:])
