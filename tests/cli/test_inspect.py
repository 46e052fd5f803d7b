"""`fsagn-onnx inspect`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fsagn_onnx.cli.inspect import command
from fsagn_onnx.errors import ExplainerError, FsagnError, ImageError, ModelError, UsageError
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import InputSpec, load_model
from fsagn_onnx.runtime.metadata import ExplainerMetadata
from fsagn_onnx.runtime.variant import Variant
from fsagn_onnx.terminal.inspection import print_inspection

DEMO_EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"


def network(*tail: onnx.NodeProto, domain: str = "", **metadata: str) -> onnx.ModelProto:
    """Two convs with Relu on (N, 3, 32, 32), and nodes from "block[1]" to "inner" between them."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w1", (8, 3, 3, 3)), ("w2", (1024, 8, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], strides=[2, 2]),
        helper.make_node("Relu", ["c1"], ["block[1]"]),
        *(tail or [helper.make_node("Identity", ["block[1]"], ["inner"])]),
        helper.make_node("Conv", ["inner", "w2"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["top"]),
        helper.make_node("GlobalAveragePool", ["top"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1024, 1, 1])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 3)] if domain else [])
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="a[b]test", producer_version="1")
    helper.set_model_props(proto, metadata)
    return proto


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def saved(proto: onnx.ModelProto) -> Path:
        onnx.save(proto, tmp_path / "net.onnx")
        return tmp_path / "net.onnx"

    return saved


@pytest.fixture
def path(save: Callable[[onnx.ModelProto], Path]) -> Path:
    return save(network())


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def document(*arguments: str | Path) -> dict[str, Any]:
    done = inspect(*arguments, "--json")
    assert done.exit_code == 0
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return found


