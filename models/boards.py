"""DeepPCB's pairs of a tested board and the aligned good board, and crops of one defect and the same good place.

The layout is DeepPCB's own (Tang et al. 2019, "Online PCB Defect Detector On A New PCB Defect Dataset"): a list
`trainval.txt` or `test.txt` with lines `GROUP/ID/NAME.png GROUP/ID_not/NAME.txt`; beside NAME the pictures `NAME_test`
and `NAME_temp`, 640 x 640 grey; in the text file a box `x1 y1 x2 y2 type` a line. Pictures are cut at 127 to black and
white, so that the original's grey JPEG and 1-bit PNG are the same board.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fsagn_onnx.data.images import read_image
from fsagn_onnx.errors import AnnotationError

__all__ = ["LABELS", "MARGIN", "SIZE", "TYPES", "Board", "Box", "Pair", "board_pairs", "exchange", "read_boards"]

TYPES: Final = ("open", "short", "mousebite", "spur", "copper", "pin hole")
"""Defect types, in the order of DeepPCB's numbers 1 to 6."""
LABELS: Final = ("good", *TYPES)
"""Classes of the boards' networks."""
SIZE: Final = 96
"""Edge of a crop in pixels."""
MARGIN: Final = 3
"""Pixels by which another defect's box grows before it is exchanged for the good board."""
THRESHOLD: Final = 127

Pixels = NDArray[np.uint8]


class Box(NamedTuple):
    """A defect: columns `left` to `right`, rows `top` to `bottom`, the last not in it; its type's place in `TYPES`."""

    left: int
    top: int
    right: int
    bottom: int
    type: int

    @property
    def centre(self) -> tuple[float, float]:
        """(row, column)."""
        return (self.top + self.bottom) / 2, (self.left + self.right) / 2

    @property
    def longest(self) -> int:
        """The longer edge in pixels."""
        return max(self.right - self.left, self.bottom - self.top)


@dataclass(frozen=True)
class Board:
    """One place of a board.

    Attributes:
        name: as in the list, `GROUP/ID/NAME`.
        tested: uint8 ``(H, W)``, 0 or 255.
        good: the aligned board without defects, as `tested`.
        boxes: the defects of `tested`.
    """

    name: str
    tested: Pixels
    good: Pixels
    boxes: tuple[Box, ...]

    @property
    def group(self) -> str:
        """Boards of one group show the same product."""
        return self.name.split("/")[0]


@dataclass(frozen=True)
class Pair:
    """A crop of one defect, and the same place of the good board.

    Attributes:
        name: of the board and the defect.
        defect: uint8 ``(size, size)``; other defects that reach into it are exchanged for the good board.
        good: the good board's crop.
        box: the defect in the crop's pixels, cut at its edges.
        alone: no other defect reached into the crop, so `defect` is the picture as it was scanned.
        place: rows and columns of the crop on the board.
    """

    name: str
    defect: Pixels
    good: Pixels
    box: Box
    alone: bool
    place: tuple[slice, slice]


def read_grey(path: Path) -> Pixels:
    """A picture cut at 127: uint8 ``(H, W)``, 0 or 255.

    Raises:
        ImageError: it cannot be read.
    """
    grey = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
    return np.where(grey > THRESHOLD, np.uint8(255), np.uint8(0))


def read_boxes(path: Path) -> tuple[Box, ...]:
    """The defects of a text file.

    Raises:
        AnnotationError: the file cannot be read, or a line is not `x1 y1 x2 y2 type`.
    """
    found = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            left, top, right, bottom, kind = (int(word) for word in line.replace(",", " ").split())
        except ValueError:
            raise AnnotationError(
                f"{path}, line {number}: expected 'x1 y1 x2 y2 type', but got {line[:60]!r}"
            ) from None
        if not (0 <= left < right and 0 <= top < bottom and 1 <= kind <= len(TYPES)):
            raise AnnotationError(
                f"{path}, line {number}: expected a box with x1 < x2, y1 < y2 and a type in 1..6, but got {line[:60]!r}"
            )
        found.append(Box(left, top, right, bottom, kind - 1))
    return tuple(found)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"cannot read {path}: {error}; it is a text file of DeepPCB's layout") from error
    return [line for line in map(str.strip, text.splitlines()) if line]


def read_boards(folder: Path, split: str) -> list[Board]:
    """All boards of a split, in the list's order.

    Args:
        folder: where the lists lie.
        split: ``trainval`` or ``test``; what stands in ``test`` is for testing only.

    Raises:
        AnnotationError: a list or a file of boxes is missing or not in DeepPCB's layout.
        ImageError: a picture cannot be read.
    """
    boards = []
    for line in _lines(folder / f"{split}.txt"):
        picture, _, boxes = line.partition(" ")
        path = folder / picture
        tested, good = (_picture(path, part) for part in ("test", "temp"))
        if tested.shape != good.shape:
            raise AnnotationError(
                f"{path}: the pair must have one size, but got {tested.shape} tested and {good.shape} good"
            )
        boards.append(Board(picture.removesuffix(path.suffix), tested, good, read_boxes(folder / boxes.strip())))
    return boards


def _picture(path: Path, part: str) -> Pixels:
    names = [path.with_name(f"{path.stem}_{part}{ending}") for ending in (".png", ".jpg")]
    return read_grey(next((name for name in names if name.is_file()), names[0]))


def exchange(board: Board, boxes: Sequence[Box], margin: int = MARGIN) -> Pixels:
    """The tested board with some boxes' pixels exchanged for the good board's: uint8 ``(H, W)``."""
    made = board.tested.copy()
    for box in boxes:
        place = np.s_[max(0, box.top - margin) : box.bottom + margin, max(0, box.left - margin) : box.right + margin]
        made[place] = board.good[place]
    return made


def window(board: Board, box: Box, size: int) -> tuple[int, int]:
    """(top, left) of the square of edge `size` around a box, moved into the board."""
    starts = (round(centre - size / 2) for centre in box.centre)
    top, left = (min(max(0, start), edge - size) for start, edge in zip(starts, board.tested.shape, strict=True))
    return top, left


def board_pairs(board: Board, size: int = SIZE) -> Iterator[Pair]:
    """A pair per defect that is not larger than the crop."""
    for number, box in enumerate(board.boxes):
        if box.longest > size:
            continue
        top, left = window(board, box, size)
        others = [
            other
            for other in board.boxes
            if other is not box
            and other.right + MARGIN > left
            and other.left - MARGIN < left + size
            and other.bottom + MARGIN > top
            and other.top - MARGIN < top + size
        ]
        tested = exchange(board, others)
        own = np.s_[box.top : box.bottom, box.left : box.right]
        tested[own] = board.tested[own]  # where boxes overlap, the asked defect stays whole
        place = (slice(top, top + size), slice(left, left + size))
        inner = Box(
            max(0, box.left - left),
            max(0, box.top - top),
            min(size, box.right - left),
            min(size, box.bottom - top),
            box.type,
        )
        yield Pair(f"{board.name}#{number}", tested[place].copy(), board.good[place].copy(), inner, not others, place)
