"""A plain model explained by its own gradients: evidence, filters, and the depth that is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from fsagn_onnx.errors import GradientError, LayerError, UsageError
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime import explain_decisions
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.runtime.decision_source import chosen_filters, evidence_depths
from fsagn_onnx.runtime.depth_choice import DECISION_AREAS, choose_depth
from fsagn_onnx.runtime.evidence import PlainEvidence, summed_evidence
from fsagn_onnx.testing.bright_detector import bright_detector, bright_picture
from fsagn_onnx.testing.graph_builder import GraphBuilder
from fsagn_onnx.testing.synthetic import render

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(ROOT / "models" / "demo_cnn.onnx")


@pytest.fixture
def engine(model: Model) -> Iterator[PlainEvidence]:
    with PlainEvidence(model, threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def pictures(model: Model) -> list[np.ndarray]:
    return [model.input_spec.fit(render(seed).image)[0] for seed in range(5)]


def test_candidates_are_the_deepest_layers_of_each_size(model: Model) -> None:
    assert evidence_depths(model, classes_of(model)) == ("block0", "block2", "block4", "block6")


def test_the_pass_is_what_the_model_decides(engine: PlainEvidence, model: Model, pictures: list[np.ndarray]) -> None:
    batch = model.input_spec.normalise(np.stack(pictures[:2]))
    got = engine.decide(batch, np.array([[-2, 3, -3, -1]] * 2), np.array([[-1, -1, 5]] * 2))
    assert got.decisions is not None
    expected = engine.classes.decisions(got.outputs)
    assert expected is not None
    ids, decisions = got.decisions.class_ids, got.decisions
    assert np.allclose(decisions.decision, np.take_along_axis(expected, ids, 1), atol=1e-3)
    order = np.argsort(-expected, axis=1)
    for row in range(2):
        assert list(ids[row]) == [*[c for c in order[row] if c != 5][:2], 5]
    support = decisions.support[:, 0]
    assert (decisions.contributions[:, 0, 0] <= support[:, 0]).all()
    assert (decisions.contributions[:, 0, 2] >= support[:, 1]).all()
    assert (decisions.contributions[:, 0, 2] < 0).all()
    assert (got.filter_ids[:, 1] == 3).all()
    assert decisions.evidence_rank.shape == (2, 3, 16, 16)
    assert np.allclose(np.sort(decisions.evidence_rank[0, 0].ravel()), np.arange(1, 257) / 256)


def test_the_depth_is_measured_and_said(engine: PlainEvidence, pictures: list[np.ndarray]) -> None:
    choice = choose_depth(engine, pictures)
    assert engine.depths == choice.depths == choice.figures[0].depths
    assert {len(figure.depths) for figure in choice.figures} == {1, 3}
    assert sorted(figure.pictures for figure in choice.figures) == [4, 4, 5, 5, 5]
    assert max(figure.gap for figure in choice.figures if figure.pictures == 5) == choice.figures[0].gap
    assert "the best of 5" in str(choice)
    assert all(0 <= figure.removed <= 1 and 0 <= figure.kept <= 1 for figure in choice.figures)
    depths, _ = engine.maps(engine.metadata.input.normalise(np.stack(pictures[:1])), np.array([-1]))
    assert tuple(depths) == choice.depths
    assert len(DECISION_AREAS) == 6


def test_contributions_can_be_against_the_mean(model: Model, pictures: list[np.ndarray]) -> None:
    batch = model.input_spec.normalise(np.stack(pictures))
    for layer in ("block6", "block3"):  # a linear tail, whose gradient is one number per filter, and a layer inside
        with PlainEvidence(model, layer, ["block6"], threads=1) as engine:
            _, before = engine.maps(batch, np.full(len(batch), 3))
            engine.against_means(batch[n : n + 1] for n in range(len(batch)))
            _, after = engine.maps(batch, np.full(len(batch), 3))
            with pytest.raises(UsageError, match="no picture"):
                engine.against_means([])
        maps, phi = before[layer].astype(np.float64), after["phi"][:, 0]
        support = np.stack([np.maximum(phi, 0).sum(axis=1), np.minimum(phi, 0).sum(axis=1)], axis=1)
        assert np.allclose(after["support"][:, 0], support, rtol=1e-4, atol=1e-4)
        if layer == "block6":
            sums, means = maps.sum(axis=(2, 3)), maps.mean(axis=(0, 2, 3)) * maps[0, 0].size
            seen = sums > 1
            expected = before["phi"][:, 0] * (1 - means / np.maximum(sums, 1e-9))
            assert seen.sum() > 20
            assert np.allclose(phi[seen], expected[seen], rtol=1e-3, atol=1e-3)
        else:
            assert not np.allclose(phi, before["phi"][:, 0], rtol=0.05)


def test_one_candidate_is_not_measured(model: Model, pictures: list[np.ndarray]) -> None:
    with PlainEvidence(model, depths=["block6"], threads=1) as engine:
        choice = choose_depth(engine, pictures)
        assert (choice.depths, choice.figures) == (("block6",), ())
        assert str(choice) == "evidence from 'block6'"
        with pytest.raises(UsageError, match="at least one depth"):
            engine.focus([])


def test_slots_are_filled_with_filters_that_are_not_asked_for() -> None:
    peaks, phi = np.array([[1.0, 5, 3, 2]]), np.array([[4.0, -1, 2, 9]])
    asked = np.array([[-2, 3, -3, -1, -2]])
    assert chosen_filters(peaks, phi, asked).tolist() == [[0, 3, 1, 2, -1]]


def test_maps_of_several_depths_count_alike() -> None:
    coarse, fine = np.zeros((1, 2, 2)), np.zeros((1, 8, 8))
    coarse[0, 0, 0], fine[0, 7, 7] = 1000, 1e-3
    together = summed_evidence([coarse, fine], (8, 8))[0]
    assert together[:4, :4].max() == pytest.approx(1, abs=0.05)
    assert together[6:, 6:].max() == pytest.approx(1, abs=0.05)
    assert not summed_evidence([np.zeros((1, 2, 2))], (4, 4)).any()


def test_what_cannot_be_explained_is_said(tmp_path: Path, model: Model) -> None:
    graph = GraphBuilder()
    boxes = graph.op("Sigmoid", graph.conv("image", 3, 8), out="embedding")
    plain = load_model(graph.save(tmp_path / "model.onnx", [boxes]))
    with pytest.raises(GradientError, match="does not classify: no output holds a row of numbers"):
        PlainEvidence(plain)
    with pytest.raises(LayerError, match="no value 'nothing'"):
        PlainEvidence(model, "nothing")
    odd = GraphBuilder()
    maps = odd.op("Reshape", odd.op("Flatten", odd.conv("image", 3, 4)), odd.constant(np.array([-1, 4, 16, 16])))
    scores = odd.op("Softmax", odd.op("Mul", odd.op("Det", maps), odd.constant(np.ones(4, np.float32))), out="p")
    with pytest.raises(GradientError, match=r"no rule for Det"):
        PlainEvidence(load_model(odd.save(tmp_path / "odd.onnx", [scores])))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16])
@pytest.mark.parametrize("ending", [None, "Softmax", "LogSoftmax"])
def test_scores_of_another_precision_are_decided_like_float32(tmp_path: Path, kind: int, ending: str | None) -> None:
    """The contributions, the evidence and the decision of a model do not hang on the type that its scores leave in."""
    found = []
    for wanted in (TensorProto.FLOAT, kind):
        graph = GraphBuilder()
        scores = graph.head(graph.conv(graph.conv("image", 3, 8), 8, 16), 16)
        scores = scores if ending is None else graph.op(ending, scores, axis=1)
        graph.op("Cast", scores, to=wanted, out="scores")
        path = graph.save(tmp_path / f"{wanted}.onnx", ["scores"])
        proto = onnx.load(path)
        proto.graph.output[0].type.tensor_type.elem_type = wanted
        onnx.save(proto, path)
        picture = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
        with PlainEvidence(load_model(path), threads=1) as engine:
            found.append(engine.decide(picture, np.array([[-2, -3]] * 2), np.array([[-1, 4]] * 2)).decisions)
    plain, other = found
    assert plain is not None
    assert other is not None
    for name in ("class_ids", "decision", "contributions", "support", "evidence_rank"):
        assert np.allclose(getattr(other, name), getattr(plain, name), atol=1e-4), name


@pytest.mark.parametrize("layout", ["yolov8", "yolov5", "yolox", "torchvision", "boxes-scores", "rtdetr"])
def test_a_detector_says_what_its_best_box_rests_on(layout: str, tmp_path: Path) -> None:
    onnx.save(bright_detector(layout), tmp_path / "detector.onnx")
    found = bright_picture([(2, 3, 0), (5, 5, 1)])
    pictures, depths = [found, bright_picture([])], ["features"]
    best, nothing = explain_decisions(tmp_path / "detector.onnx", pictures, depths=depths, measure=True, threads=1)
    assert (nothing.detections, nothing.evidence) == ((), ())
    (one,) = best.evidence
    assert best.detections is not None
    box = next(box for box in best.detections if box.index == one.index)
    assert (one.label, one.score) == (box.label, pytest.approx(box.score, abs=0.02))
    row, column = divmod(int(one.area_rank.argmin()), one.area_rank.shape[1])
    step = 64 // one.area_rank.shape[0]
    x0, y0, x1, y1 = box.box
    assert x0 - step <= step * column <= x1
    assert y0 - step <= step * row <= y1
    assert one.removed is not None
    assert one.kept is not None
    assert one.removed.asked < 0.1 < 0.9 < one.kept.asked
    (other,) = explain_decisions(tmp_path / "detector.onnx", found, "blue thing", depths=depths, threads=1)[0].evidence
    assert (other.label, round(other.score, 2)) == ("blue thing", 0)
    with pytest.raises(UsageError, match="no class 'elephant': the model has 3 classes"):
        explain_decisions(tmp_path / "detector.onnx", found, "elephant", depths=depths, threads=1)
