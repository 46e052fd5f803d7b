"""What cannot be exported is known before the first step, and one odd picture does not spoil a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from fsagn_onnx.conversion import convert
from fsagn_onnx.errors import FsagnError, ImageError, LayerError, UsageError
from fsagn_onnx.explanations.subject import open_explainer
from fsagn_onnx.generator import Trainer, TrainingOptions, train
from fsagn_onnx.generator.proof import UNTRAINED_SPREAD, order_gap, relative_gap
from fsagn_onnx.generator.rehearsal import rehearsed
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.contract import OWN_OUTPUTS
from fsagn_onnx.testing.graph_builder import GraphBuilder

FEW = TrainingOptions(pairs=16, images_per_step=4)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        picture = np.full((40, 44, 3), 200 - 20 * i, np.uint8)
        cv2.circle(picture, (12 + 5 * i, 20), 9, (30, 40 * i, 250), -1)
        cv2.imwrite(str(folder / f"p{i}.png"), picture)
    return folder


def explained(model: Path, pictures: Path, **reading: object) -> list[str]:
    """Train a few pairs and explain; the names of the explainer's outputs beyond its own."""
    out = model.with_suffix(".explainer.onnx")
    train(load_model(model, **reading), [pictures], out, options=FEW)  # type: ignore[arg-type]
    with Explainer(out) as explainer:
        assert len(list(explainer.stream([str(pictures)], "top:2"))) == 4
    return [item.name for item in onnx.load(out).graph.output if item.name not in OWN_OUTPUTS]


def custom(path: Path) -> Path:
    b = GraphBuilder()
    b.op("EfficientNMS_TRT", b.head(b.conv(b.conv("image", 3, 8), 8, 16), 16), domain="TRT", out="boxes")
    return b.save(path, ["boxes"], domain="TRT")


def test_an_output_of_a_foreign_operator_is_left_out_by_name(tmp_path: Path, pictures: Path) -> None:
    file = custom(tmp_path / "m.onnx")
    model = load_model(file)
    assert list(model.left_out) == ["boxes"]
    assert "TRT:EfficientNMS_TRT" in model.left_out["boxes"]
    assert [item.name for item in model.outputs] == ["logits"]
    document = inspect_file(file)
    assert document["trainable"] is True
    assert any("'boxes' is left out" in line for line in document["warnings"])
    assert explained(file, pictures) == ["logits"]


def crossed(path: Path, outputs: list[str]) -> Path:
    """A foreign operator between convs on the way to `map`; `logits` does not hang on it."""
    b = GraphBuilder()
    early = b.conv(b.conv("image", 3, 8), 8, 16)
    b.head(b.conv(early, 16, 16), 16)
    b.op("Sigmoid", b.conv(b.op("DCNv4", early, domain="mmdeploy"), 16, 4), out="map")
    return b.save(path, outputs, domain="mmdeploy")


def test_what_does_not_hang_on_a_foreign_operator_between_convs_is_explained(tmp_path: Path, pictures: Path) -> None:
    file = crossed(tmp_path / "m.onnx", ["logits", "map"])
    model = load_model(file)
    assert [item.name for item in model.outputs] == ["logits"]
    assert len(model.layers) == 3
    (line,) = [line for line in inspect_file(file)["warnings"] if "left out" in line]
    assert "'map' is left out: it needs the operator mmdeploy:DCNv4" in line
    assert "1 conv layer behind it" in line
    assert explained(file, pictures) == ["logits"]


def test_a_model_whose_only_prediction_hangs_on_it_is_refused_by_its_name(tmp_path: Path, pictures: Path) -> None:
    file = crossed(tmp_path / "m.onnx", ["map"])
    with pytest.raises(FsagnError, match="DCNv4") as caught:
        explained(file, pictures)
    assert "\n" not in str(caught.value)
    with pytest.raises(FsagnError, match="DCNv4"):
        open_explainer(file, method="activation", providers="cpu", threads=1)


