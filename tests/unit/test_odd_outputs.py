"""Outputs of every kind in explain and perturb, several images at a time: each image is told what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fsagn_onnx.errors import ModelError
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import load_model
from fsagn_onnx.perturbation.run import perturb
from fsagn_onnx.runtime import Explainer, Explanation, Session
from fsagn_onnx.runtime.classes import classes_in
from fsagn_onnx.runtime.fixed_batch import in_batches
from fsagn_onnx.testing.graph_builder import GraphBuilder


def pictures(count: int) -> list[NDArray[np.uint8]]:
    return [np.random.default_rng(n).integers(0, 256, (32, 32, 3), dtype=np.uint8) for n in range(count)]


def explained(path: Path, count: int = 3, **reading: Any) -> list[Explanation]:
    model = load_model(path, **reading)
    with Explainer(engine_for(model, method="activation")) as explainer:
        return explainer.explain(pictures(count), "top:2")


def declared(path: Path, name: str, shape: list[int | str] | None, kind: int = onnx.TensorProto.FLOAT) -> Path:
    """The file with the type of an output set."""
    proto = onnx.load(path)
    for item in proto.graph.output:
        if item.name == name:
            item.CopyFrom(onnx.helper.make_tensor_value_info(name, kind, shape))
    onnx.save(proto, path)
    return path


def graph() -> tuple[GraphBuilder, str]:
    b = GraphBuilder()
    return b, b.conv(b.conv("image", 3, 8), 8, 16)


def test_an_output_without_images_comes_once_however_many_images_there_are(tmp_path: Path) -> None:
    """A constant (1, 4) of a file for one image at a time, and one number per column of a time-major output."""
    b, maps = graph()
    b.op("Identity", b.constant(np.arange(4, dtype=np.float32)[None]), out="anchors")
    columns = b.op("ReduceMean", maps, axes=[2], keepdims=0)  # (1, 16, 8)
    b.op("Transpose", columns, perm=[2, 0, 1], out="steps")
    path = b.save(tmp_path / "m.onnx", ["anchors", "steps"], batch=1)
    model = load_model(path)
    engine = engine_for(model, method="activation")
    batch = np.stack([model.input_spec.preprocess(picture)[0] for picture in pictures(3)])
    found = engine.run(batch, np.full((3, 1), -1, dtype=np.int64)).outputs
    assert found["anchors"].shape == (1, 4)
    assert found["steps"].shape == (8, 3, 16)
    single = [engine.run(part[None], np.full((1, 1), -1, dtype=np.int64)).outputs["steps"] for part in batch]
    np.testing.assert_array_equal(found["steps"], np.concatenate(single, axis=1))


def test_groups_are_joined_along_the_axis_of_the_images() -> None:
    def run(feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        x = feeds["x"]
        return {"rows": x, "steps": x.T, "alone": np.ones((2, 3)), "scalar": np.float32(1)}  # type: ignore[dict-item]

    x = np.arange(15).reshape(5, 3)
    joined = in_batches(run, {"x": x}, 2, {"rows": 0, "steps": 1, "alone": None, "scalar": None})
    np.testing.assert_array_equal(joined["rows"], x)
    np.testing.assert_array_equal(joined["steps"], x.T)
    assert (joined["alone"].shape, joined["scalar"].shape) == ((2, 3), ())
    assert in_batches(run, {"x": x}, 2)["alone"].shape == (5, 3)


def siamese(path: Path) -> Path:
    """Two pictures side by side in one classifier: the second one is a constant, of one image."""
    b = GraphBuilder()
    weights = (b.rng.normal(size=(16, 3, 3, 3)) / 4).astype(np.float32)
    shared = b.constant(weights)
    own, other = (b.op("Relu", b.op("Conv", name, shared, strides=[2, 2], pads=[1] * 4)) for name in ("image", "other"))
    both = b.op("Concat", own, other, axis=1)
    b.op("Softmax", b.head(b.conv(both, 32, 8), 8, "logits"), axis=1, out="prob")
    return b.save(path, ["prob"], more=("other",))


def test_a_siamese_network_explains_and_is_disturbed_without_a_batch_of_one(tmp_path: Path) -> None:
    path, folder = siamese(tmp_path / "m.onnx"), tmp_path / "pictures"
    folder.mkdir()
    for n, picture in enumerate(pictures(3)):
        cv2.imwrite(str(folder / f"{n}.png"), picture)
    feeds = {"other": np.random.default_rng(9).random((1, 3, 32, 32)).astype(np.float32)}
    answers = [found.predictions for found in explained(path, feeds=feeds)]
    assert len({(answer[0].index, round(answer[0].score, 6)) for answer in answers}) == 3
    model = load_model(path, feeds=feeds)
    engine = engine_for(model, method="activation")
    found = perturb(model, engine, folder, tmp_path / "out", filters="top:1", disturbances="blur", ablate=True)
    assert found.images == 3
    assert found.ablation


def test_a_graph_that_fails_with_several_images_gets_one_at_a_time_and_real_errors_stay(tmp_path: Path) -> None:
    feeds = {"other": np.zeros((1, 3, 32, 32), np.float32)}
    session = Session(load_model(siamese(tmp_path / "m.onnx"), feeds=feeds).proto)
    batch = np.random.default_rng(0).random((4, 3, 32, 32)).astype(np.float32)
    whole = session.run(["prob"], {"image": batch})["prob"]
    single = [session.run(["prob"], {"image": part[None]})["prob"] for part in batch]
    np.testing.assert_array_equal(whole, np.concatenate(single))
    with pytest.raises(Exception, match="onnxruntime failed"):
        session.run(["prob"], {"image": batch[:, :1]})


SHAPES: dict[str, list[int | str] | None] = {
    "scalar": [], "mean": ["N"], "zero": ["N", 0], "embedding": ["N", 16], "landmarks": ["N", 10],
    "steps": ["T", "N", 16], "boxes": ["M", 4],
}  # fmt: skip


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("kind", SHAPES)
def test_what_is_no_class_is_shown_as_none(kind: str, batch: int | str, tmp_path: Path) -> None:
    b, maps = graph()
    flat = b.op("Flatten", b.op("GlobalAveragePool", maps))
    if kind == "scalar":
        b.op("ReduceMean", maps, keepdims=0, out=kind)
    elif kind == "mean":
        b.op("ReduceMean", maps, axes=[1, 2, 3], keepdims=0, out=kind)
    elif kind == "zero":
        zero, axis = b.constant(np.zeros(1, np.int64)), b.constant(np.ones(1, np.int64))
        b.op("Slice", flat, zero, zero, axis, out=kind)
    elif kind == "embedding":
        b.op("LpNormalization", flat, axis=1, out=kind)
    elif kind == "landmarks":
        weights = b.constant(b.rng.normal(size=(16, 10)).astype(np.float32))
        b.op("MatMul", flat, weights, out=kind)
    elif kind == "steps":
        b.op("Transpose", b.op("ReduceMean", maps, axes=[2], keepdims=0), perm=[2, 0, 1], out=kind)
    else:
        places = b.op("Transpose", b.op("NonZero", b.op("Greater", flat, b.constant(np.float32(0)))), perm=[1, 0])
        b.op("Concat", *[b.op("Cast", places, to=1)] * 2, axis=1, out=kind)
    path = b.save(tmp_path / "m.onnx", [kind], batch=batch)
    declared(path, kind, [batch if side == "N" else side for side in SHAPES[kind] or []])
    for found in explained(path):
        assert found.predictions == ()
        assert not found.heads
        assert found.detections is None
        assert found.segmentation is None
        assert len(found.filters) == 2


def captcha(path: Path, names: tuple[str, ...], batch: int | str = "N") -> Path:
    b, maps = graph()
    flat = b.op("Flatten", b.op("GlobalAveragePool", maps))
    for name in names:
        weights = b.constant((b.rng.normal(size=(16, 10)) * 30).astype(np.float32))
        b.op("Softmax", b.op("MatMul", flat, weights), axis=1, out=name)
    return b.save(path, list(names), batch=batch)


@pytest.mark.parametrize("batch", ["N", 1])
def test_each_of_several_heads_answers_by_its_own_name(batch: int | str, tmp_path: Path) -> None:
    path = captcha(tmp_path / "m.onnx", ("c0", "c1", "c2", "c3"), batch)
    proto = load_model(path).proto
    for found, picture in zip(explained(path), pictures(3), strict=True):
        assert found.predictions == ()
        assert list(found.heads) == ["c0", "c1", "c2", "c3"]
        values = load_model(path).input_spec.preprocess(picture)[0][None]
        computed = Session(proto).run(None, {"image": values})
        for name, answers in found.heads.items():
            assert answers[0].index == computed[name][0].argmax()
            assert answers[0].score == pytest.approx(computed[name][0].max(), abs=1e-5)
        members = found.to_dict()
        assert [name for name, _ in members["heads"].items()] == ["c0", "c1", "c2", "c3"]


def test_one_of_several_heads_is_disturbed_where_it_is_named(tmp_path: Path) -> None:
    model, folder = load_model(captcha(tmp_path / "m.onnx", ("c0", "c1"))), tmp_path / "pictures"
    folder.mkdir()
    winners: dict[str, set[str]] = {"c0": set(), "c1": set()}
    for n, picture in enumerate(pictures(3)):
        cv2.imwrite(str(folder / f"{n}.png"), picture[..., ::-1])
        computed = Session(model.proto).run(None, {"image": model.input_spec.preprocess(picture)[0][None]})
        for name, found in winners.items():
            found.add(f"class {computed[name][0].argmax()}")
    assert winners["c0"].isdisjoint(winners["c1"])
    engine, asked = engine_for(model, method="activation"), {"filters": "top:1", "disturbances": "blur", "ablate": True}
    with pytest.raises(ModelError, match="2 outputs could be the one: 'c0', 'c1'; choose with --output NAME"):
        perturb(model, engine, folder, tmp_path / "none", **asked)
    for name, classes in winners.items():
        result = perturb(model, engine, folder, tmp_path / name, output=name, **asked)
        assert set(result.ablation) == {"all", *classes}


@pytest.mark.parametrize(("image", "other"), [("image", "other"), ("other", "image")])
def test_either_picture_of_a_siamese_network_can_be_the_explained_one(image: str, other: str, tmp_path: Path) -> None:
    path, shown = siamese(tmp_path / "m.onnx"), pictures(3)
    spec = load_model(path, image=image, feeds={other: np.zeros((1, 3, 32, 32), np.float32)}).input_spec
    values = [spec.preprocess(picture)[0][None] for picture in shown]
    plain = Session(onnx.load(path))
    found = explained(path, 2, image=image, feeds={other: values[2]})
    for explanation, value in zip(found, values, strict=False):
        expected = plain.run(["prob"], {image: value, other: values[2]})["prob"][0]
        best = explanation.predictions[0]
        assert (best.index, best.score) == (expected.argmax(), pytest.approx(expected.max(), abs=1e-5))


def test_a_sequence_of_characters_in_one_output_is_left_alone(tmp_path: Path) -> None:
    """(N, steps, classes), a softmax over the classes of each step."""
    b, maps = graph()
    steps = b.op("Transpose", b.op("ReduceMean", maps, axes=[2], keepdims=0), perm=[0, 2, 1])
    b.op("Softmax", steps, axis=2, out="prob")
    for found in explained(b.save(tmp_path / "m.onnx", ["prob"])):
        assert (found.predictions, found.heads, found.detections) == ((), {}, None)


def test_a_scalar_beside_the_logits_of_an_explainer_that_knows_classes(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    proto = onnx.load(root / "models" / "demo_explainer.onnx")
    proto.graph.node.append(helper.make_node("ReduceMax", ["logits"], ["top_score"], keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("top_score", TensorProto.FLOAT, []))
    onnx.save(proto, tmp_path / "scalar.onnx")
    image = np.full((128, 128, 3), 127, np.uint8)
    with Explainer(tmp_path / "scalar.onnx", providers="cpu", threads=1) as explainer:
        explained = explainer.explain([image, image], classes="top:2", measure=True)
    assert all(len(found.evidence) == 2 for found in explained)
    assert explained[0].evidence[0].removed is not None


@pytest.mark.parametrize("end", ["Sigmoid", "Softmax", ""])
@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("levels", [1, 2])
def test_scores_of_places_are_no_classes_however_the_scales_are_joined(
    tmp_path: Path, end: str, clipped: bool, levels: int
) -> None:
    b = GraphBuilder()
    maps = [b.conv("image", 3, 8)]
    maps.append(b.conv(maps[0], 8, 8))
    rows = b.constant(np.array([0, -1], np.int64))
    parts = []
    for value in maps[:levels]:
        weights = b.constant(b.rng.normal(size=(2, 8, 1, 1)).astype(np.float32))
        parts.append(b.op("Reshape", b.op("Transpose", b.op("Conv", value, weights), perm=[0, 2, 3, 1]), rows))
    value = b.op("Concat", *parts, axis=1) if levels > 1 else parts[0]
    if clipped:
        value = b.op("Clip", value, b.constant(np.float32(-100)), b.constant(np.float32(100)))
    b.op(end or "Identity", value, out="scores")
    model = load_model(b.save(tmp_path / "m.onnx", ["scores"]))
    assert classes_in(model.proto, model.input_spec, None).classifier.output is None


def test_classes_joined_of_two_dense_layers_stay_classes(tmp_path: Path) -> None:
    b = GraphBuilder()
    last = b.conv(b.conv("image", 3, 8), 8, 8)
    parts = [b.head(last, 8, name) for name in ("coarse", "fine")]
    b.op("Sigmoid", b.op("Concat", *parts, axis=1), out="scores")
    model = load_model(b.save(tmp_path / "m.onnx", ["scores"]))
    found = classes_in(model.proto, model.input_spec, None).classifier
    assert (found.output, found.scores, found.width) == ("scores", "labels", 20)
