"""Loading, checking, hashing and cutting ONNX files."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.errors import LayerError, ModelError
from fsagn_onnx.model import Model, cut, load_model
from fsagn_onnx.model import onnx_file as reading
from fsagn_onnx.model.content_hash import content_hash
from fsagn_onnx.model.fresh_names import FreshNames


def small_model() -> onnx.ModelProto:
    """Image (N, 3, 32, 32) -> conv, relu, conv, relu -> mean -> 5 classes; 1 x 1 weights of 4 kB and more."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "first", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5])],
        [weight("w1", 40, 3, 3, 3), weight("b1", 40), weight("w2", 20, 40, 3, 3), weight("w3", 20, 5)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="me")


@pytest.fixture
def proto() -> onnx.ModelProto:
    return small_model()


@pytest.fixture
def path(tmp_path: Path, proto: onnx.ModelProto) -> Path:
    onnx.save(proto, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


def with_external_data(proto: onnx.ModelProto, folder: Path, name: str = "small.data") -> Path:
    path = folder / "external.onnx"
    onnx.save_model(
        copy.deepcopy(proto),
        path,
        save_as_external_data=True,
        location=name,
        size_threshold=0,
        all_tensors_to_one_file=True,
    )
    return path


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


IMAGE = np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype(np.float32)


# Loading


def test_load(path: Path, proto: onnx.ModelProto) -> None:
    model = load_model(path)
    assert isinstance(model, Model)
    assert model.path == path
    assert model.proto == proto
    assert [(item.name, item.dtype, item.shape) for item in model.inputs] == [("image", "float32", ("N", 3, 32, 32))]
    assert [(item.name, item.dtype, item.shape) for item in model.outputs] == [("scores", "float32", ("N", 5))]
    assert (model.opset, model.producer, model.metadata, model.labels) == (17, "me", {}, None)
    assert model.input_spec.size == (32, 32)
    assert model.shape_warning is None
    assert len(model.content) == 64


def test_loading_imports_neither_torch_nor_onnxruntime(path: Path) -> None:
    code = (
        "import sys; from fsagn_onnx.model import load_model; load_model(sys.argv[1]).layers; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_initializers_among_the_inputs(tmp_path: Path, proto: onnx.ModelProto) -> None:
    """As before IR version 4."""
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(proto, tmp_path / "old.onnx")
    model = load_model(tmp_path / "old.onnx")
    assert [item.name for item in model.inputs] == ["image"]
    assert [layer.value for layer in model.layers] == ["r1", "r2"]


def test_preprocess_file(path: Path) -> None:
    spec = path.with_name("spec.json")
    spec.write_text('{"color": "BGR", "scale": 0.5}')
    assert load_model(path, preprocess=spec).input_spec.color == "BGR"
    chosen = load_model(path, preprocess=spec).input_spec
    assert load_model(path, preprocess=chosen).input_spec == chosen
    spec.write_text('{"colour": "BGR"}')
    with pytest.raises(ModelError, match=r"small\.onnx: input spec: unknown field 'colour'"):
        load_model(path, preprocess=spec)


def test_nan_in_initializers(tmp_path: Path, proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(40, np.nan, np.float32), "b1"))
    onnx.save(proto, tmp_path / "nan.onnx")
    assert load_model(tmp_path / "nan.onnx").layers


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, expected an ONNX file"),
        (b"this is no model, but a text", "is not an ONNX"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not an ONNX"),
        (b"\x08\x09", "is not an ONNX model: it has no graph"),
    ],
)
def test_no_onnx_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "m.onnx")
    assert f"{tmp_path / 'm.onnx'} {message}" in one_line(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=rf"{path.name} is not an ONNX file, or a truncated one \(\d+ bytes\)"):
        load_model(path)


def test_names_that_are_no_text(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"scores", b"sc\xffres"))
    with pytest.raises(ModelError, match=r"small\.onnx is a damaged ONNX file: a name in it is not UTF-8 text"):
        load_model(path)


