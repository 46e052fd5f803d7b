"""What a model expects of its input: other programs' descriptions, whole numbers, four channels, several inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.errors import LayerError, ModelError, UsageError
from fsagn_onnx.model import InputSpec, ValueInfo, load_model
from fsagn_onnx.model.batch import fixed_batch, free_batch
from fsagn_onnx.model.description import input_spec, labels_of, read_preprocess
from fsagn_onnx.model.feeds import parse_feeds

IMAGE = [ValueInfo("x", "float32", ("N", 3, "h", "w"))]

TIMM = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.1],
    "input_size": [3, 64, 96],
    "crop_pct": 0.9,
    "interpolation": "bicubic",
}
HUGGING_FACE = {
    "do_center_crop": True, "crop_size": {"height": 64, "width": 64}, "size": {"shortest_edge": 80},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
}  # fmt: skip
PADDLE = {
    "PreProcess": {
        "transform_ops": [
            {"DecodeImage": {"to_rgb": False, "channel_first": False}},
            {"ResizeImage": {"resize_short": 80}},
            {"CropImage": {"size": 64}},
            {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.2] * 3, "order": ""}},
            {"ToCHWImage": None},
        ]
    },
    "PostProcess": {"Topk": {"topk": 1, "label_list": ["0", "90", "180", "270"]}},
}  # fmt: skip
DETECTION = {
    "Preprocess": [
        {"type": "Resize", "target_size": [64, 96], "keep_ratio": False, "interp": 2},
        {"type": "NormalizeImage", "is_scale": True, "mean": [0.0] * 3, "std": [1.0] * 3, "norm_type": "none"},
        {"type": "Permute"},
    ]
}


@pytest.mark.parametrize(
    ("described", "color", "size", "scale", "mean", "std", "resize"),
    [
        (TIMM, "RGB", (64, 96), 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "crop:0.9"),
        ({"architecture": "n", "pretrained_cfg": TIMM | {"crop_pct": 1, "crop_mode": "squash"}},
         "RGB", (64, 96), 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "stretch"),
        ({"default_cfg": TIMM | {"crop_mode": "border"}},
         "RGB", (64, 96), 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "letterbox:0"),
        (HUGGING_FACE, "RGB", (64, 64), 1 / 255, (0.5,) * 3, (0.25,) * 3, "crop:0.8"),
        ({"image_mean": [1.0] * 3, "image_std": [2.0] * 3, "do_rescale": False, "size": {"height": 64, "width": 96}},
         "RGB", (64, 96), 1.0, (1.0,) * 3, (2.0,) * 3, "stretch"),
        (PADDLE, "BGR", (64, 64), 1 / 255, (0.485, 0.456, 0.406), (0.2,) * 3, "crop:0.8"),
        (DETECTION, "RGB", (64, 96), 1 / 255, (0.0,) * 3, (1.0,) * 3, "stretch"),
    ],
)  # fmt: skip
def test_descriptions_of_other_programs(
    described: dict[str, Any], color: str, size: tuple[int, int], scale: float, mean: tuple[float, ...],
    std: tuple[float, ...], resize: str, tmp_path: Path,
) -> None:  # fmt: skip
    """As a file, and as entries of the metadata."""
    expected = InputSpec("x", "NCHW", color, size, scale, mean, std, resize)
    (tmp_path / "spec.json").write_text(json.dumps(described))
    assert input_spec(IMAGE, {}, read_preprocess(tmp_path / "spec.json")) == expected
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
    for metadata in (texts, {"config": json.dumps(described)}):
        assert input_spec(IMAGE, metadata, None) == expected
        assert input_spec(IMAGE, metadata, None).guessed == ()


def test_yaml_as_paddle_writes_it(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "inference.yml"
    path.write_text(yaml.safe_dump(PADDLE))
    assert input_spec(IMAGE, {}, read_preprocess(path)).color == "BGR"
    path.write_text("a: [1, 2")
    with pytest.raises(ModelError, match=r"inference\.yml is not YAML"):
        read_preprocess(path)
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ModelError, match="is not YAML"):
        read_preprocess(path)


def test_onnx_image_metadata() -> None:
    metadata = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1"}
    spec = input_spec(IMAGE, metadata, None)
    assert (spec.color, spec.scale, spec.mean, spec.std) == ("BGR", 1 / 255, (0.5,) * 3, (0.5,) * 3)
    assert spec.guessed == ("size 224x224 (that of the input is dynamic)", "resize by stretching")


def test_a_foreign_description_gives_way_to_the_graph_and_the_user() -> None:
    fixed = [ValueInfo("x", "float32", (1, 3, 32, 32))]
    metadata = {"pretrained_cfg": json.dumps(TIMM)}
    assert input_spec(fixed, metadata, None).size == (32, 32)
    assert input_spec(IMAGE, metadata, {"size": [48, 48], "color": "BGR"}).size == (48, 48)
    gray = input_spec([ValueInfo("x", "float32", (1, 1, 64, 96))], metadata, None)
    assert (gray.color, gray.resize, len(gray.mean)) == ("GRAY", "crop:0.9", 1)


@pytest.mark.parametrize(
    "metadata",
    [
        {"mean": "[0.1]"}, {"pretrained_cfg": "{"}, {"pretrained_cfg": '{"mean": "x", "std": {}, "crop_pct": []}'},
        {"PreProcess": '{"transform_ops": [3, {"CropImage": null}, {"ResizeImage": 3}, {}]}'},
        {"config": '{"image_mean": "a", "size": "b", "crop_size": [1, 2, 3, 4], "rescale_factor": {}}'},
        {"config": "{" * 100_000}, {"author": "Ultralytics", "imgsz": "[[", "channels": "()"},
    ],
)  # fmt: skip
def test_damaged_descriptions_are_left_out(metadata: dict[str, str]) -> None:
    assert input_spec(IMAGE, metadata, None).channels == 3


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({"config": '{"id2label": {"0": "a", "1": "b"}}'}, ("a", "b")),
        ({"label_names": '["a", "b"]'}, ("a", "b")),
        ({"character": "0\n90\n180"}, ("0", "90", "180")),
        ({"config": json.dumps(PADDLE)}, ("0", "90", "180", "270")),
    ],
)
def test_labels_of_other_programs(metadata: dict[str, str], labels: tuple[str, ...]) -> None:
    assert labels_of(metadata) == labels


# Whole numbers, four channels, normalisation in the graph


def test_whole_numbers_are_pixels() -> None:
    spec = input_spec([ValueInfo("x", "uint8", ("N", 32, 32, 3))], {}, None)
    assert (spec.layout, spec.scale, spec.mean, spec.std) == ("NHWC", 1.0, (0.0,) * 3, (1.0,) * 3)
    assert spec.guessed == ("color order RGB", "resize by stretching")
    assert input_spec([ValueInfo("x", "int8", (1, 1, 32, 32))], {}, None).mean == (128.0,)
    with pytest.raises(ModelError, match=r"'x' is uint8, but .* gives 0 to 1 in steps of 0\.0039.*give scale 1"):
        input_spec([ValueInfo("x", "uint8", ("N", 3, 32, 32))], {}, {"scale": 1 / 255})
    floats = [ValueInfo("ids", "uint8", (1, 3, 8, 8)), ValueInfo("x", "float16", (1, 3, 8, 8))]
    assert input_spec(floats, {}, None).name == "x"


def test_four_channels_are_opaque() -> None:
    spec = input_spec([ValueInfo("x", "float32", (1, 4, 8, 8))], {}, None)
    assert (spec.color, spec.mean[3], spec.std[3]) == ("RGBA", 0.0, 255.0)
    assert "color order RGBA, alpha opaque" in spec.guessed
    values, _ = spec.preprocess(np.zeros((8, 8, 3), np.uint8))
    assert values.shape == (4, 8, 8)
    assert (values[3] == 1).all()
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    assert np.array_equal(
        InputSpec("x", "NHWC", "BGRA", (8, 8), 1.0, (0.0,) * 4, (1.0,) * 4, "stretch").fit(image)[0][..., 2::-1], image
    )


def network(*nodes: onnx.NodeProto, batch: int | str = "N", **tensors: object) -> onnx.ModelProto:
    """From x, over the nodes, to "normal", then a conv; tensors by name."""
    weights = {"w": np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)} | tensors
    body = [*nodes, helper.make_node("Conv", ["normal" if nodes else "x", "w"], ["y"])]
    graph = helper.make_graph(
        body,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


Save = Callable[[onnx.ModelProto], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def saved(proto: onnx.ModelProto) -> Path:
        onnx.save(proto, tmp_path / "net.onnx")
        return tmp_path / "net.onnx"

    return saved


@pytest.mark.parametrize(
    ("ops", "largest"),
    [
        ([("Div", 255.0)], 255), ([("Mul", 1 / 255)], 255), ([("Sub", [[[127.5]]] * 3), ("Div", 127.5)], 255),
        ([("Div", 255.0), ("Sub", [[[0.485]], [[0.456]], [[0.406]]])], 255),
        ([("Sub", [[[0.485]], [[0.456]], [[0.406]]]), ("Div", [[[0.229]], [[0.224]], [[0.225]]])], 1),
        ([("Mul", 2.0)], 1),
    ],
)  # fmt: skip
def test_a_graph_that_normalises_by_itself(ops: list[tuple[str, object]], largest: int, save: Save) -> None:
    values = ["x", *(f"v{n}" for n in range(1, len(ops))), "normal"]
    nodes = [helper.make_node(op, [values[n], f"t{n}"], [values[n + 1]]) for n, (op, _) in enumerate(ops)]
    tensors = {f"t{n}": np.asarray(constant, np.float32) for n, (_, constant) in enumerate(ops)}
    model = load_model(save(network(*nodes, **tensors)))
    spec = model.input_spec
    assert (spec.scale, spec.mean, spec.std) == (1.0 if largest == 255 else 1 / 255, (0.0,) * 3, (1.0,) * 3)
    assert f"pixels in 0..{largest} (the graph normalises them itself)" in str(model.guess_warning)


# Several inputs


def with_inputs(proto: onnx.ModelProto, **shapes: tuple[int, list[int | str] | None]) -> onnx.ModelProto:
    """Add inputs of (type, shape)."""
    for name, (kind, shape) in shapes.items():
        proto.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    return proto


def two_inputs() -> onnx.ModelProto:
    proto = network(helper.make_node("Mul", ["x", "gain"], ["normal"]))
    return with_inputs(proto, gain=(TensorProto.FLOAT, ["N", 3, 1, 1]), ids=(TensorProto.INT64, [2]))


def test_other_inputs_become_constants_of_the_model(save: Save, tmp_path: Path) -> None:
    path = save(two_inputs())
    with pytest.raises(ModelError, match=r"needs more than the image 'x'.*--feed gain=VALUE --feed ids=VALUE"):
        load_model(path).require_one_input()
    np.save(tmp_path / "ids.npy", np.array([3, 4]))
    model = load_model(path, feeds=["gain=0.5", f"ids={tmp_path / 'ids.npy'}"])
    model.require_one_input()
    assert [item.name for item in model.inputs] == ["x"]
    bound = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}
    assert bound["gain"].shape == (1, 3, 1, 1)
    assert (bound["gain"] == 0.5).all()
    assert bound["ids"].tolist() == [3, 4]
    assert len(model.layers) == 1
    others = [load_model(path, feeds={"gain": gain, "ids": [3, 4]}).content for gain in (0.5, 0.25)]
    assert others[0] == model.content != others[1]
    assert load_model(path, feeds={"gain": np.full((3, 1, 1), 0.5), "ids": [3, 4]}).content == model.content


def test_the_image_is_found_or_named(save: Save) -> None:
    proto = with_inputs(network(), other=(TensorProto.FLOAT, ["N", 3, 8, 8]))
    proto.graph.node.append(helper.make_node("Conv", ["other", "w"], ["z"]))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    path = save(proto)
    assert load_model(path).input_spec.name == "x"
    assert load_model(path, image="other").input_spec.size == (8, 8)
    with pytest.raises(ModelError, match="no input 'othr'; nearest: 'other'"):
        load_model(path, image="othr")
    with pytest.raises(ModelError, match="gives 'x' a constant, but --input names it"):
        load_model(path, image="x", feeds={"x": 1})


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"gian": 1}, "no input 'gian'; nearest: 'gain'"),
        ({"gain": [1, 2]}, r"'gain' must have the shape \(N, 3, 1, 1\), but the value has \(2,\)"),
        ({"ids": 1.5}, r"'ids' takes int64, which cannot hold 1\.5"),
        ({"ids": [1, 2, 3]}, "'ids' must have the shape"),
        ({"ids": ["a", "b"]}, "'ids' takes int64, but got <U1 values"),
        ({"ids": [[1], [2, 3]]}, "'ids' cannot be given"),
        ({"gain": np.zeros((2**25, 3, 1, 1), np.int8)}, "has more than"),
    ],
)
def test_values_that_do_not_fit(feeds: dict[str, Any], message: str, save: Save) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load_model(save(two_inputs()), feeds=feeds)
    assert "net.onnx: --feed: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["gain", "gain=", "=3", "gain=x", "gain='a'", "gain={1: 2}"])
def test_feeds_of_another_form(text: str) -> None:
    with pytest.raises(UsageError, match="--feed"):
        parse_feeds([text])
    assert parse_feeds(["a=1", "b=[1, 2]", "c=true"]) == {"a": 1, "b": [1, 2], "c": True}
    with pytest.raises(UsageError, match="gives 'a' twice"):
        parse_feeds(["a=1", "a=2"])


def test_arrays_are_read_without_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelError, match=r"o\.npy is not an \.npy file of numbers"):
        parse_feeds([f"a={tmp_path / 'o.npy'}"])
    (tmp_path / "t.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ModelError, match="is not an"):
        parse_feeds([f"a={tmp_path / 't.npy'}"])
    with pytest.raises(ModelError, match="cannot be read"):
        parse_feeds(["a=gone.npy"])


# A fixed batch


def test_a_fixed_batch_is_freed(save: Save) -> None:
    import onnxruntime

    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["v1"]),
        helper.make_node("Reshape", ["v1", "back"], ["v2"]),
        helper.make_node("Resize", ["v2", "", "", "sizes"], ["normal"], mode="linear"),
    ]
    proto = network(
        *nodes, batch=1, flat=np.array([1, -1]), back=np.array([1, 3, 16, 16]), sizes=np.array([1, 3, 32, 32])
    )
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 30, 30]))
    onnx.checker.check_model(proto, full_check=True)
    assert fixed_batch(proto, "x") == 1
    freed = free_batch(proto, "x", (1, 3, 16, 16))
    onnx.checker.check_model(freed, full_check=True)
    assert fixed_batch(freed, "x") is None
    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    sessions = [onnxruntime.InferenceSession(item.SerializeToString()) for item in (proto, freed)]
    one_by_one = np.concatenate([sessions[0].run(None, {"x": image[None]})[0] for image in images])
    assert np.array_equal(sessions[1].run(None, {"x": images})[0], one_by_one)


# Sizes


@pytest.mark.parametrize(
    ("size", "pads", "message"),
    [
        (None, [1, 1, 1, 1024], r"the conv 'y' pads its map from \(16, 16\) to \(16, 1039\)"),
        (
            [1, 3, 2**12, 2**12],
            None,
            r"the value 'normal' has the shape \(1, 3, 4096, 4096\) for one input, expected at",
        ),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_computed(
    size: list[int] | None, pads: list[int] | None, message: str, save: Save
) -> None:
    if size is None:
        proto = network()
        proto.graph.node[-1].attribute.append(helper.make_attribute("pads", pads))
    else:
        proto = network(helper.make_node("Resize", ["x", "", "", "sizes"], ["normal"]), sizes=np.array(size))
    model = load_model(save(proto))
    with pytest.raises(LayerError, match=message):
        model.require_size(["y"])


def test_weights_that_are_dequantised_may_be_larger_than_maps(save: Save) -> None:
    proto = network(
        helper.make_node("DequantizeLinear", ["integers", "step"], ["kernel"]),
        helper.make_node("Conv", ["x", "kernel"], ["wide"]),
        integers=np.zeros((2**17, 3, 2, 2), np.int8),
        step=np.float32(0.1),
    )
    proto.graph.node[-1].input[0] = "x"
    load_model(save(proto)).require_size(["kernel"])


def test_a_large_fixed_batch_is_refused(save: Save) -> None:
    with pytest.raises(ModelError, match="fixed batch of 1048576 images of 16 x 16, expected at most 16777216 pixels"):
        load_model(save(network(batch=2**20)))
