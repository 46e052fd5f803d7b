"""What a model answers: decided once from its graph, for every kind of output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.dissection.run import DissectRun
from fsagn_onnx.errors import ExplainerError, ModelError, UsageError
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import load_model
from fsagn_onnx.model.classifier import SCORES, Classifier, find_classifier, words
from fsagn_onnx.model.input_spec import InputSpec
from fsagn_onnx.perturbation.observations import require_classes
from fsagn_onnx.runtime import Explainer, FileEngine
from fsagn_onnx.runtime.classes import Classes, classes_in, classes_of
from fsagn_onnx.server import Settings
from fsagn_onnx.server.jobs import make_job, make_order
from fsagn_onnx.server.tensors import InferRequest, RequestError, Tensor
from fsagn_onnx.testing.planted import planted_model
from fsagn_onnx.testing.planted_explainer import planted_explainer, write_planted_explainer

SIDE = 32
SPEC = InputSpec.from_dict(
    {"name": "x", "layout": "NCHW", "color": "RGB", "size": [SIDE, SIDE], "scale": 1, "mean": [0, 0, 0],
     "std": [1, 1, 1], "resize": "stretch"}
)  # fmt: skip


class Net:
    """A small graph: a conv layer, pooled to ``v`` (N, 16), and what a test adds to it."""

    def __init__(self, batch: int | str = "N") -> None:
        self.batch = batch
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.op("Relu", self.op("Conv", "x", self.weight(16, 3, 3, 3), pads=[1] * 4, strides=[4, 4]), out="r")
        self.op("Flatten", self.op("GlobalAveragePool", "r"), out="v")

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def weight(self, *shape: int) -> str:
        return self.constant(np.full(shape, 0.01))

    def op(self, kind: str, *inputs: str, out: str = "", domain: str = "", **attributes: Any) -> str:
        name = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], domain=domain, **attributes))
        return name

    def dense(self, width: int, source: str = "v", inputs: int = 16) -> str:
        return self.op("Add", self.op("MatMul", source, self.weight(inputs, width)), self.weight(width))

    def output(self, value: str, name: str, shape: list[Any] | None, kind: int = TensorProto.FLOAT) -> Net:
        self.op("Identity", value, out=name)
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))
        return self

    def row(self, name: str, width: int, *after: str, **attributes: Any) -> Net:
        """A dense layer and what comes after it, as an output (N, width)."""
        value = self.dense(width)
        for kind in after:
            value = self.op(kind, value, **(attributes if "oftmax" in kind else {}))
        return self.output(value, name, [self.batch, width])

    def proto(self, opset: int = 17) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [self.batch, 3, SIDE, SIDE])
        graph = helper.make_graph(self.nodes, "g", [image], self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

    def classes(self, labels: tuple[str, ...] | None = None, opset: int = 17) -> Classes:
        return classes_in(self.proto(opset), SPEC, labels)

    def found(self, labels: tuple[str, ...] | None = None) -> tuple[str | None, str]:
        classifier = self.classes(labels).classifier
        return classifier.output, classifier.scores


TEN = tuple(f"kind {i}" for i in range(10))


@pytest.mark.parametrize(
    ("net", "labels", "expected"),
    [
        (Net().row("y", 10), None, ("y", "logits")),
        (Net().row("y", 10, "Softmax"), None, ("y", "probabilities")),
        (Net().row("y", 10, "Softmax", "Identity", "Dropout"), None, ("y", "probabilities")),
        (Net().row("y", 10, "LogSoftmax"), None, ("y", "log-probabilities")),
        (Net().row("y", 10, "Softmax", "Log"), None, ("y", "log-probabilities")),
        (Net().row("y", 1, "Sigmoid"), None, ("y", "sigmoid")),
        (Net().row("logit", 1), None, ("logit", "logit")),
        (Net().row("y", 1), ("defect",), ("y", "logit")),
        (Net().row("tags", 10, "Sigmoid"), None, ("tags", "labels")),
        (Net().row("y", 10, "Sigmoid"), TEN, ("y", "labels")),
        (Net().row("y", 10, "Relu"), TEN, ("y", "logits")),
        (Net().row("y", 2), ("mask", "no mask"), ("y", "logits")),
        (Net("N").row("boxes", 4).row("y", 10), TEN, ("y", "logits")),
        (Net().row("boxes", 4).row("face_probability", 2, "Softmax"), None, ("face_probability", "probabilities")),
        (Net().row("logits", 10).row("embedding", 16), None, ("logits", "logits")),
        (Net().row("logits", 10).row("aux_logits", 10), None, ("logits", "logits")),
        (Net(1).row("y", 10), None, ("y", "logits")),
    ],
)  # fmt: skip
def test_the_output_that_classifies(net: Net, labels: Any, expected: Any) -> None:
    assert net.found(labels) == expected


@pytest.mark.parametrize(
    ("net", "labels"),
    [
        (Net().row("landmarks", 20, "Sigmoid"), None),
        (Net().row("y", 20, "Sigmoid"), None),
        (Net().row("pred_boxes", 4), None),
        (Net().row("y", 4), ("x1", "y1", "x2", "y2")),
        (Net().row("age", 1), None),
        (Net().row("y", 1), None),
        (Net().row("logit", 1), ("age",)),
        (Net().row("alpha", 1, "Sigmoid"), None),
        (Net().row("fc1_embedding", 64), None),
        (Net().row("y", 64, "Tanh"), None),
        (Net().row("y", 10).row("z", 10), None),
        (Net().row("digit_0", 10, "Softmax").row("digit_1", 10, "Softmax"), None),
        (Net().output("v", "y", ["N", 16]), None),
        (Net().output("r", "map", ["N", 16, 8, 8]), None),
    ],
)  # fmt: skip
def test_no_class_is_better_than_an_invented_one(net: Net, labels: Any) -> None:
    classes = net.classes(labels)
    assert not classes
    assert classes.classifier.reason
    rows = np.full((2, 4), 0.5, np.float32)
    assert classes.predictions({"y": rows, "landmarks": rows, "age": rows}, 0) == ()
    assert classes.winners({"y": rows}) is None


def test_a_number_per_place_of_a_map_is_no_class() -> None:
    """64 anchors' scores, as BlazeFace and YuNet write them."""
    for act in ("Identity", "Sigmoid"):
        net = Net(1)
        scores = net.op("Conv", "r", net.weight(1, 16, 1, 1))
        flat = net.op(act, net.op("Reshape", scores, net.constant([1, 64, 1], np.int64)))
        net.output(flat, "scores", [1, 64, 1])
        assert net.found() == (None, "none")


