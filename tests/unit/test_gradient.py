"""Gradients written as ONNX nodes: against finite differences, against the formulas, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from fsagn_onnx.errors import GradientError
from fsagn_onnx.gradient import add_contributions, add_decision, add_gradients, missing_rules
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.model.classifier import Classifier
from fsagn_onnx.model.inference_session import inference_session
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.testing.graph_builder import GraphBuilder

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng


class Case:
    """One node, of float64 where onnx allows it: the first inputs are differentiated, the rest are constants."""

    def __init__(
        self, op: str, *inputs: Array, by: int = 1, outputs: int = 1, shown: int = 9, opset: int = 18, **attributes: Any
    ) -> None:
        self.op, self.inputs, self.by, self.opset = op, inputs, by, opset
        self.outputs, self.shown, self.attributes = outputs, shown, attributes
        self.type = helper.np_dtype_to_tensor_dtype(inputs[0].dtype)

    def proto(self) -> onnx.ModelProto:
        names = [f"x{index}" if value is not None else "" for index, value in enumerate(self.inputs)]
        made = [f"y{index}" for index in range(self.outputs)]
        nodes = [helper.make_node(self.op, names, made, **self.attributes)]
        given = [value for value in zip(names, self.inputs, strict=True) if value[1] is not None]
        free = [
            helper.make_tensor_value_info(name, self.type, ["N", *value.shape[1:]]) for name, value in given[: self.by]
        ]
        constants = [numpy_helper.from_array(value, name) for name, value in given[self.by :]]
        results = [helper.make_tensor_value_info(name, self.type, None) for name in made[: self.shown]]
        graph = helper.make_graph(nodes, "case", free, results, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)


def opened(proto: onnx.ModelProto) -> Callable[[dict[str, Array]], list[Array]]:
    """The graph in onnxruntime; in onnx's own evaluator where that has no kernel for float64."""
    try:
        session = inference_session(proto, threads=1)
    except NotImplemented:
        return lambda feeds: ReferenceEvaluator(proto).run(None, feeds)
    return lambda feeds: session.run(None, feeds)


def difference(case: Case) -> float:
    """Largest difference between written gradients and central differences, over the largest gradient."""
    proto = case.proto()
    feeds = {f"x{index}": case.inputs[index] for index in range(case.by)}
    run = opened(proto)
    before = run(feeds)
    weights = [RNG(1000 + index).normal(size=value.shape).astype(value.dtype) for index, value in enumerate(before)]

    def total(values: dict[str, Array]) -> float:
        return sum(float((w * y).sum()) for w, y in zip(weights, run(values), strict=True))

    written = onnx.ModelProto()
    written.CopyFrom(proto)
    names = {}
    for index, weight in enumerate(weights):
        written.graph.initializer.append(numpy_helper.from_array(weight, f"weight{index}"))
        names[f"y{index}"] = f"weight{index}"
    made = add_gradients(written, names, list(feeds))
    del written.graph.output[:]
    written.graph.output.extend(helper.make_tensor_value_info(made[name], case.type, None) for name in feeds)
    got = opened(written)(feeds)
    worst, largest, step = 0.0, 1e-6, 1e-6 if case.type == TensorProto.DOUBLE else 1e-2
    for name, gradient in zip(feeds, got, strict=True):
        assert gradient.shape == feeds[name].shape
        for place in RNG(7).permutation(feeds[name].size)[:40]:
            moved = [feeds[name].copy(), feeds[name].copy()]
            moved[0].flat[place] += step
            moved[1].flat[place] -= step
            slope = (total({**feeds, name: moved[0]}) - total({**feeds, name: moved[1]})) / (2 * step)
            worst = max(worst, abs(slope - gradient.flat[place]))
            largest = max(largest, abs(slope))
    return worst / largest


def normal(*shape: int, seed: int = 0) -> Array:
    return RNG(seed).normal(size=shape)


def single(*shape: int, seed: int = 0) -> Array:
    """For ops that onnxruntime has in float32 alone, or computes with less than float64."""
    return RNG(seed).normal(size=shape).astype(np.float32)


