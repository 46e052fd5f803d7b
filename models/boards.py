"""DeepPCB's pairs of a tested board and the aligned good board, and crops of one defect and the same good place.

The layout is DeepPCB's own (Tang et al. 2019, "Online PCB Defect Detector On A New PCB Defect Dataset"): a list
`trainval.txt` or `test.txt` with lines `GROUP/ID/NAME.png GROUP/ID_not/NAME.txt`; beside NAME the pictures `NAME_test`
and `NAME_temp`, 640 x 640 grey; in the text file a box `x1 y1 x2 y2 type` a line. Pictures are cut at 127 to black and
white, so that the original's grey JPEG and 1-bit PNG are the same board.

    python -m fsagn_onnx.models.boards --data DEEPPCB --split test --per-type 5 --out examples/pcb

writes pairs as pictures: `OUT/TYPE/NAME.png` and, of the same place of the good board, `OUT/good/NAME.png`, so that
folders are classes; `OUT/parts.json` has the boxes in COCO's form, for `dissect` and `evaluate`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from fsagn_onnx.data.annotations import open_annotations
from fsagn_onnx.data.files import make_folder, write_file
from fsagn_onnx.data.images import read_image
from fsagn_onnx.errors import AnnotationError

__all__ = [
    "LABELS", "SIZE", "TYPES", "Board", "DefectBox", "Pair", "board_pairs", "exchange", "read_boards", "read_pairs",
    "write_pairs",
]  # fmt: skip

TYPES: Final = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""Defect types, in the order of DeepPCB's numbers 1 to 6."""
LABELS: Final = ("good", *TYPES)
"""Classes of the boards' networks."""
SIZE: Final = 96
"""Edge of a crop in pixels."""
MARGIN: Final = 3
"""Pixels by which another defect's box grows before it is exchanged for the good board."""
OFF_CENTRE: Final = 0.25
"""How far a defect's centre may lie off the crop's, as a share of its edge."""
THRESHOLD: Final = 127

Pixels = NDArray[np.uint8]


class DefectBox(NamedTuple):
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
    boxes: tuple[DefectBox, ...]

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
        place: rows and columns of the crop on the board; None for a pair that was read from pictures.
    """

    name: str
    defect: Pixels
    good: Pixels
    box: DefectBox
    alone: bool
    place: tuple[slice, slice] | None = None

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The box as bool ``(size, size)``."""
        made = np.zeros(self.defect.shape, dtype=np.bool_)
        made[self.box.top : self.box.bottom, self.box.left : self.box.right] = True
        return made

    @property
    def type(self) -> str:
        """The defect's type."""
        return TYPES[self.box.type]


def read_grey(path: Path) -> Pixels:
    """A picture cut at 127: uint8 ``(H, W)``, 0 or 255.

    Raises:
        ImageError: it cannot be read.
    """
    grey = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
    return np.where(grey > THRESHOLD, np.uint8(255), np.uint8(0))


def read_boxes(path: Path) -> tuple[DefectBox, ...]:
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
        found.append(DefectBox(left, top, right, bottom, kind - 1))
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


def exchange(board: Board, boxes: Sequence[DefectBox], margin: int = MARGIN) -> Pixels:
    """The tested board with some boxes' pixels exchanged for the good board's: uint8 ``(H, W)``."""
    made = board.tested.copy()
    for box in boxes:
        place = np.s_[max(0, box.top - margin) : box.bottom + margin, max(0, box.left - margin) : box.right + margin]
        made[place] = board.good[place]
    return made


def window(board: Board, box: DefectBox, size: int) -> tuple[int, int]:
    """(top, left) of a square of edge `size` that holds a box, off its centre by chance, and lies in the board.

    The same box of the same board has the same window always. A map that knows nothing but the centre finds no defect.
    """
    rng = np.random.default_rng([zlib.crc32(board.name.encode()), *box])
    edges = (box.bottom - box.top, box.right - box.left)
    slack = [max(0.0, min(OFF_CENTRE * size, (size - edge) / 2 - 2)) for edge in edges]
    shifted = [centre + rng.uniform(-most, most) for centre, most in zip(box.centre, slack, strict=True)]
    starts = (round(centre - size / 2) for centre in shifted)
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
        inner = DefectBox(
            max(0, box.left - left),
            max(0, box.top - top),
            min(size, box.right - left),
            min(size, box.bottom - top),
            box.type,
        )
        yield Pair(
            f"{board.name.split('/')[-1]}-{number}",
            tested[place].copy(),
            board.good[place].copy(),
            inner,
            not others,
            place,
        )


