"""What a decision hangs on, against a network that decides by colour: the truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.stats

from fsagn_onnx.errors import UsageError
from fsagn_onnx.evaluation import Options, evaluate
from fsagn_onnx.evaluation.decision import (
    AnsweringModel,
    SwitchedOff,
    answers_shown,
    at_granularity,
    exchanged,
    highest_places,
    iou,
    moved_away,
    points_at,
)
from fsagn_onnx.model import InputSpec, Model, load_model
from fsagn_onnx.statistics.correlation import spearman
from fsagn_onnx.testing.graph_builder import GraphBuilder

SIZE = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Class 0: more dark than red; class 1: red somewhere. Filters: red in cells of 4 pixels, and a constant."""
    graph = GraphBuilder()
    weights = np.zeros((3, 3, 4, 4), np.float32)
    weights[0, 0], weights[0, 1:] = 1 / 16, -1 / 32
    weights[1, 1], weights[1, ::2] = 1 / 16, -1 / 32
    weights[2] = 1 / 48
    value = graph.op("Conv", "image", graph.constant(weights), strides=[4, 4], kernel_shape=[4, 4])
    flat = graph.op("Flatten", graph.op("GlobalAveragePool", graph.op("Relu", value, out="seen")))
    dense = np.array([[0, 60], [10, -10], [1, 0]], np.float32)
    graph.op("Gemm", flat, graph.constant(dense), graph.constant(np.array([1, 0], np.float32)), out="logits")
    path = graph.save(tmp_path_factory.mktemp("red") / "red.onnx", ["logits"], size=SIZE)
    spec = InputSpec("image", "NCHW", "RGB", (SIZE, SIZE), 1 / 255, (0.0,) * 3, (1.0,) * 3, "stretch")
    return load_model(path, preprocess=spec)


@pytest.fixture
def picture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey with a red square; the same without; where it is."""
    good = np.full((SIZE, SIZE, 3), 90, np.uint8)
    truth = np.zeros((SIZE, SIZE), bool)
    truth[8:16, 16:24] = True
    bad = good.copy()
    bad[truth] = (250, 10, 10)
    return bad, good, truth


def test_the_area_that_carries_a_decision_keeps_and_removes_it(model: Model, picture: tuple[np.ndarray, ...]) -> None:
    bad, _, truth = picture
    with AnsweringModel(model) as answers:
        assert answers.winners(bad[None]).tolist() == [1]
        right = answers_shown(answers, bad, [truth], 1, "inpaint")
        wrong = answers_shown(answers, bad, [np.roll(truth, 12, axis=0)], 1, "inpaint")
    assert (right.stays, right.falls) == (1, 1)
    assert (wrong.stays, wrong.falls) == (0, 0)
    assert right.kept > 0.5 > right.removed
    assert wrong.kept < 0.5 < wrong.removed


def test_exchanging_the_defect_makes_it_good(model: Model, picture: tuple[np.ndarray, ...]) -> None:
    bad, good, truth = picture
    other = moved_away(truth, np.random.default_rng(0))
    assert other.sum() == truth.sum()
    assert not (other & truth).any()
    with AnsweringModel(model) as answers:
        assert answers.winners(exchanged(bad, good, [truth, other])).tolist() == [0, 1]


def test_pointing_iou_and_the_highest_places(picture: tuple[np.ndarray, ...]) -> None:
    truth = picture[2]
    evidence = truth.astype(np.float32)
    evidence[12, 20] = 2
    assert points_at(evidence, truth)
    assert np.array_equal(highest_places(evidence, float(truth.mean())), truth)
    assert highest_places(evidence, 0.1).sum() == round(0.1 * SIZE * SIZE)
    half = truth & (np.arange(SIZE)[:, None] < 12)
    assert iou(half, truth) == 0.5
    assert iou(truth, ~truth) == 0
    assert np.isnan(iou(truth & False, truth & False))
    assert not points_at(-evidence, truth)


def test_granularity_keeps_the_place(picture: tuple[np.ndarray, ...]) -> None:
    truth = picture[2]
    for cell in (0, 4, 8):
        fine = at_granularity(truth.astype(np.float32), (SIZE, SIZE), cell)
        assert fine.shape == (SIZE, SIZE)
        assert points_at(fine, truth)


def test_contributions_are_what_switching_off_takes_away(model: Model, picture: tuple[np.ndarray, ...]) -> None:
    bad = picture[0]
    with SwitchedOff(model, "seen", threads=1) as off:
        phi, drop = off.measure(bad, 1)
        assert off.agreement(bad, 1) == 1
    # two classes: d_1 = z_1 - z_0 is linear in the filters, so the two are equal
    np.testing.assert_allclose(phi, drop, rtol=1e-4)
    assert len(phi) == 2, "the filter that is silent in the picture is left out"


def test_rank_correlation_is_scipy_s() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        first, second = rng.integers(0, 6, (2, 30)).astype(float)
        assert spearman(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic)
    assert np.isnan(spearman(np.ones(3), np.arange(3.0)))
    assert np.isnan(spearman(np.ones(1), np.ones(1)))


def test_a_model_without_classes_gives_one_line(tmp_path: Path) -> None:
    graph = GraphBuilder()
    graph.op("Sigmoid", graph.conv("image", 3, 2), out="map")
    with pytest.raises(UsageError, match="need a model that classifies") as error:
        AnsweringModel(load_model(graph.save(tmp_path / "map.onnx", ["map"])))
    assert "\n" not in str(error.value)


def test_evaluate_measures_the_answer(model: Model, picture: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    """Evidence that is known to be right beside noise, in one run of `evaluate`, with boxes and the good picture."""
    bad, good, truth = picture
    for folder, pixels in (("bad", bad), ("good", good)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "one.png"), pixels[..., ::-1])
    (rows, columns) = np.nonzero(truth)
    box = [int(columns.min()), int(rows.min()), 8, 8]
    parts = {
        "images": [{"id": 1, "file_name": "bad/one.png", "width": SIZE, "height": SIZE}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}],
        "categories": [{"id": 1, "name": "spot"}],
    }
    (tmp_path / "parts.json").write_text(json.dumps(parts))
    options = Options(
        methods=("activation", "random"), metrics=("decision",), infills=("inpaint",), filters=1, layer="seen",
        class_methods=("cam", "random-class"), good=tmp_path / "good", parts=tmp_path / "parts.json", threads=1,
    )  # fmt: skip
    found = evaluate(model, [], [tmp_path / "bad"], options, out=tmp_path / "out")
    assert found.value("evidence pointing game", "cam").mean == 1
    assert found.value("evidence IoU", "cam").mean > 0.5 > found.value("evidence IoU", "random-class").mean
    assert found.value("exchange agreement", "cam").mean == 1
    assert found.value("kept", "cam").mean > found.value("kept", "random-class").mean
    assert found.value("removed", "cam").mean < found.value("removed", "random-class").mean
    assert found.value("decision flipped", "cam").mean > 0.5
    assert found.value("contribution against switching off", "contributions").mean == 1
    assert found.value("forward passes for one class", "cam").mean == 1
    again = evaluate(model, [], [tmp_path / "bad"], options, out=tmp_path / "out", resume=True)
    assert again.rows == found.rows
    assert "## exchange agreement" in found.to_markdown()


def test_a_good_folder_that_is_none_gives_one_line(model: Model, tmp_path: Path) -> None:
    options = Options(methods=("activation",), metrics=("decision",), good=tmp_path / "none")
    with pytest.raises(UsageError, match="--good must be a folder"):
        evaluate(model, [], [tmp_path], options)