def positive(*shape: int, seed: int = 0) -> Array:
    return RNG(seed).uniform(0.5, 2, size=shape)


def single_positive(*shape: int, seed: int = 0) -> Array:
    return positive(*shape, seed=seed).astype(np.float32)


def apart(*shape: int, seed: int = 0) -> Array:
    """Numbers no two of which are near each other."""
    return RNG(seed).permutation(int(np.prod(shape))).reshape(shape).astype(np.float64) / 7 - 1.3


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


FUNCTIONS: dict[str, dict[str, Any]] = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.3}, "ThresholdedRelu": {"alpha": 0.4}, "Sigmoid": {}, "Tanh": {},
    "Elu": {"alpha": 0.7}, "Selu": {}, "HardSigmoid": {"alpha": 0.25}, "HardSwish": {}, "Softplus": {}, "Softsign": {},
    "Mish": {}, "Exp": {}, "Abs": {}, "Neg": {}, "Sin": {}, "Cos": {}, "Atan": {}, "Dropout": {},
    "Identity": {},
}  # fmt: skip

CASES: dict[str, Callable[[], Case]] = {
    **{
        name: lambda name=name, given=given: Case(name, normal(2, 3, 4), opset=20, **given)
        for name, given in FUNCTIONS.items()
    },
    **{name: lambda name=name: Case(name, single(2, 3, 4), opset=20) for name in ("Erf", "Gelu")},
    "Celu": lambda: Case("Celu", single(2, 3, 4), alpha=0.6),
    "Gelu tanh": lambda: Case("Gelu", normal(2, 3, 4), opset=20, approximate="tanh"),
    "Swish": lambda: Case("Swish", normal(2, 3, 4), opset=24, alpha=0.8),
    "Log": lambda: Case("Log", positive(2, 3, 4)),
    "Sqrt": lambda: Case("Sqrt", positive(2, 3, 4)),
    "Reciprocal": lambda: Case("Reciprocal", positive(2, 3, 4)),
    "Clip": lambda: Case("Clip", normal(2, 3, 4), np.array(-0.5), np.array(0.7)),
    "Clip, one side": lambda: Case("Clip", normal(2, 3, 4), np.array(-0.5)),
    "PRelu": lambda: Case("PRelu", normal(2, 3, 4), positive(3, 1)),
    "Cast": lambda: Case("Cast", normal(2, 3, 4), to=TensorProto.DOUBLE),
    **{
        name: lambda name=name: Case(name, RNG(0).uniform(-0.8, 0.8, (2, 5)).astype(np.float32))
        for name in (
            "Tan",
            "Asin",
            "Acos",
            "Sinh",
            "Cosh",
        )
    },
    "Attention": lambda: Case(
        "Attention",
        single(2, 2, 3, 4),
        single(2, 2, 5, 4, seed=1),
        single(2, 2, 5, 4, seed=2),
        single(3, 5, seed=3),
        by=3,
        opset=23,
    ),
    # several numbers, spread
    "Add": lambda: Case("Add", normal(2, 3, 4), normal(2, 1, 4, seed=1), by=2),
    "Add to a map": lambda: Case("Add", normal(2, 3, 4, 4), normal(2, 3, 1, 1, seed=1), by=2),
    "Sub": lambda: Case("Sub", normal(2, 1, 4), normal(2, 3, 4, seed=1), by=2),
    "Mul": lambda: Case("Mul", normal(2, 3, 4), normal(2, 1, 1, seed=1), by=2),
    "Div": lambda: Case("Div", normal(2, 3, 4), positive(2, 1, 4, seed=1), by=2),
    "Pow": lambda: Case("Pow", positive(2, 3, 4), positive(2, 3, 1, seed=1), by=2),
    "Square": lambda: Case("Pow", normal(2, 3, 4), np.array(2.0)),
    "Cube": lambda: Case("Pow", normal(2, 3, 4), np.array(3.0)),
    "Max": lambda: Case("Max", normal(2, 3, 4), normal(2, 3, 1, seed=1), by=2),
    "Min of three": lambda: Case("Min", normal(2, 3), normal(2, 3, seed=1), normal(2, 3, seed=2), by=3),
    "Sum": lambda: Case("Sum", normal(2, 3), normal(2, 3, seed=1), by=2),
    "Mean": lambda: Case("Mean", normal(2, 3), normal(2, 1, seed=1), by=2),
    # products
    "Gemm": lambda: Case("Gemm", normal(2, 3), normal(3, 5), normal(5), alpha=0.5, beta=2.0),
    "Gemm, turned": lambda: Case("Gemm", normal(2, 3), normal(5, 3), transB=1),
    "MatMul": lambda: Case("MatMul", normal(2, 4, 3), normal(3, 5)),
    "MatMul of two": lambda: Case("MatMul", normal(2, 3, 4, 5), normal(2, 1, 5, 6, seed=1), by=2),
    "MatMul by a vector": lambda: Case("MatMul", normal(2, 4, 3), normal(3)),
    "Einsum": lambda: Case("Einsum", normal(2, 3, 4), normal(2, 4, 5, seed=1), by=2, equation="nij,njk->nik"),
    "Einsum that sums": lambda: Case("Einsum", normal(2, 3, 4), normal(2, 5, seed=1), by=2, equation="nij,nk->nk"),
    # norms
    "BatchNormalization": lambda: Case(
        "BatchNormalization", normal(2, 3, 4, 4), positive(3), normal(3), normal(3, seed=1), positive(3, seed=2)
    ),
    "InstanceNormalization": lambda: Case("InstanceNormalization", single(2, 3, 4, 4), single_positive(3), single(3)),
    "LayerNormalization": lambda: Case("LayerNormalization", normal(2, 3, 4), positive(3, 4), normal(3, 4), axis=1),
    "GroupNormalization": lambda: Case(
        "GroupNormalization", single(2, 6, 4, 4), single_positive(6), single(6), num_groups=3, opset=21
    ),
    "RMSNormalization": lambda: Case("RMSNormalization", normal(2, 3, 4), positive(4), opset=23),
    "LpNormalization": lambda: Case("LpNormalization", single(2, 3, 4), axis=1),
    "LpNormalization by 1": lambda: Case("LpNormalization", normal(2, 3, 4), axis=1, p=1),
    "MeanVarianceNormalization": lambda: Case("MeanVarianceNormalization", single(2, 3, 4, 4), axes=[2, 3]),
    "LRN": lambda: Case("LRN", single(2, 6, 3, 3), size=3, alpha=0.5, beta=0.6, bias=1.5),
    # reductions
    **{
        f"{name} {axes}": lambda name=name, axes=axes: Case(
            name, positive(2, 3, 4), ints(*axes), keepdims=len(axes) % 2
        )
        for name in (
            "ReduceSum",
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceProd",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSum",
            "ReduceLogSumExp",
        )
        for axes in ((1,), (-1, 1))
    },
    "Softmax": lambda: Case("Softmax", normal(2, 3, 4), axis=1),
    "LogSoftmax": lambda: Case("LogSoftmax", normal(2, 3, 4), axis=-1),
    # form
    "Reshape": lambda: Case("Reshape", normal(2, 3, 4), ints(0, 2, -1)),
    "Flatten": lambda: Case("Flatten", normal(2, 3, 4)),
    "Squeeze": lambda: Case("Squeeze", normal(2, 3, 1), ints(2)),
    "Unsqueeze": lambda: Case("Unsqueeze", normal(2, 3), ints(0, 3)),
    "Transpose": lambda: Case("Transpose", normal(2, 3, 4, 5), perm=[2, 0, 3, 1]),
    "Expand": lambda: Case("Expand", normal(2, 1, 4), ints(5, 1, 3, 1)),
    "Tile": lambda: Case("Tile", normal(2, 3, 4), ints(1, 3, 2)),
    "Concat": lambda: Case("Concat", normal(2, 3, 4), normal(2, 5, 4, seed=1), by=2, axis=1),
    "Split": lambda: Case("Split", normal(2, 6, 2), ints(1, 3, 2), axis=1, outputs=3),
    "Slice": lambda: Case("Slice", normal(2, 6, 5), ints(1, -4), ints(5, 2**31), ints(1, 2)),
    "Slice by steps": lambda: Case("Slice", normal(2, 6, 5), ints(1, 4), ints(6, -6), ints(1, 2), ints(2, -1)),
    "Gather": lambda: Case("Gather", normal(2, 6, 3), ints(1, 4, 1), axis=1),
    "Gather one": lambda: Case("Gather", normal(2, 6, 3), np.array(-2, dtype=np.int64), axis=1),
    "Gather a turn": lambda: Case("Gather", normal(2, 4, 3), ints(2, 0, 3, 1), axis=1),
    "GatherElements": lambda: Case(
        "GatherElements", normal(2, 4, 3), np.array([[[1, 1, 0]], [[2, 3, 2]]], dtype=np.int64), axis=1
    ),
    "DepthToSpace": lambda: Case("DepthToSpace", normal(2, 8, 2, 3), blocksize=2),
    "DepthToSpace CRD": lambda: Case("DepthToSpace", normal(2, 8, 2, 3), blocksize=2, mode="CRD"),
    "SpaceToDepth": lambda: Case("SpaceToDepth", normal(2, 2, 4, 6), blocksize=2),
    "Pad": lambda: Case("Pad", normal(2, 3, 4), ints(0, 1, 0, 0, 0, 3)),
    "Pad, cut": lambda: Case("Pad", normal(2, 3, 4), ints(0, -1, 0, 0, 0, 3)),
    **{
        f"Pad {mode}": lambda mode=mode: Case("Pad", normal(2, 1, 4, 5), ints(0, 0, 2, 1, 0, 0, 1, 3), mode=mode)
        for mode in ("reflect", "edge")
    },
    "Pad of axes": lambda: Case("Pad", normal(2, 3, 4), ints(1, 2), np.array(0.0), ints(2)),
    "GatherND": lambda: Case("GatherND", normal(2, 4, 3), np.array([[0, 1], [1, 3], [0, 1]])),
    "ScatterND": lambda: Case("ScatterND", normal(2, 4, 3), np.array([[0, 1], [1, 3]]), normal(2, 3, seed=1)),
    "ScatterElements": lambda: Case(
        "ScatterElements", normal(2, 4), np.array([[1, 3], [0, 2]]), normal(2, 2, seed=1), axis=1
    ),
    "TopK": lambda: Case("TopK", apart(2, 6), ints(3), axis=1, outputs=2, shown=1),
    "CumSum": lambda: Case("CumSum", normal(2, 6), np.array(1), exclusive=1),
    "Trilu": lambda: Case("Trilu", normal(2, 4, 4), np.array(1)),
    # sizes
    **{
        f"Resize {mode} {place} {size}": lambda mode=mode, place=place, size=size: Case(
            "Resize",
            single(2, 2, 4, 5),
            None,
            None,
            ints(*size),
            axes=[2, 3],
            mode=mode,
            coordinate_transformation_mode=place,
        )
        for mode in ("nearest", "linear", "cubic")
        for place in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric")
        for size in ((8, 10), (3, 7))
    },
    **{
        f"Resize nearest {way}": lambda way=way: Case(
            "Resize", single(2, 2, 4, 5), None, np.array([1, 1, 1.7, 0.6], np.float32), nearest_mode=way
        )
        for way in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    },
    "Resize cubic, outside left out": lambda: Case(
        "Resize", single(2, 2, 4, 5), None, np.array([1, 1, 1.7, 2], np.float32), mode="cubic", exclude_outside=1
    ),
    "Resize of axes": lambda: Case(
        "Resize", single(2, 2, 4, 5), None, np.array([2, 3], np.float32), axes=[2, 3], mode="linear"
    ),
    # convolutions
    "Conv": lambda: Case("Conv", normal(2, 3, 6, 5), normal(4, 3, 3, 2), pads=[1, 0, 1, 1]),
    "Conv of a point": lambda: Case("Conv", normal(2, 3, 3, 4), normal(5, 3, 1, 1), normal(5)),
    "Conv by steps": lambda: Case("Conv", normal(2, 3, 7, 8), normal(4, 3, 3, 3), strides=[2, 3], pads=[0, 0, 1, 1]),
    "Conv of a point by steps": lambda: Case("Conv", normal(2, 3, 8, 7), normal(4, 3, 1, 1), strides=[2, 2]),
    "Conv, dilated": lambda: Case("Conv", normal(2, 3, 9, 9), normal(4, 3, 3, 3), dilations=[2, 3], pads=[1, 2, 2, 3]),
    "Conv in groups": lambda: Case("Conv", normal(2, 6, 5, 5), normal(4, 3, 3, 3), group=2, pads=[1] * 4),
    "Conv in groups by steps": lambda: Case("Conv", single(2, 6, 5, 6), single(4, 3, 3, 3), group=2, strides=[2, 2]),
    "Conv, depthwise": lambda: Case("Conv", normal(2, 3, 5, 5), normal(3, 1, 3, 3), group=3, pads=[1] * 4),
    **{
        f"Conv, depthwise by steps {size} {kernel} {pads}": lambda size=size, kernel=kernel, pads=pads: Case(
            "Conv", normal(2, 3, size, size), normal(3, 1, kernel, kernel), group=3, strides=[2, 2], pads=pads
        )
        for size in (7, 8)
        for kernel, pads in ((3, [1, 1, 1, 1]), (5, [1, 2, 2, 2]), (2, [0, 0, 0, 0]), (3, [0, 0, 1, 1]))
    },
    "Conv, depth multiplied": lambda: Case("Conv", normal(2, 3, 5, 5), normal(6, 1, 3, 3), group=3, pads=[1] * 4),
    "Conv, SAME_UPPER": lambda: Case(
        "Conv", normal(2, 3, 8, 7), normal(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "Conv, SAME_LOWER": lambda: Case(
        "Conv", normal(2, 3, 8, 7), normal(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER"
    ),
    "Conv, wide pads": lambda: Case("Conv", normal(2, 3, 3, 3), normal(4, 3, 2, 2), pads=[2, 3, 2, 2]),
    "Conv of a line": lambda: Case("Conv", normal(2, 3, 9), normal(4, 3, 3), strides=[2], pads=[1, 0]),
    "Conv of a volume": lambda: Case("Conv", normal(2, 2, 4, 4, 3), normal(3, 2, 2, 3, 2), strides=[1, 2, 1]),
    "ConvTranspose": lambda: Case(
        "ConvTranspose", normal(2, 3, 4, 5), normal(3, 2, 3, 3), strides=[2, 2], pads=[1] * 4
    ),
    "ConvTranspose, more": lambda: Case(
        "ConvTranspose",
        single(2, 4, 3, 3),
        single(4, 2, 3, 3),
        group=2,
        strides=[2, 2],
        output_padding=[1, 1],
        pads=[0, 1, 0, 1],
    ),
    "ConvTranspose, SAME": lambda: Case(
        "ConvTranspose", normal(2, 3, 4, 4), normal(3, 2, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    # pooling
    "GlobalAveragePool": lambda: Case("GlobalAveragePool", normal(2, 3, 4, 5)),
    "GlobalMaxPool": lambda: Case("GlobalMaxPool", apart(2, 3, 4, 5)),
    "GlobalLpPool": lambda: Case("GlobalLpPool", single(2, 3, 4, 5)),
    "GlobalLpPool of 3": lambda: Case("GlobalLpPool", single(2, 3, 4, 5), p=3),
    "MaxPool": lambda: Case("MaxPool", apart(2, 3, 6, 6), kernel_shape=[2, 2], strides=[2, 2]),
    "MaxPool, overlapping": lambda: Case(
        "MaxPool", apart(2, 3, 7, 6), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    ),
    "MaxPool, ceil": lambda: Case("MaxPool", apart(2, 3, 7, 6), kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1),
    "MaxPool of a line": lambda: Case("MaxPool", apart(2, 3, 9), kernel_shape=[3], strides=[1]),
    "AveragePool": lambda: Case("AveragePool", normal(2, 3, 6, 7), kernel_shape=[2, 3], strides=[2, 2]),
    **{
        f"AveragePool {counted} {ceil}": lambda counted=counted, ceil=ceil: Case(
            "AveragePool",
            normal(2, 3, 6, 7),
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 0, 0, 1],
            count_include_pad=counted,
            ceil_mode=ceil,
            opset=19,
        )
        for counted in (0, 1)
        for ceil in (0, 1)
    },
    "AveragePool, SAME": lambda: Case(
        "AveragePool", normal(2, 3, 6, 7), kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "AveragePool of a volume": lambda: Case("AveragePool", normal(2, 2, 4, 4, 3), kernel_shape=[2, 2, 2]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_agrees_with_finite_differences(name: str) -> None:
    case = CASES[name]()
    assert difference(case) < (1e-6 if case.inputs[0].dtype == np.float64 else 2e-3)


def tail(kind: str, path: Path) -> Path:
    """A small classifier: two convolutions, pooling, and a dense layer that ends as `kind` says."""
    graph = GraphBuilder()
    head = graph.head(graph.conv(graph.conv("image", 3, 8), 8, 12), 12, out="logits" if kind == "logits" else "dense")
    out = {"logits": "", "probabilities": "Softmax", "log-probabilities": "LogSoftmax", "labels": "Sigmoid"}[kind]
    if out:
        graph.op(out, head, out="scores")
    return graph.save(path, ["scores" if out else "logits"])


def asked(model: Model, ids: Array, values: Array) -> dict[str, Array]:
    """What the graph with the contributions of the default layer answers."""
    proto, classifier = onnx.ModelProto(), classes_of(model).classifier
    proto.CopyFrom(model.proto)
    proto.graph.input.append(helper.make_tensor_value_info("classes", TensorProto.INT64, ["N", "J"]))
    layer = model.default_layer.value
    made = add_contributions(proto, classifier, layer, "classes")
    names = {field: getattr(made, field) for field in ("class_ids", "decision", "gradient", "phi", "support")}
    names |= {"layer": layer, "scores": str(classifier.output)}
    del proto.graph.output[:]
    for name in names.values():
        kind = TensorProto.INT64 if name == made.class_ids else TensorProto.FLOAT
        proto.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    got = opened(proto)({"image": values, "classes": ids})
    return dict(zip(names, got, strict=True))


@pytest.mark.parametrize("kind", ["logits", "probabilities", "log-probabilities", "labels"])
def test_decisions_of_the_graph_are_those_of_the_host(kind: str, tmp_path: Path) -> None:
    model = load_model(tail(kind, tmp_path / "model.onnx"))
    classes = classes_of(model)
    assert classes.classifier.scores == kind
    values = RNG(3).normal(size=(3, 3, 32, 32)).astype(np.float32)
    got = asked(model, np.array([[-1, 4, -1], [2, -1, -1], [-1, -1, 9]]), values)
    scores = {str(classes.classifier.output): got["scores"]}
    expected = classes.decisions(scores)
    assert expected is not None
    assert np.allclose(np.take_along_axis(expected, got["class_ids"], 1), got["decision"], rtol=1e-3, atol=1e-3)
    order = np.argsort(-got["scores"], axis=1)
    assert (got["class_ids"][0, 1], got["class_ids"][1, 0]) == (4, 2)
    for row, known in zip(range(3), ({4}, {2}, {9}), strict=True):
        free = [c for c in order[row] if c not in known]
        assert [c for c in got["class_ids"][row] if c not in known] == free[:2]


def test_contributions_of_a_linear_tail_add_up_to_the_decision(tmp_path: Path) -> None:
    """But for the bias, which is 0 here: of a logit; of log-odds they are the gradient times the map."""
    model = load_model(tail("labels", tmp_path / "model.onnx"))
    got = asked(model, np.array([[-1, 3]] * 2), RNG(3).normal(size=(2, 3, 32, 32)).astype(np.float32))
    assert np.allclose(got["phi"].sum(2), got["decision"], atol=1e-4)
    assert np.allclose(got["support"][..., 0], np.maximum(got["phi"], 0).sum(2), atol=1e-4)
    assert np.allclose(got["support"][..., 1], np.minimum(got["phi"], 0).sum(2), atol=1e-4)
    assert got["gradient"].shape == (4, 12, 1, 1)


def test_a_missing_rule_is_refused_by_name(tmp_path: Path) -> None:
    graph = GraphBuilder()
    flat = graph.op("Flatten", graph.conv("image", 3, 8))
    found = graph.op("Det", graph.op("Reshape", flat, graph.constant(np.array([-1, 8, 16, 16]))), out="odd")
    model = load_model(graph.save(tmp_path / "model.onnx", [found]))
    layer = model.layers[0].value
    assert missing_rules(model.proto, ["odd"], [layer]) == ["Det 'odd'"]
    with pytest.raises(GradientError, match="no gradient of Det 'odd': this operator has no rule"):
        add_gradients(model.proto, {"odd": "odd"}, [layer])
    with pytest.raises(GradientError, match="does not classify"):
        add_decision(model.proto, Classifier((), None, "none", None, "no output"), "classes")


def eight_bits(values: Array, scale: float) -> Array:
    return np.clip(np.rint(values / scale), -127, 127).astype(np.int8)


def quantised_gradient(nodes: list[onnx.NodeProto], constants: dict[str, Array], x: Array, d: Array) -> Array:
    """The gradient of a quantised graph from `y` back to `x`."""
    graph = helper.make_graph(
        nodes, "q", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in {**constants, "d": d}.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    made = add_gradients(proto, {"y": "d"}, ["x"])["x"]
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(made, TensorProto.FLOAT, None))
    return opened(proto)({"x": x})[0]


@pytest.mark.parametrize("kind", ["QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QDQ"])
def test_gradients_pass_straight_through_quantised_operators(kind: str) -> None:
    convolves, scale = "Conv" in kind or kind == "QDQ", 0.02
    x = normal(2, 3, 5, 5).astype(np.float32) if convolves else normal(2, 3).astype(np.float32)
    weights = eight_bits(normal(4, 3, 3, 3) if convolves else normal(3, 4), scale)
    zero = np.int8(0)
    constants: dict[str, Array] = {"w": weights, "s": np.float32(scale), "z": zero, "o": np.float32(0.1)}
    quantise = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    real = helper.make_node("DequantizeLinear", ["r", "o", "z"], ["y"])
    if kind.startswith("QLinear"):
        middle = helper.make_node(kind, ["q", "s", "z", "w", "s", "z", "o", "z"], ["r"])
        nodes = [quantise, middle, real]
    elif kind == "QDQ":
        nodes = [quantise, helper.make_node("DequantizeLinear", ["q", "s", "z"], ["f"]),
                 helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
                 helper.make_node("Conv", ["f", "v"], ["y"])]  # fmt: skip
    else:
        nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "t", "u"]),
                 helper.make_node(kind, ["q", "w", "u", "z"], ["n"]),
                 helper.make_node("Cast", ["n"], ["m"], to=TensorProto.FLOAT),
                 helper.make_node("Mul", ["t", "s"], ["p"]), helper.make_node("Mul", ["m", "p"], ["y"])]  # fmt: skip
    shape = (2, 4, 3, 3) if convolves else (2, 4)
    d = normal(*shape, seed=5).astype(np.float32)
    true = weights.astype(np.float32) * scale
    plain = [helper.make_node("Conv" if convolves else "MatMul", ["x", "w"], ["y"])]
    expected = quantised_gradient(plain, {"w": true}, x, d)
    assert np.allclose(quantised_gradient(nodes, constants, x, d), expected, atol=1e-5)