def test_damaged_files_are_models_or_our_errors(path: Path) -> None:
    rng = np.random.default_rng(0)
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    structure = np.r_[0:700, len(content) - 100 : len(content)]
    for _ in range(150):
        damaged = content.copy()
        damaged[rng.choice(structure, 2)] = rng.integers(0, 256, 2)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(ModelError):
            model = load_model(path)
            assert model.default_layer
            assert model.shape_warning != ""


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*gone\.onnx"):
        load_model(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="is a folder, expected an ONNX file"):
        load_model(tmp_path)


def test_size_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Path) -> bytes:
        raise AssertionError("read")

    monkeypatch.setattr(Path, "read_bytes", never)
    with pytest.raises(ModelError, match=r"has \d+ bytes, more than the limit of 100"):
        reading.read_proto(path, max_bytes=100)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.graph.node[1].input.__setitem__(0, "gone"), "not a valid ONNX model: .*gone"),
        (
            lambda p: p.graph.node[0].input.__setitem__(0, "c2"),
            "not a valid ONNX model: .*topologically sorted",
        ),
        (lambda p: p.graph.node[0].attribute.pop(), None),
        (lambda p: setattr(p.graph.node[1], "op_type", "Rely"), "not a valid ONNX model: .*Rely"),
        (lambda p: setattr(p.graph.node[1], "domain", "my.ops"), "not a valid ONNX model: .*my.ops"),
        (lambda p: p.graph.ClearField("output"), "the graph has no output"),
        (lambda p: p.ClearField("opset_import"), "not a valid ONNX model: .*opset"),
        (lambda p: setattr(p.graph.initializer[0], "raw_data", b"1234"), "the tensor 'w1' is broken"),
        (lambda p: p.graph.initializer[3].dims.__setitem__(0, 21), "the tensor 'w3' is broken"),
    ],
)
def test_broken_graphs(
    tmp_path: Path, proto: onnx.ModelProto, spoil: Callable[[onnx.ModelProto], object], message: str | None
) -> None:
    spoil(proto)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    if message is None:
        load_model(tmp_path / "m.onnx")
        return
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path / "m.onnx")
    assert one_line(caught.value).startswith(str(tmp_path / "m.onnx"))


def test_a_wrong_stored_shape_is_made_true(tmp_path: Path, proto: onnx.ModelProto) -> None:
    """onnxruntime warns and runs, strict inference would refuse; see `model/declared.py`."""
    proto.graph.value_info.append(helper.make_tensor_value_info("r2", TensorProto.FLOAT, ["N", 20, 9, 9]))
    onnx.save(proto, tmp_path / "m.onnx")
    assert run(proto, {"image": IMAGE})[0].shape == (2, 5)
    model = load_model(tmp_path / "m.onnx")
    assert model.default_layer.shape == (20, 8, 8)
    assert model.shape_warning is None


