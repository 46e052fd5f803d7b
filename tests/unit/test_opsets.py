"""What is raised to a newer opset means what it meant: small graphs in onnxruntime before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.conversion import check_parity, convert
from fsagn_onnx.generator.variants import at_opset
from fsagn_onnx.model import load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder


@dataclass(frozen=True)
class Case:
    """A node over x, its constants behind it; None is a left-out input."""

    op: str
    opset: int
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[Any, ...] = ()
    shape: tuple[int, ...] = (2, 4, 7, 9)
    outputs: int = 1

    def __str__(self) -> str:
        shown = [np.asarray(c).ravel().tolist() for c in self.constants if c is not None and np.size(c) < 9]
        return f"{self.op}-{self.opset} {self.attributes or ''} {shown or ''}".replace("'", "")

    def proto(self, *, inside: bool = False) -> onnx.ModelProto:
        """The graph; with `inside`, nodes read what the node makes."""
        given = [(f"c{index}", value) for index, value in enumerate(self.constants)]
        names = ["x", *("" if value is None else name for name, value in given)]
        tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in given if value is not None]
        outputs = [f"y{index}" for index in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, name="node", **self.attributes)
        nodes = [node]
        if inside:
            nodes += [helper.make_node("Identity", [name], [f"{name}/read"]) for name in outputs]
            outputs = [f"{name}/read" for name in outputs]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            tensors,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=7)


def floats(*numbers: float) -> Any:
    return np.array(numbers, np.float32)


def ints(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


SCALES = [(1, 1, 2, 2), (1, 1, 1.5, 2.5), (1, 1, 0.5, 0.7), (1, 1, 2.3, 0.6)]


def sampling() -> Iterator[Case]:
    for mode in ("nearest", "linear"):
        for scales in SCALES:
            if min(scales) >= 1:
                yield Case("Upsample", 7, {"mode": mode, "scales": [float(s) for s in scales]})
                yield Case("Upsample", 9, {"mode": mode}, (floats(*scales),))
            yield Case("Resize", 10, {"mode": mode}, (floats(*scales),))
            for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
                given = {"mode": mode, "coordinate_transformation_mode": where}
                yield Case("Resize", 11, given, (floats(), floats(*scales)))
            yield Case("Resize", 13, {"mode": mode}, (None, floats(*scales)))


def over_axes() -> Iterator[Case]:
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for opset in (7, 11, 12):
            for axis in (0, 1, 2, 3):
                yield Case(op, opset, {"axis": axis})
            yield Case(op, opset)
        yield Case(op, 11, {"axis": -2})
    for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd", "ReduceLogSumExp"):
        yield Case(op, 7, {"axes": [2, 3], "keepdims": 0})
        yield Case(op, 11, {"axes": [-1]})
        yield Case(op, 12)
    for opset in (7, 11, 12):
        yield Case("Squeeze", opset, {"axes": [1]}, shape=(2, 1, 4, 1))
        yield Case("Squeeze", opset, shape=(2, 1, 4, 1))
        yield Case("Unsqueeze", opset, {"axes": [0, 3]})
        yield Case("Split", opset, {"axis": 1, "split": [1, 3]}, outputs=2)
        yield Case("Split", opset, {"axis": 1}, outputs=2)
        yield Case("Flatten", opset, {"axis": 2})
        yield Case("ArgMax", opset, {"axis": 1})
    yield Case("GroupNormalization", 18, {"num_groups": 2}, (floats(1, 2), floats(0.5, -1)))


def with_attributes_that_became_inputs() -> Iterator[Case]:
    for opset in (7, 10):
        yield Case("Clip", opset, {"min": -0.5, "max": 0.7})
        yield Case("Clip", opset, {"min": -0.5})
        for mode in ("constant", "reflect", "edge"):
            yield Case("Pad", opset, {"pads": [0, 0, 1, 2, 0, 0, 3, 1], "mode": mode})
        yield Case("Pad", opset, {"pads": [0, 0, 0, 1, 0, 0, 1, 2], "value": 0.3})
        yield Case("Dropout", opset, {"ratio": 0.5})
    yield Case("Clip", 7)
    yield Case("Clip", 11, {}, (None, np.float32(0.7)))
    yield Case("Pad", 7, {"pads": [0, 0, -1, 0, 0, 0, 1, -2]})
    yield Case("Pad", 11, {"mode": "constant"}, (ints(0, 0, 1, 2, 0, 0, 3, 1), np.float32(0.3)))
    yield Case("Slice", 7, {"starts": [1, -5], "ends": [6, 100], "axes": [2, 3]})
    yield Case("Slice", 9, {"starts": [0, 1], "ends": [1, 3]})
    yield Case("Slice", 10, {}, (ints(5, -1), ints(0, -100), ints(2, 3), ints(-1, -2)))
    yield Case("Dropout", 12, {}, (np.float32(0.5),))
    yield Case("TopK", 7, {"axis": 1, "k": 2}, outputs=2)
    yield Case("Scatter", 9, {"axis": 1}, (np.zeros((2, 1, 7, 9), np.int64), np.ones((2, 1, 7, 9), np.float32)))


def windows() -> Iterator[Case]:
    shapes: list[dict[str, Any]] = [{}, {"pads": [1] * 4}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}]
    for opset in (7, 10, 11):
        for shape in [*shapes, {"ceil_mode": 1}][: 5 if opset > 7 else 4]:
            given = {"kernel_shape": [3, 3], "strides": [2, 2], **shape}
            yield Case("MaxPool", opset, given)
            yield Case("AveragePool", opset, given)
            yield Case("AveragePool", opset, {**given, "count_include_pad": 1})
        parts = (floats(1, 2, 3, 4), floats(0.1, 0.2, 0.3, 0.4), floats(0, 1, 0, 1), floats(1, 2, 1, 0.5))
        yield Case("BatchNormalization", opset, {"epsilon": 1e-3}, parts)
        yield Case("LpPool", opset, {"kernel_shape": [2, 2]})


CASES = [*sampling(), *over_axes(), *with_attributes_that_became_inputs(), *windows()]


def answers(proto: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x}))


@pytest.mark.parametrize(("opset", "inside"), [(18, True), (21, False)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_raised_graph_computes_the_same(case: Case, opset: int, inside: bool) -> None:
    proto = case.proto(inside=inside)
    x = np.random.default_rng(0).normal(size=case.shape).astype(np.float32)
    raised = at_opset(proto, opset, "small.onnx")
    assert raised.opset_import[0].version == opset
    made = {name for node in raised.graph.node for name in node.output}
    assert made >= {name for node in proto.graph.node for name in node.output}
    assert [item.name for item in raised.graph.output] == [item.name for item in proto.graph.output]
    for before, after in zip(answers(proto, x), answers(raised, x), strict=True):
        assert before.shape == after.shape
        np.testing.assert_allclose(after, before, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 0.5, 0.5)])
@pytest.mark.parametrize("made", ["constant", "computed"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_an_old_resize_before_the_layer_is_converted_and_raised(
    tmp_path: Path, scales: tuple[float, ...], made: str, mode: str
) -> None:
    b = GraphBuilder()
    factors = b.constant(floats(*scales))
    if made == "computed":
        shape = b.op("Cast", b.op("Shape", "image"), to=TensorProto.FLOAT)
        factors = b.op("Div", b.op("Mul", shape, factors), shape)
    b.head(b.conv(b.conv(b.op("Resize", "image", factors, mode=mode), 3, 8), 8, 16), 16)
    model = load_model(b.save(tmp_path / "m.onnx", ["logits"], opset=10))
    assert check_parity(model, convert(model, [model.default_layer.value], check=False)).max_relative_error < 1e-5
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    raised, renamed = at_opset(model.proto, 18, "m.onnx"), onnx.ModelProto()
    renamed.CopyFrom(model.proto)
    for proto in (raised, renamed):
        proto.graph.node.insert(0, helper.make_node("Identity", ["x"], ["image"]))
        proto.graph.input[0].name = "x"
    if not (made == "computed" and mode == "nearest" and min(scales) < 1):  # then the proof refuses, see meaning.py
        np.testing.assert_allclose(answers(raised, x)[0], answers(renamed, x)[0], atol=1e-5)


def test_the_meaning_is_kept_inside_of_branches() -> None:
    def branch(name: str, axis: int) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Hardmax", ["x"], [f"{name}h"], axis=axis),
            helper.make_node("Upsample", [f"{name}h", "factors"], [name], mode="linear"),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    node = helper.make_node("If", ["yes"], ["y"], then_branch=branch("a", 2), else_branch=branch("b", 1))
    tensors = [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(floats(1, 1, 2, 2), "factors")]
    value: Callable[..., onnx.ValueInfoProto] = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [value("x", TensorProto.FLOAT, [1, 4, 6, 8])], [value("y", TensorProto.FLOAT, None)], tensors
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=7)
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 8)).astype(np.float32)
    np.testing.assert_allclose(answers(at_opset(proto, 18, "b.onnx"), x)[0], answers(proto, x)[0], atol=1e-6)