def test_a_softmax_over_groups_is_none_over_classes() -> None:
    net = Net()
    pairs = net.op("Softmax", net.op("Reshape", net.dense(10), net.constant([0, 5, 2], np.int64)), axis=2)
    net.output(net.op("Reshape", pairs, net.constant([0, 10], np.int64)), "y", ["N", 10])
    assert net.found() == (None, "none")


def test_lists_of_what_was_found_are_no_classes() -> None:
    """The best scores of a detector, as EfficientNMS and TensorFlow give them, and a best score per query."""
    for kind in ("TopK", "ReduceMax"):
        net = Net()
        places = net.op("Reshape", net.op("Conv", "r", net.weight(4, 16, 1, 1)), net.constant([0, 64, 4], np.int64))
        scores = net.op("ReduceMax", net.op("Sigmoid", places), axes=[2], keepdims=0)
        if kind == "TopK":
            net.nodes.append(helper.make_node("TopK", [scores, net.constant([10], np.int64)], ["best", "places"]))
            scores = "best"
        net.output(scores, "scores", ["N", 10 if kind == "TopK" else 64])
        assert net.found() == (None, "none")


def test_a_softmax_over_places_is_none_over_classes() -> None:
    net = Net()
    places = net.op("Flatten", net.op("Conv", "r", net.weight(1, 16, 1, 1)))
    net.output(net.op("Softmax", places), "y", ["N", 64])
    assert net.found() == (None, "none")


def test_a_guess_is_said_to_be_one() -> None:
    assert Net().row("y", 10).classes().classifier.guessed
    for net, labels in (
        (Net().row("y", 10), TEN),
        (Net().row("logits", 10), None),
        (Net().row("y", 10, "Softmax"), None),
    ):
        assert not net.classes(labels).classifier.guessed
    assert not Net().row("y", 10).classes().chosen(scores="logits").classifier.guessed


