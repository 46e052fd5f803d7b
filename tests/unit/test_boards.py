"""DeepPCB's layout is read, pairs differ where the defect is, and the example pictures are what they say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fsagn_onnx.errors import AnnotationError
from fsagn_onnx.models.boards import LABELS, TYPES, board_pairs, exchange, read_boards, read_pairs, write_pairs

EXAMPLES = Path(__file__).parents[2] / "examples" / "pcb"


def write_deeppcb(folder: Path, boxes: str = "60 60 90 90 2\n150,150,180,180,5\n", ending: str = ".png") -> Path:
    """One board of 200 pixels: two defects that the good board lacks."""
    (folder / "g" / "1").mkdir(parents=True)
    (folder / "g" / "1_not").mkdir()
    good = np.zeros((200, 200), dtype=np.uint8)
    good[:, 80:120] = 250
    tested = good.copy()
    tested[70:80, 70:80] = tested[160:170, 160:170] = 250
    cv2.imwrite(str(folder / "g" / "1" / f"7_test{ending}"), tested)
    cv2.imwrite(str(folder / "g" / "1" / f"7_temp{ending}"), good)
    (folder / "g" / "1_not" / "7.txt").write_text(boxes)
    (folder / "test.txt").write_text("g/1/7.png g/1_not/7.txt\n")
    return folder


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_the_layout_is_read_in_black_and_white(tmp_path: Path, ending: str) -> None:
    (board,) = read_boards(write_deeppcb(tmp_path, ending=ending), "test")
    assert board.group == "g"
    assert [TYPES[box.type] for box in board.boxes] == ["short", "copper"]
    assert set(np.unique(board.tested)) == {0, 255}
    assert np.array_equal(exchange(board, board.boxes), board.good)


@pytest.mark.parametrize(
    ("boxes", "what"),
    [
        ("60 60 90\n", "expected 'x1 y1 x2 y2 type'"),
        ("60 60 90 90 7\n", "a type in 1..6"),
        ("90 60 60 90 1\n", "x1 < x2"),
    ],
)
def test_broken_boxes_give_one_line(tmp_path: Path, boxes: str, what: str) -> None:
    with pytest.raises(AnnotationError, match=r"7\.txt, line 1") as error:
        read_boards(write_deeppcb(tmp_path, boxes), "test")
    assert what in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_list_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"trainval\.txt"):
        read_boards(write_deeppcb(tmp_path), "trainval")


def test_a_pair_holds_one_defect_and_the_same_place(tmp_path: Path) -> None:
    (board,) = read_boards(write_deeppcb(tmp_path), "test")
    pairs = list(board_pairs(board, size=96))
    assert [pair.type for pair in pairs] == ["short", "copper"]
    for pair in pairs:
        rows, columns = np.nonzero(pair.defect != pair.good)
        assert rows.size
        assert pair.mask[rows, columns].all(), "another defect was left in the crop"
        assert pair.mask.sum() == 30 * 30


def test_windows_are_off_centre_and_always_the_same(tmp_path: Path) -> None:
    (board,) = read_boards(write_deeppcb(tmp_path), "test")
    first, again = (list(board_pairs(board, size=96)) for _ in range(2))
    assert [pair.box for pair in first] == [pair.box for pair in again]
    assert first[0].box[:2] != (33, 33)


def test_pairs_survive_writing_and_reading(tmp_path: Path) -> None:
    (board,) = read_boards(write_deeppcb(tmp_path / "data"), "test")
    pairs = list(board_pairs(board))
    assert write_pairs(pairs, tmp_path / "out") == 2
    for before, after in zip(pairs, read_pairs(tmp_path / "out"), strict=True):
        assert before.box == after.box
        assert np.array_equal(before.defect, after.defect)
        assert np.array_equal(before.good, after.good)


def test_the_examples_are_pairs_of_every_type() -> None:
    pairs = read_pairs(EXAMPLES)
    assert len(pairs) >= 24
    assert {pair.type for pair in pairs} == set(TYPES)
    assert LABELS[0] == "good"
    assert all((pair.defect != pair.good)[pair.mask].any() for pair in pairs)
    outside = [float((pair.defect != pair.good)[~pair.mask].mean()) for pair in pairs]
    assert np.mean(outside) < 0.03, "the boards are not aligned"
    assert "MIT License" in (EXAMPLES / "LICENSE").read_text(encoding="utf-8")
