"""Files that say "any number of images" and do not mean it, and constants of one image beside many."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.cli.main import run
from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.testing.graph_builder import GraphBuilder

FEW = TrainingOptions(pairs=8, images_per_step=2)
Write = Callable[[GraphBuilder], object]


def ints(b: GraphBuilder, *numbers: int) -> str:
    return b.constant(np.array(numbers, np.int64))


def weights(b: GraphBuilder, *shape: int) -> str:
    return b.constant(b.rng.normal(size=shape).astype(np.float32))


def body(b: GraphBuilder, value: str = "image", channels: int = 3) -> str:
    return b.conv(b.conv(value, channels, 8), 8, 16)


def baked(b: GraphBuilder) -> None:
    """The batch of the export, 1, in a Reshape."""
    flat = b.op("Reshape", b.op("GlobalAveragePool", body(b)), ints(b, 1, 16))
    b.op("Gemm", flat, weights(b, 16, 10), out="logits")


def frames(b: GraphBuilder) -> None:
    """The mean over eight frames, behind the layer."""
    clip = b.op("Reshape", b.op("GlobalAveragePool", body(b)), ints(b, -1, 8, 16))
    b.op("Gemm", b.op("ReduceMean", clip, axes=[1], keepdims=0), weights(b, 16, 10), out="logits")


def shifted_frames(b: GraphBuilder) -> None:
    """Frames moved by one before the layer."""
    clip = b.op("Reshape", b.conv("image", 3, 8), ints(b, -1, 8, 8, 16, 16))
    later = b.op("Slice", clip, ints(b, 1), ints(b, 8), ints(b, 1))
    first = b.op("Slice", clip, ints(b, 0), ints(b, 1), ints(b, 1))
    b.head(b.conv(b.op("Reshape", b.op("Concat", later, first, axis=1), ints(b, -1, 8, 16, 16)), 8, 16), 16)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        picture = np.full((40, 44, 3), 200 - 20 * number, np.uint8)
        cv2.circle(picture, (12 + 5 * number, 20), 9, (30, 40 * number, 250), -1)
        cv2.imwrite(str(folder / f"p{number}.png"), picture)
    return folder


def made(path: Path, write: Write, **saved: object) -> Path:
    b = GraphBuilder()
    write(b)
    return b.save(path, ["logits"], **saved)  # type: ignore[arg-type]


def resized(b: GraphBuilder) -> None:
    """One image among the sizes of a Resize: it would make one image of two, without an error."""
    large = b.op("Resize", b.conv("image", 3, 8), "", "", ints(b, 1, 8, 24, 24), mode="nearest")
    b.head(b.conv(large, 8, 16), 16)


@pytest.mark.parametrize(("write", "group"), [(baked, 1), (frames, 8), (shifted_frames, 8), (resized, 1)])
def test_images_go_in_the_groups_that_the_graph_takes(tmp_path: Path, pictures: Path, write: Write, group: int) -> None:
    file = made(tmp_path / "m.onnx", write)
    model = load_model(file)
    assert model.group == group
    document = inspect_file(file)
    assert document["trainable"] is True, document["trial"]
    assert sum("at a time" in line for line in document["warnings"]) == 1
    assert run(["explain", str(file), str(pictures), "--method", "activation", "--out", str(tmp_path / "plain")]) == 0
    train(model, [pictures], tmp_path / "explainer.onnx", options=FEW)
    with Explainer(tmp_path / "explainer.onnx") as explainer:
        assert len(list(explainer.stream([str(pictures)], "top:2"))) == 3


def written_out(b: GraphBuilder) -> None:
    """A batch norm in training mode, node by node."""
    value = b.conv("image", 3, 8)
    centred = b.op("Sub", value, b.op("ReduceMean", value, axes=[0, 2, 3]))
    scale = b.op("Sqrt", b.op("ReduceMean", b.op("Mul", centred, centred), axes=[-4, -2, -1]))
    b.head(b.conv(b.op("Div", centred, scale), 8, 16), 16)


def normalised(b: GraphBuilder) -> None:
    """Over the batch too, unless told."""
    b.head(b.conv(b.op("MeanVarianceNormalization", b.conv("image", 3, 8)), 8, 16), 16)


@pytest.mark.parametrize("write", [written_out, normalised])
def test_images_that_change_one_another_go_one_by_one(tmp_path: Path, pictures: Path, write: Write) -> None:
    file = made(tmp_path / "m.onnx", write)
    model = load_model(file)
    assert model.group == 1
    assert model.default_layer is model.layers[-1]
    assert sum("hangs on the rest of the batch" in line for line in inspect_file(file)["warnings"]) == 1
    found = []
    for given in ([pictures], sorted(pictures.iterdir())):
        answers = []
        for number, part in enumerate(given):
            out = tmp_path / f"{len(given)}-{number}"
            assert run(["explain", str(file), str(part), "--method", "activation", "--out", str(out)]) == 0
            lines = (out / "explanations.jsonl").read_text().splitlines()
            answers += [json.loads(line)["predictions"] for line in lines]
        found.append(answers)
    assert len(found[0]) == 3
    assert found[0] == found[1]


def test_one_number_of_a_whole_batch_changes_no_answer(tmp_path: Path) -> None:
    def mean(b: GraphBuilder) -> None:
        b.op("ReduceMean", b.head(body(b), 16), keepdims=0, out="mean")

    b = GraphBuilder()
    mean(b)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits", "mean"]))
    assert (model.group, model.mixing) == (None, None)


def test_a_batch_that_is_free_stays_free(tmp_path: Path) -> None:
    def flattened(b: GraphBuilder) -> None:
        flat = b.op("Reshape", body(b), ints(b, -1, 16 * 8 * 8))
        b.op("Gemm", flat, weights(b, 16 * 8 * 8, 10), out="logits")

    model = load_model(made(tmp_path / "m.onnx", flattened))
    assert model.group is None
    assert model.inputs[0].shape == ("N", 3, 32, 32)


def test_a_declared_batch_is_not_doubted(tmp_path: Path) -> None:
    assert load_model(made(tmp_path / "m.onnx", baked, batch=1)).group is None


def joined_vector(b: GraphBuilder) -> None:
    flat = b.op("Flatten", b.op("GlobalAveragePool", body(b)))
    b.op("Gemm", b.op("Concat", flat, "more", axis=1), weights(b, 21, 10), out="logits")


def joined_map(b: GraphBuilder) -> None:
    b.head(body(b, b.op("Concat", "more", "image", axis=1), 5), 16)


def sampled(b: GraphBuilder) -> None:
    b.head(b.op("GridSample", body(b), "more"), 16)


FEEDS = {
    "vector": (joined_vector, ["N", 5], (1, 5)),
    "map": (joined_map, ["N", 2, 32, 32], (1, 2, 32, 32)),
    "grid": (sampled, ["N", 4, 4, 2], (1, 4, 4, 2)),
}


@pytest.mark.parametrize("kind", FEEDS)
def test_a_constant_of_one_image_is_joined_to_many(tmp_path: Path, pictures: Path, kind: str) -> None:
    write, declared, shape = FEEDS[kind]
    file = made(tmp_path / "m.onnx", write)
    proto = onnx.load(file)
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, declared))
    onnx.save(proto, file)
    value = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    model = load_model(file, feeds={"more": value})
    assert model.group is None
    images = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
    ours = onnxruntime.InferenceSession(model.proto.SerializeToString()).run(None, {"image": images})[0]
    theirs = onnxruntime.InferenceSession(str(file)).run(None, {"image": images, "more": value.repeat(3, axis=0)})[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    train(model, [pictures], tmp_path / "explainer.onnx", options=FEW)


@pytest.mark.parametrize("free", [-1, 0])
def test_sizes_that_are_no_sizes_are_free(tmp_path: Path, free: int) -> None:
    file = made(tmp_path / "m.onnx", lambda b: b.head(body(b), 16))
    proto = onnx.load(file)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, [free, 3, free, free]))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, [free, 10]))
    onnx.save(proto, file)
    model = load_model(file)
    assert model.inputs[0].shape == (None, 3, None, None)
    assert model.input_spec.size == (224, 224)
    assert inspect_file(file)["trainable"] is True


def squeezed(b: GraphBuilder) -> None:
    """Of one image (10,), of more (N, 10)."""
    b.op("Squeeze", b.op("Conv", b.op("GlobalAveragePool", body(b)), weights(b, 10, 16, 1, 1)), out="logits")


@pytest.mark.parametrize(
    ("write", "shape"),
    [
        (squeezed, None),
        (squeezed, ["N", 10]),
        (lambda b: b.head(body(b), 16), None),
        (lambda b: b.head(body(b), 16), ["N", 10, 1, 1]),
        (lambda b: b.head(body(b), 16), [1, 10]),
    ],
)
def test_outputs_declared_wrongly_or_not_at_all(
    tmp_path: Path, pictures: Path, write: Write, shape: list[object] | None
) -> None:
    file = made(tmp_path / "m.onnx", write)
    proto = onnx.load(file)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
    onnx.save(proto, file)
    out = tmp_path / "explainer.onnx"
    train(load_model(file), [pictures], out, options=FEW)
    with Explainer(out) as explainer:
        together = [found.predictions for found in explainer.stream([str(pictures)], "top:2")]
        alone = next(iter(explainer.stream([str(pictures / "p0.png")], "top:2"))).predictions
    assert len(together) == 3
    assert together[0][0].score == pytest.approx(alone[0].score, abs=1e-5)
    assert together[0][0].index == alone[0].index