def test_softmax_of_older_opsets_and_spelled_out() -> None:
    net = Net()
    wide = net.op("Softmax", net.op("Conv", net.op("GlobalAveragePool", "r"), net.weight(10, 16, 1, 1)), axis=1)
    net.output(wide, "y", ["N", 10, 1, 1])
    assert net.classes(opset=11).classifier.scores == "probabilities"
    net = Net()
    powers = net.op("Exp", net.dense(10))
    net.output(net.op("Div", powers, net.op("ReduceSum", powers, net.constant([1], np.int64))), "y", ["N", 10])
    assert net.found() == ("y", "probabilities")


def test_quantised_and_half_ends_are_followed() -> None:
    net = Net()
    one, zero = net.constant(1 / 255), net.constant(0, np.uint8)
    value = net.op("QuantizeLinear", net.op("Softmax", net.dense(10)), one, zero)
    value = net.op("Cast", net.op("DequantizeLinear", value, one, zero), to=TensorProto.FLOAT16)
    net.output(value, "y", ["N", 10], TensorProto.FLOAT16)
    assert net.found() == ("y", "probabilities")


def axes(net: Net) -> dict[str, int | None]:
    return {item.name: item.axis for item in net.classes().classifier.outputs}


def test_which_outputs_belong_to_the_images() -> None:
    net = Net().row("y", 10)
    net.output(net.op("ReduceMean", "y", keepdims=0), "score", [])
    net.output(net.op("Reshape", "score", net.constant([1], np.int64)), "one", [1])
    net.output(net.constant(np.ones((7, 4))), "anchors", [7, 4])
    step = net.op("Unsqueeze", "y", net.constant([0], np.int64))
    net.output(net.op("Concat", step, step, axis=0), "time", [2, "N", 10])
    boxes = net.op("Reshape", net.op("Conv", "r", net.weight(4, 16, 1, 1)), net.constant([-1, 4], np.int64))
    net.output(boxes, "boxes", ["K", 4])
    net.output(boxes, "lying", ["N", 4])
    places = net.op("NonZero", net.op("Greater", boxes, net.constant(0)))
    net.output(places, "found", ["N", "K"], TensorProto.INT64)
    assert axes(net) == {
        "y": 0, "score": None, "one": None, "anchors": None, "time": 1, "boxes": None, "lying": None, "found": None,
    }  # fmt: skip
    classifier = net.classes().classifier
    assert set(classifier.shared) == {"score", "one", "boxes", "lying", "found"}
    assert [item.name for item in classifier.outputs if item.constant] == ["anchors"]
    assert (classifier.output, classifier.scores) == ("y", "logits")


def test_a_batch_that_is_baked_in_is_one_image() -> None:
    net = Net()
    flat = net.op("Reshape", net.op("GlobalAveragePool", "r"), net.constant([1, 16], np.int64))
    net.output(net.dense(10, flat), "y", ["N", 10])
    assert net.found(TEN) == ("y", "logits")
    assert axes(net) == {"y": 0}


