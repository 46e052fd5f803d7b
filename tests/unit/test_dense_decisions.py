"""Decisions of detectors and segmentation networks: the value against a plain reading, the slope by differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.errors import GradientError, UsageError
from fsagn_onnx.gradient import DenseScores, add_decision
from fsagn_onnx.model import load_model
from fsagn_onnx.model.classifier import Classifier
from fsagn_onnx.model.inference_session import inference_session
from fsagn_onnx.model.score_value import ScoreValue
from fsagn_onnx.runtime import explain_decisions
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.testing.graph_builder import GraphBuilder

Array = np.ndarray[Any, Any]


def asked(source: DenseScores | Classifier, scores: Array, classes: Array) -> tuple[Array, Array, Array]:
    """Ids, decisions and slopes of a graph whose scores are its input."""
    shape = ["N", *scores.shape[1:]]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["given"], ["scores"])],
        "g",
        [helper.make_tensor_value_info("given", TensorProto.DOUBLE, shape),
         helper.make_tensor_value_info("classes", TensorProto.INT64, ["N", "J"])],
        [helper.make_tensor_value_info("scores", TensorProto.DOUBLE, shape)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    made = add_decision(proto, source, "classes", sizes={"given": scores.shape[1:]})
    rounded = next(node for node in proto.graph.node if node.output[0] == made.decision)
    assert rounded.op_type == "Cast"  # to float32, which every decision is given in
    names = (made.class_ids, rounded.input[0], made.cotangents["scores"])
    kinds = (TensorProto.INT64, TensorProto.DOUBLE, TensorProto.DOUBLE)
    del proto.graph.output[:]
    for name, kind in zip(names, kinds, strict=True):
        proto.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    ids, decision, slope = inference_session(proto, threads=1).run(None, {"given": scores, "classes": classes})
    return ids, decision, slope.reshape(*classes.shape, *scores.shape[1:])


def odds(share: Array) -> Array:
    return np.log(share) - np.log1p(-share)


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape) * 2


def shares(*shape: int) -> Array:
    return 1 / (1 + np.exp(-drawn(*shape)))


def soft(logits: Array, axis: int) -> Array:
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


CASES: dict[str, tuple[DenseScores, Array, Array]] = {}
"""name -> (source, scores, log-odds (N, P, C))"""


def case(name: str, source: DenseScores, scores: Array, expected: Array) -> None:
    CASES[name] = source, scores, expected


_maps = drawn(2, 4, 5, 6)
case("segmentation, softmax", DenseScores(ScoreValue("scores", 1, logits=True, exclusive=True), False), _maps,
     odds(soft(_maps, 1)).reshape(2, 4, 30).transpose(0, 2, 1))  # fmt: skip
case("segmentation, labels", DenseScores(ScoreValue("scores", 3, logits=True), False), _maps,
     _maps.reshape(2, 20, 6))  # fmt: skip
_mask = drawn(2, 1, 5, 6)
case("segmentation, one mask", DenseScores(ScoreValue("scores", 1, logits=True), False, mask=True), _mask,
     np.concatenate([-_mask, _mask], 1).reshape(2, 2, 30).transpose(0, 2, 1))  # fmt: skip
_rows = drawn(2, 7, 3)
case("boxes, sigmoids", DenseScores(ScoreValue("scores", 2, logits=True), True), _rows, _rows)
case("boxes, classes first", DenseScores(ScoreValue("scores", 1, logits=True), True), _rows, _rows.transpose(0, 2, 1))
case("boxes, softmax", DenseScores(ScoreValue("scores", 2, logits=True, exclusive=True), True), _rows,
     odds(soft(_rows, 2)))  # fmt: skip
_yolo = shares(2, 7, 9)
case("boxes, objectness", DenseScores(ScoreValue("scores", 2, 5, 4, objectness=4), True), _yolo,
     odds(_yolo[..., 5:] * _yolo[..., 4:5]))  # fmt: skip
case("boxes, probabilities behind boxes", DenseScores(ScoreValue("scores", 1, 4, 5), True), shares(2, 9, 7),
     odds(shares(2, 9, 7)[:, 4:]).transpose(0, 2, 1))  # fmt: skip


def plainly(source: DenseScores, likely: Array, number: int) -> float:
    """The decision about one class of one picture, (P, C), read in a loop."""
    own = likely[:, number]
    if source.boxes:
        return float(own.max())
    held = likely.argmax(1) == number if source.score.exclusive else own > 0
    return float(own[held].mean()) if held.any() else float(own.max())


@pytest.mark.parametrize("name", CASES)
def test_the_decision_is_that_of_a_plain_reading(name: str) -> None:
    source, scores, likely = CASES[name]
    classes = np.array([[-1, 1], [0, -1]])
    ids, decision, slope = asked(source, scores, classes)
    assert ids[0, 1] == 1
    assert ids[1, 0] == 0
    assert ids[0, 0] != 1
    expected = [[plainly(source, likely[n], c) for c in row] for n, row in enumerate(ids)]
    assert np.allclose(decision, expected, atol=1e-9)
    step = 1e-6
    for n, j in ((0, 0), (0, 1), (1, 0)):
        size = scores[n].size
        moves = step * np.eye(size).reshape(size, *scores.shape[1:])
        moved = np.concatenate([scores[n] + moves, scores[n] - moves])
        up, down = asked(source, moved, np.full((2 * size, 1), ids[n, j]))[1].reshape(2, size)
        true = (up - down) / (2 * step)
        assert np.allclose(slope[n, j].ravel(), true, atol=1e-6)


def test_the_class_left_open_is_that_of_the_best_box_or_of_most_places() -> None:
    source, scores, likely = CASES["boxes, sigmoids"]
    assert asked(source, scores, np.array([[-1], [-1]]))[0].ravel().tolist() == likely.max(1).argmax(1).tolist()
    source, scores, likely = CASES["segmentation, softmax"]
    most = [np.bincount(row.argmax(1), minlength=4).argmax() for row in likely]
    assert asked(source, scores, np.array([[-1], [-1]]))[0].ravel().tolist() == most
    named = DenseScores(ScoreValue("scores", 1, logits=True, exclusive=True, background=int(most[0])), False)
    assert asked(named, scores, np.array([[-1], [-1]]))[0][0, 0] != most[0]


def test_boxes_that_were_chosen_already_have_no_gradient() -> None:
    with pytest.raises(GradientError, match="chosen already"):
        asked(DenseScores(ScoreValue("scores", 2, chosen=True), True), drawn(1, 3, 2), np.array([[0]]))


@pytest.mark.parametrize("kind", ["sigmoid", "logit"])
def test_one_number_decides_between_two(kind: str) -> None:
    values = np.array([[0.2], [0.9]]) if kind == "sigmoid" else np.array([[-1.4], [2.2]])
    source = Classifier((), "scores", kind, 1, "said so")
    ids, decision, slope = asked(source, values, np.array([[-1, -1]] * 2))
    logit = odds(values[:, 0]) if kind == "sigmoid" else values[:, 0]
    assert ids.tolist() == [[0, 1], [1, 0]]
    assert np.allclose(decision, [[-logit[0], logit[0]], [logit[1], -logit[1]]])
    steep = 1 / (values * (1 - values)) if kind == "sigmoid" else np.ones((2, 1))
    assert np.allclose(slope[..., 0], steep * np.array([[-1, 1], [1, -1]]))


def segmenter(path: Path, classes: Sequence[int]) -> Path:
    graph = GraphBuilder()
    maps = graph.conv(graph.conv("image", 3, 8), 8, 8)
    weights = graph.rng.normal(size=(len(classes), 8, 1, 1)).astype(np.float32)
    scores = graph.op("Conv", maps, graph.constant(weights))
    scales = graph.constant(np.array([1, 1, 4, 4], np.float32))
    graph.op("Resize", scores, "", scales, out="segmentation", mode="linear")
    return graph.save(path, ["segmentation"])


def test_a_segmentation_network_is_explained(tmp_path: Path) -> None:
    model = load_model(segmenter(tmp_path / "model.onnx", range(3)))
    assert classes_of(model).class_map is not None
    with PlainEvidence(model, threads=1) as engine:
        batch = drawn(2, 3, 32, 32).astype(np.float32)
        found = engine.decide(batch, np.array([[-2, -3]] * 2), np.array([[-1, 2]] * 2)).decisions
    assert found is not None
    assert (found.class_ids[:, 1] == 2).all()
    assert np.isfinite(found.decision).all()
    assert np.ptp(found.evidence_rank[0, 0]) > 0.9
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (explained,) = explain_decisions(model, picture, "top:2", measure=True, threads=1)
    assert explained.segmentation is not None
    best = explained.evidence[0]
    assert best.index == explained.segmentation.segments[0].index
    assert best.score == pytest.approx(1 / (1 + np.exp(-best.decision)))
    assert best.removed is not None
    with pytest.raises(UsageError, match="no class 7: the model has 3 classes"):
        explain_decisions(model, picture, 7, threads=1)
