"""The synthetic parts set: same seed, same picture; exact masks; no part decides alone."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsagn_onnx.errors import OutputError, UsageError
from fsagn_onnx.testing.synthetic import (
    CLASSES,
    PARTS,
    SPLITS,
    SyntheticParts,
    class_of,
    render,
    variants_of,
    write_folder,
)
from fsagn_onnx.testing.synthetic.objects import TWINS
from fsagn_onnx.testing.synthetic.raster import draw
from fsagn_onnx.testing.synthetic.scene import tones
from fsagn_onnx.testing.synthetic.shapes import VARIANTS, Piece

seeds = st.integers(0, 3_000_000_000)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_same_seed_same_picture(seed: int) -> None:
    first, second = render(seed), render(seed)
    np.testing.assert_array_equal(first.image, second.image)
    for part in PARTS:
        np.testing.assert_array_equal(first.parts[part], second.parts[part])
    assert not np.array_equal(first.image, render(seed + 1).image)


def test_the_global_random_state_stays() -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    render(11)
    assert np.random.random() == expected


@settings(max_examples=40, deadline=None)
@given(seed=seeds, part=st.sampled_from(PARTS))
def test_removing_a_part_changes_pixels_inside_its_extent_only(seed: int, part: str) -> None:
    whole, without = render(seed), render(seed, remove=part)
    changed = (whole.image != without.image).any(axis=2)
    assert not changed[~whole.extents[part]].any()
    assert changed[whole.parts[part]].mean() > 0.5
    assert part not in without.parts
    assert part not in without.variants
    for other in without.parts:  # what the part hid comes to light, nothing else moves
        grown = without.parts[other] & ~whole.parts[other]
        assert not (whole.parts[other] & ~without.parts[other]).any()
        assert not grown[~whole.extents[part]].any()


@settings(max_examples=40, deadline=None)
@given(seed=seeds, part=st.sampled_from(PARTS), number=st.integers(0, 2))
def test_exchanging_a_part_changes_pixels_inside_both_extents_only(seed: int, part: str, number: int) -> None:
    variant = tuple(VARIANTS[part])[number]
    whole, exchanged = render(seed), render(seed, exchange={part: variant})
    changed = (whole.image != exchanged.image).any(axis=2)
    assert not changed[~(whole.extents[part] | exchanged.extents[part])].any()
    assert changed.any() == (whole.variants[part] != variant)
    assert exchanged.variants == {**whole.variants, part: variant}


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_masks_are_disjoint_visible_and_inside_the_picture(seed: int) -> None:
    sample = render(seed)
    assert np.sum(list(sample.parts.values()), axis=0).max() == 1
    for part in PARTS:
        assert sample.parts[part].sum() >= 20, part
        assert not (sample.parts[part] & ~sample.extents[part]).any()
        assert sample.extents[part].sum() == sample.extents[part][1:-1, 1:-1].sum(), part


def test_alpha_is_the_covered_share_of_a_pixel() -> None:
    square = np.array([[10.25, 10.5], [20.75, 10.5], [20.75, 20.0], [10.25, 20.0]])
    hole = np.array([[14.0, 14.0], [16.0, 14.0], [16.0, 16.0], [14.0, 16.0]])
    identity = np.eye(2, 3)
    colours = tones(np.array([200.0, 100, 50]), np.zeros(3))
    tile = draw([Piece((square, hole))], identity, colours, 32, edge=0)
    assert tile is not None
    alpha = np.zeros((32, 32))
    alpha[tile.rows, tile.columns] = tile.alpha
    columns = np.clip(np.minimum(np.arange(32) + 1, 20.75) - np.maximum(np.arange(32), 10.25), 0, 1)
    rows = np.clip(np.minimum(np.arange(32) + 1, 20.0) - np.maximum(np.arange(32), 10.5), 0, 1)
    expected = rows[:, None] * columns[None, :]
    expected[14:16, 14:16] = 0
    assert np.abs(alpha - expected).max() <= 0.45  # the edge of the hole is drawn too
    expected[13:17, 13:17] = alpha[13:17, 13:17]
    assert np.abs(alpha - expected).max() <= 0.27  # OpenCV's outline is at most one fine pixel wide
    assert alpha[15, 15] < 0.5


def test_a_tile_outside_the_picture_is_none() -> None:
    piece = Piece((np.array([[40.0, 40.0], [50.0, 40.0], [45.0, 50.0]]),))
    assert draw([piece], np.eye(2, 3), tones(np.zeros(3), np.zeros(3)), 32, edge=1.0) is None


def test_no_single_part_decides_the_class() -> None:
    for part in PARTS:
        counts = Counter(variants_of(label)[part] for label in range(len(CLASSES)))
        assert set(counts) == set(VARIANTS[part])
        assert min(counts.values()) >= 2, part


def test_for_every_part_two_classes_differ_in_it_alone() -> None:
    assert set(TWINS) == set(PARTS)
    for part, (a, b) in TWINS.items():
        turned = render(SPLITS["test"] + a, exchange={part: variants_of(b)[part]})
        assert turned.label == a
        assert class_of(turned.variants) == b


def test_class_of_is_the_inverse_of_variants_of() -> None:
    assert [class_of(variants_of(label)) for label in range(len(CLASSES))] == list(range(len(CLASSES)))
    incomplete = variants_of(0)
    del incomplete["wing"]
    assert class_of(incomplete) is None


def test_splits_share_no_picture() -> None:
    sets = [SyntheticParts(split, 30) for split in SPLITS]
    seen = [{sample.seed for sample in part_of_set} for part_of_set in sets]
    assert len(set.union(*seen)) == 90
    ends = sorted((s.seed(0), SPLITS[s.split] + 999_999_999) for s in sets)
    assert all(last < first for (_, last), (first, _) in pairwise(ends))
    assert len({sample.image.tobytes() for part_of_set in sets for sample in part_of_set}) == 90


def test_a_split_is_a_sequence() -> None:
    pictures = SyntheticParts("val", 20, size=64)
    assert len(pictures) == 20
    assert [sample.label for sample in pictures] == list(range(10)) * 2
    assert pictures[3].image.shape == (64, 64, 3)
    assert pictures[3].parts["body"].shape == (64, 64)
    np.testing.assert_array_equal(pictures[3].image, render(pictures.seed(3), size=64).image)
    np.testing.assert_array_equal(pictures[3].image, SyntheticParts("val", 4, size=64)[3].image)
    with pytest.raises(IndexError, match="picture 20 of a synthetic set of 20"):
        pictures[20]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: render(0, remove="leg"), "no part type 'leg' .* body, head, wing, tail, wheel, emblem"),
        (lambda: render(0, exchange={"wheel": "oval"}), "no variant 'oval' .* round, square, gear"),
        (lambda: SyntheticParts("dev", 3), "no split 'dev' .* train, val, test"),
        (lambda: SyntheticParts("val", -1), "length .* but got -1"),
        (lambda: SyntheticParts("val", 1, size=4), r"size .* 16\.\.4096 pixels, but got 4"),
    ],
)  # fmt: skip
def test_errors_say_what_is_known(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(UsageError, match=message):
        call()


def test_write_folder_gives_ordinary_images(tmp_path: Path) -> None:
    names = write_folder(tmp_path / "set", "val", 12, size=64)
    described = json.loads(names.read_text())
    assert described["classes"] == list(CLASSES)
    assert described["parts"] == {
        "1": "body",
        "2": "head",
        "3": "wing",
        "4": "tail",
        "5": "wheel",
        "6": "emblem",
    }
    assert len(described["images"]) == 12
    for entry, sample in zip(described["images"], SyntheticParts("val", 12, size=64), strict=True):
        image = cv2.imread(str(names.parent / entry["file"]), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(names.parent / entry["mask"]), cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert mask is not None
        np.testing.assert_array_equal(image[..., ::-1], sample.image)
        for number, part in described["parts"].items():
            np.testing.assert_array_equal(mask == int(number), sample.parts[part])
        assert (entry["label"], entry["class"]) == (sample.label, CLASSES[sample.label])
        assert entry["variants"] == sample.variants
    assert not list(tmp_path.rglob("*.part"))


def test_write_folder_names_the_file_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        write_folder(tmp_path / "file", "val", 1)