def test_json(path: Path) -> None:
    found = document(path)
    assert found["kind"] == "model"
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 3, 32, 32]}]
    assert found["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["N", 1024, 1, 1]}]
    assert (found["opset"], found["producer"]) == (17, "a[b]test 1")
    assert found["content"] == load_model(path).content
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() != found["content"]
    assert found["input"]["size"] == [32, 32]
    assert "color order RGB" in found["guessed"]
    first, second = found["layers"]
    assert first == {
        "value": "block[1]",
        "op": "Conv+Relu",
        "conv": "c1",
        "channels": 8,
        "shape": [8, 15, 15],
        "stride": 2,
        "receptive_field": 3,
        "default": False,
        "reason": "",
        "dead": None,
    }
    assert (second["value"], second["default"]) == ("top", True)
    assert found["convertible"] is True
    assert found["unsupported"] == []
    assert found["parity"]["max_relative_error"] < 1e-4
    assert found["parity"]["worst_value"] == "top"
    assert found["parity"]["inputs"]
    assert found["warnings"] == []


def test_text(path: Path) -> None:
    done = inspect(path)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{path}  model"
    assert "input    x  float32 (N, 3, 32, 32)" in lines
    assert "made by  a[b]test 1" in lines
    expected = "NCHW RGB 32x32, stretch, (pixel - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]"
    assert f"expects  {expected}" in lines
    (guessed,) = (line for line in lines if line.startswith("guessed"))
    assert guessed.endswith("resize by stretching; correct it with --preprocess FILE:")
    table = [line.split() for line in lines if "Conv+" in line]
    assert table == [
        ["block[1]", "Conv+Relu", "8", "15x15", "2", "3", "px"],
        ["top", "Conv+Relu", "1,024", "13x13", "2", "7", "px", "default"],
    ]
    reason = "last conv layer with a spatial map (13x13); 1,024 filters; choose another with --layer VALUE"
    assert f"default      {reason}" in lines
    (line,) = [line for line in lines if line.startswith("convertible  yes; largest difference to onnxruntime")]
    assert "(allowed 1e-04: float32 sums in another order)" in line
    assert lines[-1] == f"next: fsagn-onnx train {path} IMAGES... --layer top --out explainer.onnx"
    assert not any(line != line.rstrip() for line in lines)


def test_the_printed_spec_is_a_preprocess_file(path: Path, tmp_path: Path) -> None:
    lines = inspect(path, "--no-convert").stdout.splitlines()
    spec = lines[next(index for index, line in enumerate(lines) if line.startswith("guessed")) + 1]
    file = tmp_path / "spec.json"
    file.write_text(spec.replace("RGB", "BGR"))
    found = document(path, "--no-convert", "--preprocess", file)
    assert found["input"]["color"] == "BGR"
    assert found["guessed"] == []


def test_no_convert(path: Path) -> None:
    found = document(path, "--no-convert")
    assert (found["convertible"], found["unsupported"], found["parity"]) == (None, [], None)
    assert "convertible  not tried" in inspect(path, "--no-convert").stdout


def test_own_description_and_labels(save: Callable[[onnx.ModelProto], Path]) -> None:
    spec = {
        "name": "x",
        "layout": "NCHW",
        "color": "RGB",
        "size": [32, 32],
        "scale": 1 / 255,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "resize": "letterbox:114",
    }
    labels = [f"class {index}" for index in range(1024)]
    path = save(network(fsagn_model=json.dumps({"input": spec, "labels": labels})))
    text = inspect(path, "--no-convert").stdout
    assert "guessed" not in text
    assert "expects  NCHW RGB 32x32, letterbox:114, (pixel * 0.00392157 - 0.5) / 0.25" in text
    assert "labels   1,024: class 0, class 1, class 2, class 3, class 4, ..." in text
    assert document(path, "--no-convert")["labels"] == labels


def test_unsupported_ops(save: Callable[[onnx.ModelProto], Path]) -> None:
    tail = [
        helper.make_node("Strange", ["block[1]"], ["s1"], "first", domain="my.ops"),
        helper.make_node("Strange", ["s1"], ["s2"], "second", domain="my.ops"),
        helper.make_node("Hardmax", ["s2"], ["inner"], "third"),
    ]
    proto = network(*tail, domain="my.ops")
    proto.graph.value_info.append(helper.make_tensor_value_info("s2", TensorProto.FLOAT, ["N", 8, 15, 15]))
    path = save(proto)
    found = document(path)
    assert found["convertible"] is False
    assert found["parity"] is None
    strange = next(item for item in found["unsupported"] if item["op"] == "Strange")
    assert strange == {"op": "Strange", "domain": "my.ops", "version": 3, "nodes": ["first", "second"]}
    lines = inspect(path).stdout.splitlines()
    assert any(line.startswith("convertible  no: ") for line in lines)
    assert "             my.ops.Strange version 3: 2 nodes (first, second)" in lines
    assert lines[-1] == f"next: fsagn-onnx explain {path} IMAGES... --layer top --out results"


def test_no_layer(save: Callable[[onnx.ModelProto], Path]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
    )
    path = save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    found = document(path)
    assert (found["layers"], found["convertible"], found["next"]) == ([], None, None)
    assert "no convolution at all" in found["warnings"][0]
    done = inspect(path)
    assert done.exit_code == 0
    assert "warning net.onnx has no layer that can be explained" in done.stdout


def test_layers_without_a_map_are_listed(save: Callable[[onnx.ModelProto], Path]) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Conv", ["p", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, 1, 1])],
        [numpy_helper.from_array(np.ones((5, 3, 1, 1), np.float32), "w")],
    )
    found = document(save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)))
    assert [(layer["value"], layer["reason"]) for layer in found["layers"]] == [("y", "no spatial map (1x1)")]
    assert (found["default_reason"], found["convertible"], found["next"]) == (None, None, None)
    assert "no conv layer of net.onnx has a spatial map" in found["warnings"][0]


METADATA = ExplainerMetadata(
    format=1,
    tool="fsagn-onnx 0.1.0",
    content="ab" * 32,
    layer="top",
    filters=1024,
    encoder="shared",
    input=InputSpec("x", "NCHW", "RGB", (32, 32), 1.0, (0.0,) * 3, (255.0,) * 3, "stretch"),
    labels=("a", "b"),
    areas=(0.05, 0.1),
    objective="budget",
    infills=("blur", "mean"),
    training={"pairs": 40000},
    quality={"inpaint": {"auc": 0.4}, "calibration": None},
)


def test_explainer(save: Callable[[onnx.ModelProto], Path]) -> None:
    path = save(network(fsagn=METADATA.to_json()))
    found = document(path)
    assert found["kind"] == "explainer"
    assert found["explainer"] == json.loads(METADATA.to_json())
    assert (found["layers"], found["convertible"], found["unsupported"], found["parity"]) == (
        [],
        None,
        [],
        None,
    )
    lines = inspect(path).stdout.splitlines()
    assert lines[0] == f"{path}  explainer"
    assert "explains   1,024 filters of 'top'" in lines
    assert "encoder    the model itself, predictions included" in lines
    assert "training   pairs 40000" in lines
    assert 'quality    inpaint {"auc": 0.4}' in lines
    assert "areas      0.05, 0.1" in lines
    assert lines[-1] == f"next: fsagn-onnx explain {path} IMAGES... --out results"
    with pytest.raises(UsageError, match="--preprocess: for plain models only"):
        inspect(path, "--preprocess", path)


