"""What onnxruntime runs is taken: other spellings, no batch axis, old operators; and the layer a user would choose."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.cli.main import run
from fsagn_onnx.conversion import check_parity, convert
from fsagn_onnx.errors import LayerError
from fsagn_onnx.generator.variants import at_opset
from fsagn_onnx.model import load_model
from fsagn_onnx.model.description import read_preprocess
from fsagn_onnx.model.spelling import respell
from fsagn_onnx.testing.graph_builder import GraphBuilder


def plain(path: Path, **saved: object) -> Path:
    b = GraphBuilder()
    b.head(b.conv(b.conv("image", 3, 8), 8, 16), 16)
    return b.save(path, ["logits"], **saved)  # type: ignore[arg-type]


def test_the_standard_domain_may_be_written_out(tmp_path: Path) -> None:
    file = plain(tmp_path / "m.onnx")
    proto = onnx.load(file)
    proto.opset_import[0].domain = "ai.onnx"
    for node in proto.graph.node:
        node.domain = "ai.onnx"
    onnx.save(proto, file)
    assert len(load_model(file).layers) == 2


def test_ir_3_without_weights_among_the_inputs(tmp_path: Path) -> None:
    file = plain(tmp_path / "m.onnx", opset=8)
    proto = onnx.load(file)
    proto.ir_version = 3
    file.write_bytes(proto.SerializeToString())
    assert len(load_model(file).layers) == 2


def test_an_output_that_is_the_input(tmp_path: Path) -> None:
    file = plain(tmp_path / "m.onnx")
    proto = onnx.load(file)
    proto.graph.output.append(proto.graph.input[0])
    onnx.save(proto, file)
    model = load_model(file)
    assert list(model.left_out) == ["image"]
    assert [item.name for item in model.outputs] == ["logits"]


@pytest.mark.parametrize("opset", [11, 17])
def test_a_picture_without_a_batch_axis(tmp_path: Path, opset: int) -> None:
    b = GraphBuilder()
    axes = {"axes": [0]} if opset < 13 else {}
    more = [] if axes else [b.constant(np.array([0], np.int64))]
    b.head(b.conv(b.op("Unsqueeze", "image", *more, **axes), 3, 8), 8)
    file = b.save(tmp_path / "m.onnx", ["logits"], opset=opset)
    proto = onnx.load(file)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, [3, 32, 32]))
    onnx.save(proto, file)
    model = load_model(file)
    assert model.input_spec.size == (32, 32)
    picture = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    wrapped = onnxruntime.InferenceSession(model.proto.SerializeToString()).run(None, {"image": picture[None]})
    direct = onnxruntime.InferenceSession(str(file)).run(None, {"image": picture})
    np.testing.assert_array_equal(wrapped[0], direct[0])


@pytest.mark.parametrize(("shape", "axes"), [(["N", 28, 28], [1]), ([28, 32], [0, 1])])
def test_a_gray_picture_without_an_axis_of_channels(tmp_path: Path, shape: list[int | str], axes: list[int]) -> None:
    b = GraphBuilder()
    b.head(b.conv(b.op("Unsqueeze", "image", b.constant(np.array(axes, np.int64))), 1, 8), 8)
    file = b.save(tmp_path / "m.onnx", ["logits"])
    proto = onnx.load(file)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, shape))
    onnx.save(proto, file)
    model = load_model(file)
    assert (model.input_spec.size, model.input_spec.color) == (tuple(shape[-2:]), "GRAY")
    picture = np.random.default_rng(0).normal(size=(1, 1, *shape[-2:])).astype(np.float32)  # type: ignore[arg-type]
    wrapped = onnxruntime.InferenceSession(model.proto.SerializeToString()).run(None, {"image": picture})
    direct = onnxruntime.InferenceSession(str(file)).run(None, {"image": np.squeeze(picture, tuple(axes))})
    np.testing.assert_array_equal(wrapped[0], direct[0])


@pytest.mark.parametrize("equal", [1, 16])
def test_a_branch_that_hangs_on_sizes_alone_is_chosen(tmp_path: Path, equal: int) -> None:
    """As torch writes x.squeeze(2): if the axis is of 1, take it away."""

    def branch(name: str, op: str) -> onnx.GraphProto:
        nodes = [helper.make_node(op, ["v1"], ["inside"]), helper.make_node("Abs", ["inside"], ["end"])]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("end", TensorProto.FLOAT, None)])

    b = GraphBuilder()
    first = b.conv("image", 3, 8)
    side = b.op("Gather", b.op("Shape", first), b.constant(np.array(2, np.int64)))
    same = b.op("Equal", side, b.constant(np.array(equal, np.int64)))
    value = b.op("If", same, then_branch=branch("a", "Tanh"), else_branch=branch("b", "Neg"))
    b.head(b.conv(value, 8, 16), 16)
    file = b.save(tmp_path / "m.onnx", ["logits"])
    model = load_model(file)
    kinds = {node.op_type for node in model.proto.graph.node}
    assert ("Tanh" in kinds, "Neg" in kinds, "If" in kinds) == (equal == 16, equal != 16, False)
    assert check_parity(model, convert(model, [model.default_layer.value], check=False)).max_relative_error < 1e-5
    picture = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    ours = onnxruntime.InferenceSession(model.proto.SerializeToString()).run(None, {"image": picture})
    theirs = onnxruntime.InferenceSession(str(file)).run(None, {"image": picture})
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)


def test_a_branch_that_hangs_on_pixels_stays(tmp_path: Path) -> None:
    def branch(op: str) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(op, ["v1"], [op])], op, [], [helper.make_tensor_value_info(op, TensorProto.FLOAT, None)]
        )

    b = GraphBuilder()
    bright = b.op("Less", b.op("ReduceMean", b.conv("image", 3, 8), keepdims=0), b.constant(np.float32(1)))
    b.head(b.conv(b.op("If", bright, then_branch=branch("Tanh"), else_branch=branch("Neg")), 8, 16), 16)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits"]))
    assert "If" in {node.op_type for node in model.proto.graph.node}


@pytest.mark.parametrize("opset", [7, 11])
@pytest.mark.parametrize(
    ("op", "attributes", "expected"),
    [
        ("ImageScaler", {"scale": 0.5, "bias": [1.0, 2.0, 3.0]}, lambda x: x * 0.5 + np.reshape([1, 2, 3], (3, 1, 1))),
        ("Affine", {"alpha": 2.0, "beta": -1.0}, lambda x: 2 * x - 1),
        ("Crop", {"border": [1, 2, 3, 4]}, lambda x: x[..., 2:-4, 1:-3]),
        ("Crop", {"border": [1, 2, 0, 0], "scale": [5, 6]}, lambda x: x[..., 2:7, 1:7]),
    ],
)  # fmt: skip
def test_experimental_operators_are_written_in_standard_ones(opset, op, attributes, expected) -> None:  # type: ignore[no-untyped-def]
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 12, 12])
    graph = helper.make_graph([node], "g", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    respell(proto)
    assert {item.op_type for item in proto.graph.node} <= {"Mul", "Add", "Slice"}
    values = np.random.default_rng(0).normal(size=(1, 3, 12, 12)).astype(np.float32)
    found = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": values})[0]
    np.testing.assert_allclose(found, expected(values), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
@pytest.mark.parametrize(
    ("offset", "scale"),
    [([127.5], [1 / 128]), ([120.0] * 3, [0.02] * 3), ([123.0, 117.0, 104.0], [1 / 58, 1 / 57, 1 / 56])],
)
def test_a_scaler_of_classical_learning_is_written_as_onnxruntime_computes_it(kind, offset, scale) -> None:  # type: ignore[no-untyped-def]
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=offset, scale=scale)
    x = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), [2, 3, 5, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 5, 4])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 1)]
    proto = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=8)
    values = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4)).astype(kind)
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": values})[0]
    respell(proto)
    assert not {item.domain for item in proto.graph.node} - {""}
    assert ("Reshape" in {item.op_type for item in proto.graph.node}) == (len(set(offset)) > 1)
    onnx.checker.check_model(proto)
    found = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": values})[0]
    np.testing.assert_array_equal(found, expected)


def test_a_scaler_before_the_convs_is_a_normalisation_inside_the_graph(tmp_path: Path) -> None:
    b = GraphBuilder()
    scaled = b.op("Scaler", "image", domain="ai.onnx.ml", offset=[127.5], scale=[1 / 128])
    b.head(b.conv(b.conv(scaled, 3, 8), 8, 16), 16)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits"], domain="ai.onnx.ml"))
    spec = model.input_spec
    assert (spec.scale, set(spec.mean), set(spec.std)) == (1.0, {0.0}, {1.0})
    assert "pixels in 0..255 (the graph normalises them itself)" in spec.guessed
    assert check_parity(model, convert(model, [model.default_layer.value], check=False)).max_relative_error < 1e-5


def test_a_scaler_that_onnxruntime_refuses_stays(tmp_path: Path) -> None:
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0, 2.0], scale=[1.0])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xy")
    proto = helper.make_model(helper.make_graph([node], "g", [x], [y]))
    respell(proto)
    assert [item.op_type for item in proto.graph.node] == ["Scaler"]


def test_a_file_optimised_for_one_processor_says_what_it_is(tmp_path: Path) -> None:
    b = GraphBuilder()
    weights = b.constant(b.rng.normal(size=(8, 3, 3, 3)).astype(np.float32))
    blocked = b.op("Conv", "image", weights, domain="com.microsoft.nchwc", activation="Relu")
    b.head(b.op("ReorderOutput", blocked, domain="com.microsoft.nchwc", channels=8), 8)
    file = b.save(tmp_path / "m.onnx", ["logits"], domain="com.microsoft.nchwc")
    with pytest.raises(LayerError, match=r"for one kind of processor \(found 1 com.microsoft.nchwc.Conv.*EXTENDED"):
        _ = load_model(file).default_layer


@pytest.mark.parametrize("last", ["main", "shortcut"])
def test_the_default_layer_is_the_deepest_whatever_the_files_order(tmp_path: Path, last: str) -> None:
    b = GraphBuilder()
    base = b.conv("image", 3, 8)

    def shortcut() -> str:
        return b.op("Conv", base, b.constant(b.rng.normal(size=(16, 8, 1, 1)).astype(np.float32)), strides=[2, 2])

    def main() -> str:
        inner = b.op("Conv", base, b.constant(b.rng.normal(size=(8, 8, 3, 3)).astype(np.float32)), pads=[1] * 4)
        weights = b.constant(b.rng.normal(size=(16, 8, 3, 3)).astype(np.float32))
        return b.op("Conv", b.op("Relu", inner), weights, pads=[1] * 4, strides=[2, 2], out="main")

    branches = [shortcut(), main()] if last == "main" else [main(), shortcut()]
    b.head(b.op("Relu", b.op("Add", *branches)), 16)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits"], size=64))
    assert model.default_layer.conv == "main"


def test_a_detectors_fixed_sum_of_bins_is_a_prediction_not_a_layer(tmp_path: Path) -> None:
    b = GraphBuilder()
    neck = b.conv(b.conv("image", 3, 8), 8, 24)
    boxes = b.op("Conv", neck, b.constant(b.rng.normal(size=(16, 24, 1, 1)).astype(np.float32)))
    scores = b.op("Conv", neck, b.constant(b.rng.normal(size=(3, 24, 1, 1)).astype(np.float32)))
    bins = b.op("Reshape", boxes, b.constant(np.array([0, 4, 4, -1], np.int64)))
    soft = b.op("Softmax", b.op("Transpose", bins, perm=[0, 2, 1, 3]), axis=1)
    decoded = b.op("Conv", soft, b.constant(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)))
    flat = [
        b.op("Reshape", value, b.constant(np.array([0, n, -1], np.int64))) for value, n in ((decoded, 4), (scores, 3))
    ]
    b.op("Concat", *flat, axis=1, out="output0")
    model = load_model(b.save(tmp_path / "m.onnx", ["output0"], size=64))
    assert model.default_layer.value == neck


def test_batch_norm_with_statistics_per_place(tmp_path: Path) -> None:
    b = GraphBuilder()
    first = b.conv("image", 3, 8)
    numbers = [b.constant(b.rng.uniform(0.5, 1.5, (8, 16, 16)).astype(np.float32)) for _ in range(4)]
    b.head(b.conv(b.op("BatchNormalization", first, *numbers, spatial=0, epsilon=1e-3), 8, 16), 16)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits"], opset=8))
    assert check_parity(model, convert(model, [model.default_layer.value], check=False)).max_relative_error < 1e-5
    picture = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    ours, theirs = (
        onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"image": picture})[0]
        for proto in (at_opset(model.proto, 18, "m.onnx"), model.source)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_guessed_size_that_the_graph_does_not_take_gives_way_to_one_that_it_takes(tmp_path: Path) -> None:
    b = GraphBuilder()
    maps = b.op("MaxPool", b.conv(b.conv("image", 3, 8), 8, 16), kernel_shape=[8, 1], strides=[8, 1])
    b.op("Squeeze", maps, b.constant(np.array([2], np.int64)), out="text")
    file = b.save(tmp_path / "m.onnx", ["text"])
    proto = onnx.load(file)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"]))
    onnx.save(proto, file)
    spec = load_model(file).input_spec
    assert spec.size == (32, 320)
    assert "does not take 224x224" in spec.guessed[0]


@pytest.mark.parametrize(("pool", "size"), [(7, (28, 28)), (24, (96, 96)), (57, (227, 227))])
def test_a_dense_layer_tells_which_size_a_graph_takes(tmp_path: Path, pool: int, size: tuple[int, int]) -> None:
    b = GraphBuilder()
    maps = b.conv(b.conv("image", 3, 8), 8, 16)
    weights = b.constant(b.rng.normal(size=(16 * pool * pool, 10)).astype(np.float32))
    b.op("Gemm", b.op("Flatten", maps), weights, out="logits")
    file = b.save(tmp_path / "m.onnx", ["logits"])
    proto = onnx.load(file)
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"]))
    onnx.save(proto, file)
    assert load_model(file).input_spec.size == size


def test_a_guess_is_recorded_wherever_something_rests_on_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = plain(tmp_path / "m.onnx")
    cv2.imwrite(str(tmp_path / "p.png"), np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    train = ["train", str(file), str(tmp_path / "p.png"), "--pairs", "8", "--out", str(tmp_path / "e.onnx")]
    assert run(train) == 0
    assert run(["explain", str(tmp_path / "e.onnx"), str(tmp_path / "p.png"), "--out", str(tmp_path / "d")]) == 0
    assert "rests on a guess" in capsys.readouterr().err
    assert "mean of ImageNet" in (tmp_path / "d" / "report.html").read_text(encoding="utf-8")
    assert "mean of ImageNet" in json.loads((tmp_path / "d" / "manifest.json").read_text())["guessed_input"]
    assert run(["inspect", str(tmp_path / "e.onnx"), "--json"]) == 0
    assert "mean of ImageNet" in json.loads(capsys.readouterr().out)["explainer"]["training"]["guessed_input"]


@pytest.mark.parametrize("name", ["imagenet", "0..1", "-1..1", "caffe-bgr", "timm-inception"])
def test_presets_of_preprocessing(tmp_path: Path, name: str) -> None:
    spec = load_model(plain(tmp_path / "m.onnx"), preprocess=read_preprocess(Path(name)) and name).input_spec
    ends = spec.normalise(np.array([[[[0, 0, 0], [255, 255, 255]]]], np.uint8))
    low, high = float(ends.min()), float(ends.max())
    expected = {"imagenet": (-2.118, 2.64), "0..1": (0, 1), "-1..1": (-1, 1), "caffe-bgr": (-123.68, 151.061)}
    assert (low, high) == pytest.approx(expected.get(name, (-1, 1)), abs=0.01)
    assert not any("mean" in guess for guess in spec.guessed)


def normalised(b: GraphBuilder, value: str, kind: str) -> str:
    """(x - 127.5) / 127.5 as a pair of ops, or a batch norm with ImageNet's statistics of pixels in 0..1 or 0..255."""
    if kind == "pair":
        apart = b.op("Sub", value, b.constant(np.float32(127.5)))
        return b.op("Div", apart, b.constant(np.float32(127.5)))
    scale = 255.0 if kind == "batch norm" else 1.0
    mean, deviation = np.float32([0.485, 0.456, 0.406]) * scale, np.float32([0.229, 0.224, 0.225]) * scale
    numbers = (np.ones(3, np.float32), np.zeros(3, np.float32), mean, deviation**2)
    return b.op("BatchNormalization", value, *map(b.constant, numbers))