def test_a_sequence_output_is_left_out_and_its_numbers_stay(tmp_path: Path) -> None:
    b = GraphBuilder()
    b.op("SequenceConstruct", b.head(b.conv("image", 3, 8), 8, out="scores"), out="listed")
    b.save(tmp_path / "m.onnx", ["listed"])
    proto = onnx.load(tmp_path / "m.onnx")
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 10])
    proto.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(tensor))
    onnx.save(proto, tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    assert model.left_out == {"listed": "is a sequence, not a tensor of numbers"}
    assert [item.name for item in model.outputs] == ["scores"]


def test_values_inside_may_have_the_names_of_the_explainer(tmp_path: Path, pictures: Path) -> None:
    b = GraphBuilder()
    inner = b.op("Identity", b.conv("image", 3, 8), out="filters")
    b.head(b.conv(b.op("Abs", inner, out="area_rank"), 8, 16), 16)
    assert explained(b.save(tmp_path / "m.onnx", ["logits"]), pictures) == ["logits"]


def test_an_output_with_such_a_name_is_refused_before_the_first_step(tmp_path: Path, pictures: Path) -> None:
    b = GraphBuilder()
    b.head(b.conv("image", 3, 8), 8, out="retention")
    file = b.save(tmp_path / "m.onnx", ["retention"])
    assert "'retention' has a name that an explainer file needs" in str(inspect_file(file)["trial"])
    with pytest.raises(Exception, match="rename it in the model"):
        train(file, [pictures], tmp_path / "e.onnx", options=FEW)
    assert not list(tmp_path.glob("*.log.jsonl"))


def test_a_constant_of_one_image_beside_many(tmp_path: Path, pictures: Path) -> None:
    b = GraphBuilder()
    left = b.conv("image", 3, 8)
    pooled = [b.op("Flatten", b.op("GlobalAveragePool", value)) for value in (left, "other")]
    b.op("Gemm", b.op("Concat", *pooled, axis=1), b.constant(np.ones((1, 11), np.float32)), transB=1, out="same")
    file = b.save(tmp_path / "m.onnx", ["same"], more=("other",))
    feeds = {"other": np.ones((3, 32, 32), np.float32)}
    assert rehearsed(load_model(file, feeds=feeds), load_model(file, feeds=feeds).default_layer) is None
    assert explained(file, pictures, feeds=feeds) == ["same"]


def test_an_input_too_small_to_have_areas(tmp_path: Path, pictures: Path) -> None:
    b = GraphBuilder()
    b.head(b.conv("image", 3, 8), 8)
    file = b.save(tmp_path / "m.onnx", ["logits"], size=5)
    document = inspect_file(file)
    assert document["trainable"] is False
    assert "explain" in document["next"]
    with pytest.raises(UsageError, match="5x5 px is too small"):
        train(file, [pictures], tmp_path / "e.onnx", options=FEW)


def test_sizes_baked_into_a_reshape_keep_training_at_the_models_own_size(tmp_path: Path, pictures: Path) -> None:
    b = GraphBuilder()
    first = b.conv("image", 3, 8)  # 8 x 128 x 128
    pairs = b.op("Reshape", first, b.constant(np.array([-1, 2, 128 * 128], np.int64)))
    swapped = b.op("Transpose", pairs, perm=[0, 2, 1])
    mixed = b.op("Reshape", swapped, b.constant(np.array([-1, 8, 128, 128], np.int64)))
    b.head(b.conv(b.conv(mixed, 8, 8), 8, 12), 12)
    file = b.save(tmp_path / "m.onnx", ["logits"], size=256)
    model = load_model(file)
    trainer = Trainer(model, model.default_layer, sorted(pictures.iterdir()), tmp_path / "c.safetensors", options=FEW)
    assert trainer.options.ramp == ()
    assert FEW.ramp != ()


def test_a_batch_held_in_a_reshape_is_kept(tmp_path: Path, pictures: Path) -> None:
    b = GraphBuilder()
    maps = b.conv(b.conv("image", 3, 8), 8, 16)
    whole = b.op("Cast", b.op("Add", b.constant(np.int32([1, 16, -1])), b.constant(np.int32([0, 0, 0]))), to=7)
    b.op("Reshape", maps, whole, out="flat")
    file = b.save(tmp_path / "m.onnx", ["flat"], batch=1)
    assert explained(file, pictures) == ["flat"]


def test_a_tap_is_never_a_whole_number(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    b = GraphBuilder()
    first = b.conv(b.conv("image", 3, 8), 8, 8)
    added = b.op("Add", first, b.op("Relu", first), out="sum")
    wide = b.op("Conv", added, b.constant(b.rng.normal(size=(24, 8, 1, 1)).astype(np.float32)))
    b.head(b.conv(b.op("Relu", wide), 24, 32), 32)
    b.save(tmp_path / "f.onnx", ["logits"], opset=13)
    quantize_dynamic(tmp_path / "f.onnx", tmp_path / "q.onnx", weight_type=QuantType.QUInt8)
    model = load_model(tmp_path / "q.onnx")
    assert rehearsed(model, model.default_layer) is None


def test_scales_taken_from_the_whole_batch_keep_the_batch_that_the_file_declares(tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    b = GraphBuilder()
    b.head(b.conv(b.conv("image", 3, 8), 8, 16), 16)
    b.save(tmp_path / "f.onnx", ["logits"], opset=13, batch=1)
    quantize_dynamic(tmp_path / "f.onnx", tmp_path / "q.onnx", weight_type=QuantType.QUInt8)
    model = load_model(tmp_path / "q.onnx")
    assert convert(model, [model.default_layer.value]).chunk == 1
    assert rehearsed(model, model.default_layer, converts=True) is None


def test_behind_a_bias_that_is_rounded_for_each_picture_comes_the_float_map(tmp_path: Path) -> None:
    """As onnxruntime's first dynamic quantisers wrote it."""
    b = GraphBuilder()
    whole, scale, zero = (f"q{part}" for part in ("", "_scale", "_zero"))
    b.nodes.append(helper.make_node("DynamicQuantizeLinear", [b.conv("image", 3, 8)], [whole, scale, zero]))
    weights = b.constant(b.rng.integers(-100, 100, (16, 8, 3, 3)).astype(np.int8))
    sums = b.op("ConvInteger", whole, weights, zero, pads=[1] * 4)
    both = b.op("Mul", scale, b.constant(np.float32(0.01)))
    steps = b.op("Floor", b.op("Div", b.constant(b.rng.normal(size=16).astype(np.float32)), both))
    bias = b.op("Reshape", b.op("Cast", steps, to=6), b.constant(np.array([1, 16, 1, 1], np.int64)))
    mapped = b.op("Mul", b.op("Cast", b.op("Add", sums, bias), to=1), both)
    active = b.op("Sigmoid", mapped)
    b.head(active, 16)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits"]))
    assert model.default_layer.value == active
    assert rehearsed(model, model.default_layer) is None


def standardising(path: Path) -> Path:
    """(x - mean) / deviation inside the graph: NaN for a blank picture."""
    b = GraphBuilder()
    apart = b.op("Sub", "image", b.op("ReduceMean", "image", axes=[1, 2, 3], keepdims=1))
    square = b.op("ReduceMean", b.op("Mul", apart, apart), axes=[1, 2, 3], keepdims=1)
    b.head(b.conv(b.conv(b.op("Div", apart, b.op("Sqrt", square)), 3, 8), 8, 16), 16)
    return b.save(path, ["logits"])


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({"scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1]}))
    return file


def test_a_picture_that_gives_nan_is_named_and_the_weights_stay_whole(
    tmp_path: Path, pictures: Path, spec: Path
) -> None:
    file = standardising(tmp_path / "m.onnx")
    cv2.imwrite(str(pictures / "black.png"), np.zeros((32, 32, 3), np.uint8))
    failed: list[str] = []
    note: Callable[[Path, str], None] = lambda path, message: failed.append(message)  # noqa: E731
    train(load_model(file, preprocess=spec), [pictures], tmp_path / "e.onnx", options=FEW, on_failure=note)
    assert len(failed) == len(set(failed))
    assert any("black.png" in line for line in failed)
    for line in (tmp_path / "e.checkpoint.log.jsonl").read_text().splitlines():
        assert np.isfinite(json.loads(line)["loss"])


def test_pictures_that_all_give_nan_stop_the_training(tmp_path: Path, spec: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((32, 32, 3), np.uint8))
    model = load_model(standardising(tmp_path / "m.onnx"), preprocess=spec)
    with pytest.raises(ImageError, match=r"black\.png"):
        train(model, [tmp_path / "black.png"], tmp_path / "e.onnx", options=FEW)


def test_a_layer_that_never_answers_is_named_before_training(tmp_path: Path, pictures: Path) -> None:
    b = GraphBuilder()
    low = b.op("Sub", b.conv("image", 3, 8), b.constant(np.float32(1e6)))
    weights = b.constant(np.abs(b.rng.normal(size=(16, 8, 3, 3))).astype(np.float32))
    b.head(b.op("Relu", b.op("Conv", low, weights, strides=[2, 2], pads=[1] * 4)), 16)
    file = b.save(tmp_path / "m.onnx", ["logits"])
    with pytest.raises(LayerError, match=r"no filter of layer 'v\d+' answers"):
        train(file, [pictures], tmp_path / "e.onnx", options=FEW)
    assert not list(tmp_path.glob("*.log.jsonl"))


@pytest.mark.parametrize(
    ("value", "other", "gap"),
    [
        ([1.0, 2.0], [1.0, 1.0], 0.5),
        ([np.inf, np.nan, 4.0], [np.inf, np.nan, 4.0], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([1.0, 1.0], [1.0, -np.inf], np.inf),
        ([np.inf, 2.0], [np.inf, 1.0], 0.5),
    ],
)
def test_outputs_that_are_not_finite_count_as_the_same_only_where_they_are(
    value: list[float], other: list[float], gap: float
) -> None:
    assert relative_gap(np.array(value, np.float32), np.array(other, np.float32)) == gap


def test_an_untrained_generator_of_flat_maps_has_no_order_to_compare() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 8, 8)))
    flat = 0.01 + 1e-6 * noise
    rank = flat.flatten().argsort().argsort().reshape(1, 1, 8, 8).numpy()  # the opposite order
    assert order_gap(rank, flat) > 1
    assert order_gap(rank, flat, UNTRAINED_SPREAD) < 0.02
    assert order_gap(rank, noise, UNTRAINED_SPREAD) > 1


def test_a_model_over_two_gib_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsagn_onnx.generator.export.MAX_FILE_BYTES", 100)
    b = GraphBuilder()
    b.head(b.conv(b.conv("image", 3, 8), 8, 16), 16)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits"]))
    assert "train with --own" in str(rehearsed(model, model.default_layer))