@pytest.mark.parametrize(
    ("variant", "line"),
    [
        (Variant(filters=(7, 3)), "answers    filters 7, 3 only, in this order; no input 'filters'"),
        (Variant(filters=(7, 3), top=1), "answers    the strongest filters of 7, 3, 1 of them; no input 'filters'"),
        (Variant("int8", loss={"overlap": 0.84}), "computes   in int8; beside float32: overlap 0.84"),
        (
            Variant(preprocessing=True),
            "expects    uint8 RGB pictures (N, H, W, 3) of any size; it makes of them: NCHW ",
        ),
    ],
)
def test_variants_say_what_they_are(variant: Variant, line: str, save: Callable[[onnx.ModelProto], Path]) -> None:
    path = save(network(fsagn=dataclasses.replace(METADATA, variant=variant).to_json()))
    assert any(found.startswith(line) for found in inspect(path).stdout.splitlines())


def test_newer_explainer(save: Callable[[onnx.ModelProto], Path]) -> None:
    text = METADATA.to_json().replace('"format": 1', '"format": 99')
    with pytest.raises(ExplainerError, match="format 99"):
        inspect(save(network(fsagn=text)))


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_errors_are_ours(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    for arguments in ([path], [path, "--json"]):
        with pytest.raises(ModelError, match=r"bad\.onnx") as caught:
            inspect(*arguments)
        assert isinstance(caught.value, FsagnError)
        assert "\n" not in str(caught.value)


def test_dead_filters(save: Callable[[onnx.ModelProto], Path], tmp_path: Path) -> None:
    """Filter 0 never exceeds 0, filter 1 never changes; a broken image is listed, and the rest goes on."""
    proto = network()
    weight = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight[:2] = 0
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, *[0] * 6], np.float32), "b1"))
    proto.graph.node[0].input.append("b1")
    path = save(proto)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(picture).save(images / f"{number}.png")
    found = document(path, "--no-convert", "--images", images)
    assert found["images"] == 6
    assert found["layers"][0]["dead"] == [0, 1]
    assert isinstance(found["layers"][1]["dead"], list)
    text = inspect(path, "--no-convert", "--images", images).stdout.splitlines()
    assert next(line for line in text if "block[1]" in line).endswith("2 (25%)")
    assert "dead         filters that never exceed 0 or never change in 6 images" in text
    (images / "broken.png").write_bytes(b"no picture")
    done = inspect(path, "--no-convert", "--images", images, "--json")
    assert done.exit_code == 3
    assert [Path(failure["path"]).name for failure in json.loads(done.stdout)["failures"]] == ["broken.png"]
    assert done.stderr.startswith("failed: ")
    with pytest.raises(ImageError, match="no image could be read"):
        inspect(path, "--images", images / "broken.png")


def test_names_cannot_write_to_the_terminal(save: Callable[[onnx.ModelProto], Path]) -> None:
    proto = network()
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = name.replace("top", "\x1b[31mtop\n[bold]")
    done = inspect(save(proto), "--no-convert")
    assert "\x1b" not in done.stdout
    assert "[bold]" in done.stdout


def test_on_a_terminal(path: Path) -> None:
    import io

    from rich.console import Console

    screen = io.StringIO()
    print_inspection(inspect_file(path, conversion=False), Console(file=screen, force_terminal=True, width=60))
    assert "\x1b[" in screen.getvalue()
    assert "block[1]" in screen.getvalue()


def test_without_the_training_extra(path: Path, without_torch: Callable[..., Any]) -> None:
    done = without_torch("inspect", path)
    assert done.returncode == 0, done.stderr
    assert "pip install 'fsagn-onnx[train]'" in done.stdout
    assert "convertible  not tried: needs " in done.stdout
    assert done.stderr == ""


def test_an_explainer_with_a_broken_tensor_is_one_line(tmp_path: Path) -> None:
    proto = onnx.load(DEMO_EXPLAINER)
    broken = next(item for item in proto.graph.initializer if item.name == "val_82")
    broken.raw_data = broken.raw_data[:4]
    onnx.save(proto, tmp_path / "e.onnx")
    with pytest.raises(ModelError, match="the tensor 'val_82' is broken: "):
        inspect_file(tmp_path / "e.onnx")
