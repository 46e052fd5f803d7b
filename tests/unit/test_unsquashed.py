"""Decisions in front of sigmoids and softmaxes: the same as of probabilities, and not flat where these are 0 or 1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.gradient import DenseScores
from fsagn_onnx.gradient.backward import add_gradients
from fsagn_onnx.gradient.unsquashed import before_squashing
from fsagn_onnx.model import load_model
from fsagn_onnx.model.classifier import Classifier
from fsagn_onnx.model.inference_session import inference_session
from fsagn_onnx.model.score_value import ScoreValue
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.runtime.keeping import FLAT_MAP, keeping, sized
from fsagn_onnx.runtime.sentence import sentence
from fsagn_onnx.testing.graph_builder import GraphBuilder

Array = np.ndarray[Any, Any]
Build = Callable[[GraphBuilder, str], str]
LOGITS = np.random.default_rng(0).normal(size=(2, 6, 4)) * 2


def levels(graph: GraphBuilder, z: str) -> str:
    """Two levels, squashed apart and joined."""
    parts = [graph.op("Slice", z, *(graph.constant(np.array([n])) for n in ends)) for ends in ((0, 2, 1), (2, 6, 1))]
    return graph.op("Concat", *(graph.op("Sigmoid", part) for part in parts), axis=1)


def moved(graph: GraphBuilder, z: str) -> str:
    """Turned, put into another shape and back, bounded."""
    share = graph.op("Transpose", graph.op("Sigmoid", z), perm=[0, 2, 1])
    share = graph.op("Reshape", share, graph.constant(np.array([-1, 4, 2, 3])))
    share = graph.op("Clip", share, graph.constant(np.array(1e-9)), graph.constant(np.array(1 - 1e-9)))
    share = graph.op("Reshape", share, graph.constant(np.array([-1, 4, 6])))
    return graph.op("Transpose", share, perm=[0, 2, 1])


def other_way(graph: GraphBuilder, z: str) -> str:
    """1 - sigmoid(-z)."""
    return graph.op("Sub", graph.constant(np.array(1.0)), graph.op("Sigmoid", graph.op("Neg", z)))


def cut(graph: GraphBuilder, z: str) -> str:
    """Beside other numbers, of which it is cut again; one place of an axis more is taken."""
    beside = graph.op("Concat", z, graph.op("Sigmoid", z), axis=2)
    part = graph.op("Slice", beside, *(graph.constant(np.array([n])) for n in (-4, 2**40, -1)))
    spread = graph.op("Unsqueeze", part, graph.constant(np.array([1])))
    return graph.op("Gather", spread, graph.constant(np.array(0)), axis=1)


BUILDS: dict[str, Build] = {
    "levels": levels, "moved": moved, "one minus": other_way, "cut": cut,
    "sigmoid": lambda graph, z: graph.op("Sigmoid", z),
}  # fmt: skip


def written(build: Build, source: DenseScores, width: int = 4) -> tuple[onnx.ModelProto, DenseScores]:
    """A graph that makes probabilities of its input, and where its decisions are read."""
    graph = GraphBuilder()
    graph.op("Identity", build(graph, "z"), out="p")
    kind = TensorProto.DOUBLE
    z = helper.make_tensor_value_info("z", kind, ["N", 6, width])
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "g", [z], [helper.make_tensor_value_info("p", kind, None)], graph.weights),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=9,
    )  # fmt: skip
    found = before_squashing(proto, source)
    assert isinstance(found, DenseScores)
    return proto, found


def run(proto: onnx.ModelProto, z: Array, *names: str) -> list[Array]:
    del proto.graph.output[:]
    for name in names:
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, None))
    return list(inference_session(proto, threads=1).run(list(names), {"z": z}))


def odds(share: Array) -> Array:
    return np.log(share) - np.log1p(-share)


@pytest.mark.parametrize("name", BUILDS)
def test_what_is_read_is_the_log_odds_of_the_probabilities(name: str) -> None:
    source = DenseScores(ScoreValue("p", 2, 1, 2), boxes=True)
    proto, found = written(BUILDS[name], source)
    assert (found.score.logits, found.score.first, found.score.count) == (True, 0, 2)
    share, read = run(proto, LOGITS, "p", found.score.value)
    assert np.allclose(read, odds(share[..., 1:3]), atol=1e-7)
    wide = run(proto, 30 * LOGITS, found.score.value)[0]
    assert np.allclose(wide, 30 * LOGITS[..., 1:3])  # where its probabilities are 0 and 1


def test_objectness_times_class_is_read_before_both() -> None:
    source = DenseScores(ScoreValue("p", 2, 2, 3, objectness=1), boxes=True)
    proto, found = written(levels, source, width=5)
    assert found.score.objectness is None
    z = np.random.default_rng(1).normal(size=(2, 6, 5)) * 2
    share, read = run(proto, z, "p", found.score.value)
    assert np.allclose(read, odds(share[..., 2:] * share[..., 1:2]), atol=1e-9)
    far = run(proto, np.abs(z) * 40 + 40, found.score.value)[0]
    assert np.isfinite(far).all()
    made = add_gradients(proto, {found.score.value: found.score.value}, ["z"])["z"]
    (slopes,) = run(proto, np.abs(z) * 40 + 40, made)
    assert (np.abs(slopes[..., 1:]).sum(axis=2) > 0).all()


def test_classes_that_exclude_each_other_stay_so() -> None:
    source = DenseScores(ScoreValue("p", 2, 0, 4, background=0), boxes=True)
    proto, found = written(lambda graph, z: moved_soft(graph, z), source)
    assert (found.score.exclusive, found.score.background, found.score.value) == (True, 0, found.score.value)
    share, read = run(proto, LOGITS, "p", found.score.value)
    powers = np.exp(read)
    assert np.allclose(powers / powers.sum(axis=2, keepdims=True), share)
    part = DenseScores(ScoreValue("p", 2, 1, 3), boxes=True)  # a part of a softmax is no sigmoid
    assert written(lambda graph, z: moved_soft(graph, z), part)[1] is part


def moved_soft(graph: GraphBuilder, z: str) -> str:
    return graph.op("Squeeze", graph.op("Unsqueeze", graph.op("Softmax", z, axis=2), one(graph)), one(graph))


def one(graph: GraphBuilder) -> str:
    return graph.constant(np.array([1]))


def squared(graph: GraphBuilder, z: str) -> str:
    return graph.op("Pow", graph.op("Sigmoid", z), graph.constant(np.array(2, np.float32)))


def test_what_is_not_known_stays_as_it_is() -> None:
    source = DenseScores(ScoreValue("p", 2, 1, 2), boxes=True)
    proto, found = written(squared, source)
    assert found is source
    assert [node.op_type for node in proto.graph.node] == ["Sigmoid", "Pow", "Identity"]


def classifier(path: Path, build: Build, steep: float) -> Path:
    graph = GraphBuilder()
    maps = graph.conv(graph.conv("image", 3, 8), 8, 8)
    z = graph.op("Mul", graph.head(maps, 8, out="z"), graph.constant(np.array(steep, np.float32)))
    graph.op("Identity", build(graph, z), out="p")
    return graph.save(path, ["p"])


def joined(graph: GraphBuilder, z: str) -> str:
    """A head per label, joined."""
    ends = ((0, 3, 1), (3, 10, 1))
    parts = [graph.op("Slice", z, *(graph.constant(np.array([n])) for n in end)) for end in ends]
    return graph.op("Concat", *(graph.op("Sigmoid", part) for part in parts), axis=1)


def bounded(graph: GraphBuilder, z: str) -> str:
    share = graph.op("Softmax", z, axis=1)
    return graph.op("Clip", share, *(graph.constant(np.array(end, np.float32)) for end in (0, 1)))


@pytest.mark.parametrize(("build", "scores"), [(joined, "labels"), (bounded, "probabilities")])
def test_a_sure_classifier_says_where_it_looks(build: Build, scores: str, tmp_path: Path) -> None:
    """Its probabilities are rounded to 0 and 1; the evidence is that of the same model with logits."""
    picture = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    found = []
    plain = (lambda graph, z: graph.op("Sigmoid", z)) if scores == "labels" else (lambda graph, z: z)
    for name, made, kind in (("given", build, scores), ("plain", plain, scores if scores == "labels" else "logits")):
        model = load_model(classifier(tmp_path / f"{name}.onnx", made, 1000))
        with PlainEvidence(model, classes=classes_of(model, "p", kind), threads=1) as engine:
            found.append(engine.decide(picture, np.array([[-2]]), np.array([[-1]])).decisions)
    given, expected = found
    assert given is not None
    assert expected is not None
    assert given.support.any()
    for field in ("class_ids", "decision", "contributions", "support", "evidence_rank"):
        assert np.allclose(getattr(given, field), getattr(expected, field), rtol=1e-5), field


@pytest.mark.parametrize("measure", [False, True])
def test_where_the_logit_is_not_found_the_map_is_said_to_be_flat(measure: bool, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    model = load_model(classifier(tmp_path / "model.onnx", squared, 1000))
    engine = PlainEvidence(model, classes=classes_of(model, "p", "labels"), threads=1)
    with Explainer(engine, threads=1, output="p", scores="labels") as explainer:
        (found,) = explainer.explain(picture, filters="top:2", classes="top:1", area=0.2, measure=measure)
    (evidence,) = found.evidence
    assert evidence.score == 1
    assert (evidence.flat, evidence.area, evidence.box, evidence.removed) == (True, 0, None, None)
    assert FLAT_MAP == sized(evidence) == keeping(evidence) == "saturated: the map is flat"
    assert sentence(found) is None
    assert FLAT_MAP in found._repr_html_()


@pytest.mark.parametrize("kind", ["logits", "none"])
def test_logits_are_left_alone(kind: str) -> None:
    source = Classifier((), "p" if kind == "logits" else None, kind, 4, "said so")
    assert before_squashing(onnx.ModelProto(), source) is source