def write_pairs(pairs: Iterable[Pair], out: Path) -> int:
    """Write pairs as 1-bit pictures, and their boxes as `parts.json` in COCO's form; how many there were.

    Raises:
        OutputError: the folder cannot be written.
    """
    images: list[dict[str, object]] = []
    boxes: list[dict[str, object]] = []
    for pair in pairs:
        height, width = pair.defect.shape
        for folder, pixels in ((pair.type, pair.defect), ("good", pair.good)):
            make_folder(out / folder)
            encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
            write_file(out / folder / f"{pair.name}.png", [encoded.tobytes()])
            name = f"{folder}/{pair.name}.png"
            images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        box = pair.box
        sides = [box.left, box.top, box.right - box.left, box.bottom - box.top]
        boxes.append({"id": len(boxes) + 1, "image_id": len(images) - 1, "category_id": box.type + 1, "bbox": sides})
    categories = [{"id": number, "name": name} for number, name in enumerate(TYPES, start=1)]
    document = {"images": images, "annotations": boxes, "categories": categories}
    write_file(out / "parts.json", [(json.dumps(document) + "\n").encode()])
    return len(boxes)


def read_pairs(folder: Path) -> list[Pair]:
    """The pairs that `write_pairs` wrote, by type and name.

    Raises:
        AnnotationError: `parts.json` is missing, or lacks a picture.
        ImageError: a picture cannot be read.
    """
    annotations = open_annotations(folder / "parts.json")
    pairs = []
    for number, kind in enumerate(TYPES):
        for path in sorted((folder / kind).glob("*.png")):
            found = annotations.find(path)
            if found is None or len(found.parts) != 1 or found.parts[0].box is None:
                raise AnnotationError(f"{folder / 'parts.json'}: expected one box for {kind}/{path.name}")
            left, top, right, bottom = (round(side) for side in found.parts[0].box)
            box = DefectBox(left, top, right, bottom, number)
            pairs.append(Pair(path.stem, read_grey(path), read_grey(folder / "good" / path.name), box, alone=True))
    return pairs


def sample(pairs: Iterable[Pair], per_type: int, seed: int = 0) -> list[Pair]:
    """So many pairs of every type, drawn among those that lie whole in their crop, alone and not at its edge."""
    rng = np.random.default_rng(seed)
    of_type: dict[str, list[Pair]] = {kind: [] for kind in TYPES}
    for pair in pairs:
        inside = min(pair.box[:2]) > 0 and max(pair.box[2:4]) < len(pair.defect)
        if pair.alone and inside:
            of_type[pair.type].append(pair)
    drawn = ((found, rng.permutation(len(found))[:per_type].tolist()) for found in of_type.values())
    return [found[index] for found, order in drawn for index in sorted(order)]


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option("--split", default="test", show_default=True, type=click.Choice(["trainval", "test"]))
@click.option("--per-type", type=click.IntRange(1), help="So many of every type, drawn; all unless told.")
@click.option("--size", default=SIZE, show_default=True, type=click.IntRange(32, 640), help="Edge of the crops.")
@click.option("--out", required=True, type=click.Path(path_type=Path))
def main(data: Path, split: str, per_type: int | None, size: int, out: Path) -> None:
    """Write crops of one defect each, and the same places of the good boards."""
    pairs: Iterable[Pair] = (pair for board in read_boards(data, split) for pair in board_pairs(board, size))
    count = write_pairs(pairs if per_type is None else sample(pairs, per_type), out)
    click.echo(f"{out}: {count} pairs")


if __name__ == "__main__":
    main()
