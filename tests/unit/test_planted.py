"""The planted CNN answers where its patterns are and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from fsagn_onnx.testing.planted import (
    FILTERS,
    PATCH,
    PATTERNS,
    SIZE,
    TAP,
    TAPS,
    pattern,
    planted_model,
    planted_picture,
    write_planted,
)

SEEDS = range(60)
Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    proto = planted_model()
    for name in TAPS:
        proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def feature_map(session: ort.InferenceSession, images: list[Pixels]) -> Values:
    batch = (np.stack(images).astype(np.float32) / 255 - 0.5) / 0.5
    (values,) = session.run([TAP], {"image": batch.transpose(0, 3, 1, 2)})
    return np.asarray(values, dtype=np.float32)


def infill(image: Pixels, kind: str) -> Pixels:
    if kind == "mean":
        return np.broadcast_to(image.mean(axis=(0, 1)).astype(np.uint8), image.shape).copy()
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 10, borderType=cv2.BORDER_REPLICATE), dtype=np.uint8)


def retention(changed: Values, original: Values) -> float:
    return 1 - min(1.0, float(np.linalg.norm(changed - original) / np.linalg.norm(original)))


def test_same_seed_same_picture() -> None:
    first, second, other = planted_picture(5), planted_picture(5), planted_picture(6)
    np.testing.assert_array_equal(first.image, second.image)
    assert first.boxes == second.boxes
    assert not np.array_equal(first.image, other.image)


def test_pictures_hold_the_patterns_their_boxes_name() -> None:
    counts = set()
    for seed in SEEDS:
        picture = planted_picture(seed)
        counts.add(len(picture.boxes))
        covered = np.zeros((SIZE, SIZE), dtype=int)
        for k, (x0, y0, x1, y1) in picture.boxes.items():
            np.testing.assert_array_equal(picture.image[y0:y1, x0:x1], pattern(k))
            covered += picture.box_mask(k)
        assert covered.max() == 1
        assert covered.sum() == len(picture.boxes) * PATCH**2
    assert counts == {2, 3, 4}


def test_present_patterns_answer_three_times_stronger_than_absent_ones(session: ort.InferenceSession) -> None:
    present: dict[int, list[float]] = {k: [] for k in range(FILTERS)}
    absent: dict[int, list[float]] = {k: [] for k in range(FILTERS)}
    for seed in SEEDS:
        picture = planted_picture(seed)
        peaks = feature_map(session, [picture.image])[0].max(axis=(1, 2))
        for k in range(FILTERS):
            (present if k in picture.boxes else absent)[k].append(float(peaks[k]))
    for k in range(FILTERS):
        assert min(present[k]) > 3 * max(absent[k]), k
        assert min(present[k]) > 0.6, k


def test_pattern_alone_answers_at_every_pixel_offset(session: ort.InferenceSession) -> None:
    images, centres = [], []
    for offset in range(64):
        image = np.full((SIZE, SIZE, 3), 128, dtype=np.uint8)
        y, x = 16 + offset // 8, 16 + offset % 8
        image[y : y + PATCH, x : x + PATCH] = pattern(offset % FILTERS)
        images.append(image)
        centres.append((x + PATCH / 2, y + PATCH / 2))
    maps = feature_map(session, images)
    for offset, (u, v) in enumerate(centres):
        own = maps[offset, offset % FILTERS]
        assert 0.6 < own.max() < 1.02
        rows, columns = np.nonzero(own == own.max())
        assert abs(8 * rows.mean() + 4 - v) <= 5
        assert abs(8 * columns.mean() + 4 - u) <= 5


def test_gray_texture_alone_answers_nothing(session: ort.InferenceSession) -> None:
    pictures = [planted_picture(seed) for seed in SEEDS]
    grounds = []
    for picture in pictures:
        image = picture.image.copy()
        for k in picture.boxes:
            image[picture.box_mask(k)] = 128
        grounds.append(image)
    assert feature_map(session, grounds).max() < 0.01


@pytest.mark.parametrize("kind", ["blur", "mean"])
def test_the_patch_is_sufficient_and_necessary(session: ort.InferenceSession, kind: str) -> None:
    for seed in SEEDS:
        picture = planted_picture(seed)
        ground = infill(picture.image, kind)
        for k in picture.boxes:
            inside = picture.box_mask(k)[..., None]
            kept, removed = np.where(inside, picture.image, ground), np.where(inside, ground, picture.image)
            original, alone, without = feature_map(session, [picture.image, kept, removed])[:, k]
            assert retention(alone, original) >= 0.8, (seed, k)
            assert without.max() < 0.35 * original.max(), (seed, k)
            assert retention(without, original) < 0.35, (seed, k)


def test_a_half_transparent_pattern_still_has_an_answer(session: ort.InferenceSession) -> None:
    image = np.full((SIZE, SIZE, 3), 128, dtype=np.uint8)
    image[20:36, 20:36] = (pattern(0).astype(int) + 128) // 2
    assert 0.02 < feature_map(session, [image])[0, 0].max() < 0.5


def test_no_two_patterns_share_a_pair() -> None:
    pairs = [pair for colours in PATTERNS for pair in (colours[:2], colours[2:])]
    assert len(set(pairs)) == len(pairs) == 2 * FILTERS


def test_the_file_describes_itself(tmp_path: Path) -> None:
    path = write_planted(tmp_path / "planted.onnx")
    proto = onnx.load(path)
    described = json.loads({p.key: p.value for p in proto.metadata_props}["fsagn_model"])
    assert described["input"]["size"] == [SIZE, SIZE]
    assert len(described["labels"]) == FILTERS
    assert [o.version for o in proto.opset_import] == [17]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": np.zeros((3, 3, SIZE, SIZE), np.float32)})
    assert np.asarray(scores).shape == (3, FILTERS)