def test_nodes_in_any_order(tmp_path: Path, proto: onnx.ModelProto, path: Path) -> None:
    """onnxruntime takes them so, and so do we; the model is the same."""
    nodes = list(small_model().graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    onnx.save(proto, tmp_path / "m.onnx")
    assert run(proto, {"image": IMAGE})[0].shape == (2, 5)
    model = load_model(tmp_path / "m.onnx")
    onnx.checker.check_model(model.proto, full_check=True)
    assert model.content == load_model(path).content
    assert model.default_layer == load_model(path).default_layer


def test_local_functions_are_inlined(tmp_path: Path, proto: onnx.ModelProto) -> None:
    opset = helper.make_opsetid("", 17)
    block = helper.make_function(
        "mine",
        "Block",
        ["x", "w"],
        ["y"],
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        [opset],
    )
    nodes = [
        helper.make_node("Block", ["image", "w"], ["deep"], domain="mine"),
        helper.make_node("GlobalAveragePool", ["deep"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")],
    )
    model = helper.make_model(
        graph, functions=[block], opset_imports=[opset, helper.make_opsetid("mine", 1)], ir_version=9
    )
    onnx.save(model, tmp_path / "m.onnx")
    assert [(layer.value, layer.op, layer.shape) for layer in load_model(tmp_path / "m.onnx").layers] == [
        ("deep", "Conv+Relu", (4, 14, 14))
    ]


# External data


def test_external_data_is_loaded(tmp_path: Path, proto: onnx.ModelProto, path: Path) -> None:
    model = load_model(with_external_data(proto, tmp_path))
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in model.proto.graph.initializer)
    assert model.content == load_model(path).content
    assert np.array_equal(run(model.proto, {"image": IMAGE})[0], run(proto, {"image": IMAGE})[0])


def test_external_data_in_a_subfolder_and_by_link(tmp_path: Path, proto: onnx.ModelProto, path: Path) -> None:
    (tmp_path / "weights").mkdir()
    external = with_external_data(proto, tmp_path, "weights/small.data")
    assert load_model(external).content == load_model(path).content
    (tmp_path / "weights").rename(tmp_path / "real")
    (tmp_path / "weights").symlink_to("real")
    assert load_model(external).content == load_model(path).content


def test_external_data_missing_or_truncated(tmp_path: Path, proto: onnx.ModelProto) -> None:
    external = with_external_data(proto, tmp_path)
    data = tmp_path / "small.data"
    content = data.read_bytes()
    data.write_bytes(content[:-10])
    with pytest.raises(ModelError, match=r"wants bytes \d+ to \d+ of a file of \d+ bytes: truncated\?") as caught:
        load_model(external)
    one_line(caught.value)
    data.unlink()
    with pytest.raises(
        ModelError,
        match=r"external\.onnx: external data of 'w1' is missing: expected the file '.*small\.data'",
    ):
        load_model(external)


def relocate(path: Path, **entries: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key in entries:
            entry.value = entries[entry.key]
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    "location",
    [
        "../outside.data",
        "/etc/passwd",
        "link.data",
        "folder/../../outside.data",
        "link/outside.data",
        "..\\o",
    ],
)
def test_external_data_outside_of_the_folder(tmp_path: Path, proto: onnx.ModelProto, location: str) -> None:
    (tmp_path / "outside.data").write_bytes(bytes(10**6))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    (folder / "link").symlink_to(tmp_path)
    external = with_external_data(proto, folder)
    relocate(external, location=location)
    with pytest.raises(ModelError, match="points outside of the model's folder") as caught:
        load_model(external)
    assert "'w1'" in one_line(caught.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "-4"}, "wants bytes -4 to"),
        ({"length": "99999999999999"}, "truncated"),
        ({"offset": "many"}, "not a number"),
        ({"length": "8"}, "the tensor 'w1' is broken"),
        ({"location": ""}, "names no file"),
        ({"location": "a\0b"}, "zero byte"),
    ],
)
def test_external_data_entries(tmp_path: Path, proto: onnx.ModelProto, entries: dict[str, str], message: str) -> None:
    external = with_external_data(proto, tmp_path)
    relocate(external, **entries)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(external)
    one_line(caught.value)


def test_external_data_limit(tmp_path: Path, proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_EXTERNAL_BYTES", 5000)
    with pytest.raises(ModelError, match="more than 5000 bytes of external data"):
        load_model(with_external_data(proto, tmp_path))


# Hash


def test_hash_is_stored() -> None:
    """The hash of a given model must never change: explainer files carry it."""
    ramp = numpy_helper.from_array(np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 3, 3])],
        [ramp],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert content_hash(proto) == "cbae079db87c5abe4ab075135d501c7302ee2513698f12fadecfdbbda71a1600"