def test_sequences_and_maps_are_left_out_by_name() -> None:
    net = Net().row("logits", 3)
    net.op("ZipMap", net.op("Softmax", "logits"), out="prob", domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    net.outputs.append(helper.make_value_info("prob", helper.make_sequence_type_proto(entry)))
    classifier = net.classes().classifier
    assert classifier.left_out == ("prob",)
    assert classifier.output == "logits"


def read_as(scores: str, width: int, labels: tuple[str, ...] | None = None) -> Classes:
    return Classes(Classifier((), "y", scores, width, "a test"), labels)


def test_logits_in_0_1_are_no_probabilities() -> None:
    """Once read image by image: .99 was shown as 99 %, 1.01 as 73 %."""
    rows = {"y": np.float32([[0.2, 0.8], [0.2, 1.8]])}
    one, two = read_as("logits", 2).probabilities(rows)
    assert one[1] == pytest.approx(1 / (1 + np.exp(-0.6)))
    assert two[1] == pytest.approx(1 / (1 + np.exp(-1.6)))
    assert read_as("probabilities", 2).probabilities(rows)[0, 1] == pytest.approx(0.8)


@pytest.mark.parametrize(("scores", "values"), [("sigmoid", [0.3, 0.7]), ("logit", [-0.8473, 0.8473])])
def test_one_number_is_one_decision_everywhere(scores: str, values: list[float]) -> None:
    """Once class 0 for `explain` and `dissect`, class 1 for `perturb`."""
    classes, rows = read_as(scores, 1, ("defect",)), {"y": np.float32(values)[:, None]}
    assert classes.winners(rows).tolist() == [0, 1]
    assert classes.probabilities(rows).argmax(axis=1).tolist() == [0, 1]
    assert [classes.predictions(rows, n)[0].index for n in (0, 1)] == [0, 1]
    first, second = classes.predictions(rows, 1)
    assert (first.label, second.label) == ("defect", "not defect")
    assert first.score == pytest.approx(0.7, abs=1e-4)
    assert [classes.number(text) for text in ("defect", "not defect", "1", "0", "2")] == [1, 0, 1, 0, None]
    assert read_as(scores, 1, ("good", "bad")).names() == ("good", "bad")


def test_several_labels_and_log_probabilities() -> None:
    rows = {"y": np.float32([[0.9, 0.8, 0.1]])}
    found = read_as("labels", 3).predictions(rows, 0)
    assert [(answer.index, round(answer.score, 3)) for answer in found] == [(0, 0.9), (1, 0.8), (2, 0.1)]
    logs = {"y": np.log(np.float32([[0.7, 0.2, 0.1]]))}
    assert read_as("log-probabilities", 3).probabilities(logs)[0] == pytest.approx([0.7, 0.2, 0.1])


def test_numbers_and_names_are_the_same_class() -> None:
    classes = read_as("logits", 10, TEN)
    assert classes.number("3") == classes.number("Kind 3") == classes.number(" 3 ") == 3
    assert classes.number("10") is None
    assert classes.number("other") is None
    digits = read_as("logits", 3, ("7", "1", "0"))
    assert [digits.number(text) for text in ("7", "1", "0")] == [0, 1, 2]


def test_dissect_counts_numbers_and_names_as_one_class() -> None:
    run = object.__new__(DissectRun)
    run.classes = read_as("logits", 10, TEN)
    lines = [("3", None), ("kind 3", None), (None, 3), ("other", 3), (None, None)]
    found = [run._class_of({"label": label, "predicted": predicted}) for label, predicted in lines]
    assert found == ["kind 3", "kind 3", "kind 3", "other", None]
    run.classes = read_as("logits", 10)
    assert [run._class_of({"label": label, "predicted": 3}) for label in ("3", None)] == ["class 3", "class 3"]


def test_labels_of_something_else_name_nothing() -> None:
    rows = {"y": np.float32([[1, 2, 3]])}
    assert read_as("logits", 3, ("a", "b")).predictions(rows, 0)[0].label is None
    assert read_as("logits", 3, ("a", "b", "c")).predictions(rows, 0)[0].label == "c"


def test_rows_that_are_not_there_give_no_class() -> None:
    classes = read_as("logits", 3)
    for rows in (np.zeros((0, 3), np.float32), np.zeros((2, 0), np.float32), np.float32(1)):
        assert classes.predictions({"y": rows}, 0) == ()
    assert classes.predictions({}, 0) == ()


def test_the_user_has_the_last_word() -> None:
    classes = Net().row("boxes", 4).row("age", 1).row("y", 10).classes()
    assert not classes
    assert classes.chosen("y").classifier.scores == "logits"
    assert classes.chosen("y", "labels").classifier.scores == "labels"
    assert classes.chosen("age", "logit").count == 2
    assert not Net().row("logits", 10).classes().chosen(scores="none")
    assert classes.chosen() is classes


@pytest.mark.parametrize(
    ("output", "scores", "message"),
    [
        ("nothing", None, r"no output 'nothing'; outputs with a row of numbers per image: 'y', 'age'"),
        ("map", None, "output 'map' holds no row of numbers per image"),
        ("y", "logit", "output 'y' must be for 10 numbers per image"),
        ("age", "logits", "output 'age' must be logit or sigmoid: it has one number per image"),
        (None, "probability", f"scores must be one of {', '.join(SCORES)}, but got 'probability'"),
    ],
)
def test_what_cannot_be_is_refused(output: str | None, scores: str | None, message: str) -> None:
    classes = Net().row("y", 10).row("age", 1).output("r", "map", ["N", 16, 8, 8]).classes()
    with pytest.raises(UsageError, match=message):
        classes.chosen(output, scores)


def test_inspect_says_it_in_strict_json() -> None:
    document = Net().row("logits", 10).classes(TEN).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["output"], document["scores"], document["count"], document["named"]) == (
        "logits",
        "logits",
        10,
        True,
    )
    assert find_classifier((), None).reason == "no output holds a row of numbers per image (N, classes)"


