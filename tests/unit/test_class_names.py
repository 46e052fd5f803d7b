"""Names of classes that the user gives: files of every form, how they win, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.errors import ModelError, UsageError
from fsagn_onnx.model import load_model
from fsagn_onnx.model.class_names import read_class_names
from fsagn_onnx.model.graph_labels import graph_labels
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.testing.graph_builder import GraphBuilder

MODELS = Path(__file__).resolve().parents[2] / "models"
DEMO = MODELS / "demo_cnn.onnx"


@pytest.fixture(scope="module")
def own() -> tuple[str, ...]:
    """The names in the demo CNN's file."""
    labels = load_model(DEMO).labels
    assert labels is not None
    return labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "\ufeffgood\r\nshort circuit\r\n\r\n"),
        ("names.json", json.dumps(["good", "short circuit"])),
        ("names.json", json.dumps({"1": "short circuit", "0": "good"})),
        ("names.json", json.dumps({"short circuit": 1, "good": 0})),
        ("names.json", json.dumps({"id2label": {"0": "good", "1": "short circuit"}})),
        ("names.json", json.dumps({"names": ["good", "short circuit"], "nc": 2})),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / name) == ("good", "short circuit")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("names.txt", "\n\n", "holds none"),
        ("names.json", "[1", "is not JSON"),
        ("names.json", '{"good": 0, "bad": 2}', "holds none"),
        ("names.json", '{"good": 0, "bad": 0}', "holds none"),
        ("names.json", "[" * 100_000, "is not JSON"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=said) as caught:
        read_class_names(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="no regular file"):
        read_class_names(tmp_path)


def test_names_win_over_the_files_own(tmp_path: Path, own: tuple[str, ...]) -> None:
    new = [f"kind {number}" for number in range(len(own))]
    (tmp_path / "names.txt").write_text("\n".join(new))
    described = {**load_model(DEMO).input_spec.to_dict(), "labels": list(reversed(new))}
    (tmp_path / "spec.json").write_text(json.dumps(described))
    assert load_model(DEMO, preprocess=tmp_path / "spec.json").labels == tuple(reversed(new))
    both = load_model(DEMO, preprocess=tmp_path / "spec.json", labels=tmp_path / "names.txt")
    assert both.labels == tuple(new)
    assert both.content == load_model(DEMO).content
    assert classes_of(both).number("kind 1") == 1
    assert classes_of(both).number("class 1") == 1
    with Explainer(MODELS / "demo_explainer.onnx", labels=new) as explainer:
        assert explainer.classes.names() == tuple(new)


def test_too_few_names_are_refused(own: tuple[str, ...]) -> None:
    few = own[:-1]
    with pytest.raises(UsageError, match=f"{len(few)} class names.*has {len(own)} classes"):
        classes_of(load_model(DEMO, labels=few))
    with pytest.raises(UsageError, match="class names"):
        Explainer(MODELS / "demo_explainer.onnx", labels=few)


def test_damaged_labels_of_a_preprocess_file(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps({"labels": {"good": "bad"}}))
    with pytest.raises(ModelError, match="'labels' must be a list of names"):
        load_model(DEMO, preprocess=tmp_path / "spec.json")


ML = "ai.onnx.ml"


def named_inside(path: Path, kind: str, given: dict[str, object]) -> tuple[str, ...] | None:
    """Labels of a classifier whose last node names the classes."""
    b = GraphBuilder()
    b.head(b.conv(b.conv("image", 3, 8), 8, 16), 16)
    if kind == "ZipMap":
        b.op(kind, b.op("Softmax", "logits"), domain=ML, out="named", **given)
    else:
        place = b.op("Cast", b.op("ArgMax", "logits", axis=1, keepdims=0), to=TensorProto.INT64)
        if kind == "LabelEncoder":
            b.op(kind, place, domain=ML, out="named", **given)
        else:
            b.weights.append(helper.make_tensor("texts", TensorProto.STRING, [10], given["texts"]))
            b.op(kind, "texts", place, domain="" if kind == "Gather" else ML, out="named")
    b.save(path, ["logits", "named"], domain=ML)
    proto = onnx.load(path)
    proto.opset_import[1].version = 3
    if kind == "ZipMap":
        item = onnx.TypeProto()
        item.map_type.key_type = TensorProto.STRING
        item.map_type.value_type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        proto.graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(item))
    else:
        proto.graph.output[1].type.tensor_type.elem_type = TensorProto.STRING
    onnx.save(proto, path)
    return load_model(path).labels


ANIMALS = [f"animal {letter}" for letter in "abcdefghij"]


@pytest.mark.parametrize(
    ("kind", "given", "labels"),
    [
        ("ZipMap", {"classlabels_strings": ANIMALS}, ANIMALS),
        ("ZipMap", {"classlabels_int64s": list(range(10, 20))}, [str(number) for number in range(10, 20)]),
        ("ZipMap", {"classlabels_int64s": list(range(10))}, None),
        ("LabelEncoder", {"keys_int64s": [*range(9, -1, -1)], "values_strings": ANIMALS}, ANIMALS[::-1]),
        ("LabelEncoder", {"keys_int64s": list(range(1, 11)), "values_strings": ANIMALS}, None),
        ("ArrayFeatureExtractor", {"texts": ANIMALS}, ANIMALS),
        ("Gather", {"texts": ANIMALS}, ANIMALS),
    ],
)
def test_names_in_the_graph_are_taken(tmp_path: Path, kind: str, given: dict[str, object], labels: object) -> None:
    found = named_inside(tmp_path / "m.onnx", kind, given)
    assert found == (tuple(labels) if isinstance(labels, list) else None)


def test_two_nodes_that_do_not_agree_name_nothing() -> None:
    nodes = [
        helper.make_node("ZipMap", ["p"], [f"z{n}"], domain=ML, classlabels_strings=[f"{n}a", f"{n}b"]) for n in (0, 1)
    ]
    assert graph_labels(helper.make_graph(nodes, "g", [], [])) is None
    assert graph_labels(helper.make_graph(nodes[:1], "g", [], [])) == ("0a", "0b")