@pytest.mark.parametrize(("kind", "largest"), [("pair", 255), ("batch norm", 255), ("batch norm of 0..1", 1)])
@pytest.mark.parametrize("before", ["nothing", "Resize", "flip", "Clip", "Transpose", "Cast"])
def test_a_normalisation_inside_the_graph_is_not_put_on_twice(
    tmp_path: Path, kind: str, largest: int, before: str
) -> None:
    b = GraphBuilder()
    value = "image"
    if before == "Resize":
        b.op("Shape", value)
        value = b.op("Resize", value, "", b.constant(np.float32([1, 1, 1, 1])), mode="nearest")
    elif before == "flip":
        value = b.op("Gather", value, b.constant(np.array([2, 1, 0], np.int64)), axis=1)
    elif before == "Clip":
        value = b.op("Clip", value, b.constant(np.float32(0)), b.constant(np.float32(255)))
    elif before == "Transpose":
        value = b.op("Transpose", b.op("Transpose", value, perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    elif before == "Cast":
        value = b.op("Cast", value, to=TensorProto.FLOAT)
    b.head(b.conv(normalised(b, value, kind), 3, 8), 8)
    spec = load_model(b.save(tmp_path / "m.onnx", ["logits"])).input_spec
    assert spec.scale == pytest.approx(1.0 if largest == 255 else 1 / 255)
    assert set(np.ravel(spec.mean)) == {0.0}
    assert set(np.ravel(spec.std)) == {1.0}
    assert f"pixels in 0..{largest}" in " ".join(spec.guessed)