def test_words_of_names() -> None:
    assert {"detection", "box", "score"} <= words("detection/BoxScores:0") | words("detection_boxes")
    assert "probability" in words("face_probabilities")
    assert words("x1") == {"x", "1"}


def with_odd_outputs(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A graph that also gives a number for all images, constant rows, and time before images, all out of a row."""
    graph = proto.graph
    graph.node.extend([
        helper.make_node("ReduceMax", [name], ["top_score"], keepdims=0),
        helper.make_node("Identity", ["anchor_rows"], ["anchors"]),
        helper.make_node("Unsqueeze", [name, "first"], ["step"]),
        helper.make_node("Concat", ["step", "step"], ["steps"], axis=0),
    ])  # fmt: skip
    graph.initializer.append(numpy_helper.from_array(np.ones((2, 4), np.float32), "anchor_rows"))
    graph.initializer.append(numpy_helper.from_array(np.int64([0]), "first"))
    for output in ("top_score", "anchors", "steps"):
        rank: list[Any] = {"top_score": [], "anchors": [2, 4], "steps": [2, "N", None]}[output]
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, rank))
    return proto


@pytest.mark.parametrize("explainer", [True, False])
def test_outputs_that_belong_to_no_image_are_left_alone(tmp_path: Path, explainer: bool) -> None:
    """Once an IndexError, and rows of one image shown for another."""
    proto = planted_explainer() if explainer else planted_model()
    plain, odd = tmp_path / "plain.onnx", tmp_path / "odd.onnx"
    onnx.save(proto, plain)
    onnx.save(with_odd_outputs(proto, "scores"), odd)
    pictures = [np.full((32, 32, 3), 40 * n, np.uint8) for n in range(3)]
    found = []
    for path in (plain, odd):
        engine = path if explainer else engine_for(load_model(path), method="activation", threads=1)
        with Explainer(engine, threads=1) as opened:
            found.append([explained.predictions for explained in opened.explain(pictures, "top:1")])
    assert found[0] == found[1]
    assert len(found[1]) == 3


def test_what_the_user_said_when_training_is_kept(tmp_path: Path) -> None:
    path = write_planted_explainer(tmp_path / "e.onnx", {"training": {"classes": {"output": None, "scores": "none"}}})
    with Explainer(path, threads=1) as opened:
        assert not opened.classes
        assert opened.explain(np.zeros((32, 32, 3), np.uint8))[0].predictions == ()
    path = write_planted_explainer(tmp_path / "e.onnx", {"training": {"classes": {"output": "nothing"}}})
    with pytest.raises(ExplainerError, match="classes: no output 'nothing'"):
        Explainer(path, threads=1)


def test_images_of_several_passes_do_not_share_one_number(tmp_path: Path) -> None:
    """A file for one image at a time cannot give one number for two images."""
    proto = with_odd_outputs(planted_explainer(), "scores")
    for value in (*proto.graph.input, *proto.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_param == "N":
            dims[0].dim_value = 1
    onnx.save(proto, tmp_path / "one.onnx")
    engine = FileEngine(tmp_path / "one.onnx", threads=1)
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    for count in (1, 2):
        tensor = Tensor("image", "UINT8", (count, 32, 32, 3), pictures[:count].ravel())
        if count == 1:
            order = make_order(InferRequest(inputs=[]), {"image": tensor}, engine, Settings())
            assert len(make_job(order, engine, Settings()).values) == 1
            continue
        with pytest.raises(RequestError, match="output 'top_score' belongs to all images of a pass together"):
            make_order(InferRequest(inputs=[]), {"image": tensor}, engine, Settings())
    engine.close()


def test_perturb_refuses_what_does_not_classify(tmp_path: Path) -> None:
    onnx.save(Net().row("boxes", 4).proto(), tmp_path / "boxes.onnx")
    model = load_model(tmp_path / "boxes.onnx")
    with pytest.raises(ModelError, match=r"perturb needs a classifier: 'boxes' \(its name says 'box'\)"):
        require_classes(model, classes_of(model))
    require_classes(model, classes_of(model, "boxes", "logits"))