def neutral(proto: onnx.ModelProto) -> None:
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "words"
    proto.graph.node[0].attribute[0].doc_string = "words"
    proto.graph.initializer[0].doc_string = "words"
    proto.producer_name, proto.producer_version, proto.model_version = "other", "2", 7
    proto.ir_version = 8
    proto.graph.name = "renamed"
    proto.graph.node[0].name = "renamed"
    helper.set_model_props(proto, {"fsagn_model": "{}"})
    proto.graph.value_info.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["N", 40, 16, 16]))
    attributes = list(reversed(proto.graph.node[0].attribute))
    del proto.graph.node[0].attribute[:]
    proto.graph.node[0].attribute.extend(attributes)
    tensors = list(reversed(proto.graph.initializer))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(tensors)
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "b1")
    values = numpy_helper.to_array(bias).tolist()
    bias.ClearField("raw_data")
    bias.float_data.extend(values)


def test_hash_ignores_how_the_file_is_written(proto: onnx.ModelProto) -> None:
    before = content_hash(proto)
    assert content_hash(small_model()) == before
    neutral(proto)
    assert proto != small_model()
    assert content_hash(proto) == before


def flip_a_bit(proto: onnx.ModelProto) -> None:
    data = bytearray(proto.graph.initializer[2].raw_data)
    data[1234] ^= 1
    proto.graph.initializer[2].raw_data = bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        flip_a_bit,
        lambda p: p.graph.initializer[0].dims.__setitem__(slice(2, 4), [9, 1]),
        lambda p: p.graph.node[0].attribute[0].ints.__setitem__(0, 5),
        lambda p: setattr(p.graph.node[1], "op_type", "Elu"),
        lambda p: setattr(p.opset_import[0], "version", 16),
        lambda p: setattr(p.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 64),
        lambda p: setattr(p.graph.output[0], "name", "flat"),
        lambda p: p.graph.node[6].input.__setitem__(0, "pooled"),
        lambda p: p.graph.node.pop(),
        lambda p: p.graph.node[0].input.append(""),
    ],
)
def test_hash_sees_what_is_computed(proto: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> None:
    before = content_hash(proto)
    change(proto)
    assert content_hash(proto) != before


# Cutting


def test_cut_keeps_what_is_needed(proto: onnx.ModelProto) -> None:
    before = proto.SerializeToString()
    piece = cut(proto, ["r1", "r1"])
    assert proto.SerializeToString() == before
    onnx.checker.check_model(piece, full_check=True)
    assert [node.op_type for node in piece.graph.node] == ["Conv", "Relu"]
    assert [item.name for item in piece.graph.initializer] == ["w1", "b1"]
    assert [item.name for item in piece.graph.input] == ["image"]
    assert [item.name for item in piece.graph.output] == ["r1"]
    assert piece.opset_import == proto.opset_import
    (feature_map,) = run(piece, {"image": IMAGE})
    assert feature_map.shape == (2, 40, 16, 16)


def test_cut_with_the_outputs_of_the_model(proto: onnx.ModelProto) -> None:
    piece = cut(proto, ["r2", "c1"], keep_outputs=True)
    onnx.checker.check_model(piece, full_check=True)
    assert [item.name for item in piece.graph.output] == ["r2", "c1", "scores"]
    assert np.array_equal(run(piece, {"image": IMAGE})[2], run(proto, {"image": IMAGE})[0])
    assert [item.name for item in cut(proto, ["scores"], keep_outputs=True).graph.output] == ["scores"]


def test_cut_at_nothing(proto: onnx.ModelProto) -> None:
    for name in ("gone", "image", "w1", ""):
        with pytest.raises(LayerError, match=f"cannot cut the graph at '{name}'"):
            cut(proto, [name])


def test_cut_a_deep_graph() -> None:
    """Far deeper than Python recurses."""
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"]) for i in range(5000)]
    value = helper.make_tensor_value_info("v0", TensorProto.FLOAT, [1, 3, 4, 4])
    graph = helper.make_graph(nodes, "g", [value], [helper.make_tensor_value_info("v5000", TensorProto.FLOAT, None)])
    piece = cut(helper.make_model(graph), ["v4999"])
    assert len(piece.graph.node) == 4999


def branching_model() -> onnx.ModelProto:
    """An If whose branches read values of the outer graph, initializers and Constants; and unused things."""

    def branch(name: str, captured: str) -> onnx.GraphProto:
        inner = helper.make_node("If", ["flag"], [f"{name}_i"], then_branch=leaf(captured), else_branch=leaf("half"))
        last = helper.make_node("Add", [f"{name}_i", "bias"], [f"{name}_out"])
        return helper.make_graph(
            [inner, last],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1, 3, 4, 4])],
        )

    def leaf(captured: str) -> onnx.GraphProto:
        node = helper.make_node("Mul", [captured, "two"], ["leaf"])
        return helper.make_graph(
            [node], "leaf", [], [helper.make_tensor_value_info("leaf", TensorProto.FLOAT, [1, 3, 4, 4])]
        )

    def constant(name: str, value: float) -> onnx.NodeProto:
        return helper.make_node(
            "Constant", [], [name], value=numpy_helper.from_array(np.full((1, 3, 4, 4), value, np.float32))
        )

    nodes = [
        constant("two", 2.0),
        constant("half", 0.5),
        constant("unused", 3.0),
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("If", ["flag"], ["chosen"], then_branch=branch("t", "a"), else_branch=branch("f", "n")),
        helper.make_node("Relu", ["chosen"], ["out"]),
    ]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4]),
                helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
                helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]),
            ],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.float32(7), "bias"), numpy_helper.from_array(np.float32(9), "spare")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )


def test_cut_at_a_value_of_unknown_type() -> None:
    """The rank of a Reshape to a computed shape is not inferred, but asked for by the checker."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Shape", ["c"], ["all"]),
        helper.make_node("Gather", ["all", "order"], ["same"]),
        helper.make_node("Reshape", ["c", "same"], ["r"]),
        helper.make_node("Relu", ["r"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "h", "w"])],
        [helper.make_empty_tensor_value_info("out")],
        [
            numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w"),
            numpy_helper.from_array(np.arange(4), "order"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    piece = cut(proto, ["r"])
    onnx.checker.check_model(piece)
    assert len(piece.graph.output[0].type.tensor_type.shape.dim) == 4
    assert run(piece, {"x": IMAGE})[0].shape == (2, 4, 30, 30)


def test_cut_follows_captures_of_subgraphs() -> None:
    proto = branching_model()
    piece = cut(proto, ["chosen"])
    onnx.checker.check_model(piece)
    made = [name for node in piece.graph.node for name in node.output]
    assert made == ["two", "half", "a", "n", "chosen"]
    assert [item.name for item in piece.graph.initializer] == ["bias"]
    assert [item.name for item in piece.graph.input] == ["x", "flag"]
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    for flag, expected in ((True, np.abs(x) * 2 + 7), (False, np.full_like(x, 8))):
        (made_by_piece,) = run(piece, {"x": x, "flag": np.array(flag)})
        assert np.allclose(made_by_piece, expected)


def test_names_are_given_out_once_and_counted_on() -> None:
    names = FreshNames(["Mul", "Mul_2", "Add_1"])
    assert [names.like("Mul") for _ in range(3)] == ["Mul_1", "Mul_3", "Mul_4"]
    assert [names.like("Add", {"Add"}), names.like("Add")] == ["Add_2", "Add_3"]
    asked = Counting()
    many = FreshNames([])
    for _ in range(100):
        many.like("x", asked)
    assert asked.questions < 300  # not 100 * 100 / 2: a mutant of 5,000 nodes of one kind took 30 s


class Counting:
    """Holds nothing, and counts how often it is asked."""

    def __init__(self) -> None:
        self.questions = 0

    def __contains__(self, name: object) -> bool:
        self.questions += 1
        return False
