"""onnxruntime's own operators, written out in standard ones.

Its optimised models (`basic`, `extended`) and its quantiser's QOperator form hold nodes of the domain
com.microsoft, and LayerNormalization below opset 17. So is BatchNormalization with statistics per place
(spatial = 0 of opset 7 and 8). Formulas: onnxruntime, docs/ContribOperators.md. What has
no entry here stays as it is and is told as unsupported where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx
from onnx import helper

from ..errors import ModelError
from .expansion_writer import ExpansionWriter
from .opset import opset_of
from .topology import copied_node

__all__ = ["DOMAIN", "expand", "needs_expansion"]

DOMAIN = "com.microsoft"
_NORM_OPSET = 17
"""The first opset with LayerNormalization of its own."""


_Expansion = Callable[[ExpansionWriter, str], None]
"""Writes nodes that end in the given output."""
_EXPANSIONS: dict[str, _Expansion] = {}
_PER_PLACE = "BatchNormalization"
CHANNELS_FIRST, CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_LAYER_NORMS = ("LayerNormalization", "SimplifiedLayerNormalization")


def _expansion(*ops: str) -> Callable[[_Expansion], _Expansion]:
    def add(function: _Expansion) -> _Expansion:
        _EXPANSIONS.update(dict.fromkeys(ops, function))
        return function

    return add


def _activated(writer: ExpansionWriter, value: str, kind: str, numbers: Sequence[float], output: str) -> None:
    """The activation that a fused conv or gemm holds."""
    attributes: dict[str, float] = {}
    if kind == "Clip":
        if writer.opset >= 11:
            writer.add("Clip", [value, *map(writer.number, numbers[:2])], output)
            return
        attributes = dict(zip(("min", "max"), numbers, strict=False))
    elif kind in ("LeakyRelu", "Elu"):
        attributes = dict(zip(("alpha",), numbers, strict=False))
    elif kind == "HardSigmoid":
        attributes = dict(zip(("alpha", "beta"), numbers, strict=False))
    writer.add(kind, [value], output, **attributes)


@_expansion("FusedConv", "NhwcFusedConv")
def _fused_conv(writer: ExpansionWriter, output: str) -> None:
    """activation(Conv(X, W, B) + Z)."""
    if writer.node.op_type != "FusedConv":
        raise NotImplementedError
    kept = {name: value for name, value in writer.attributes.items() if not name.startswith("activation")}
    activation = writer.text("activation")
    added = writer.input(3)
    inputs = [writer.input(index) for index in range(3) if writer.input(index)]
    value = writer.add("Conv", inputs, "" if activation or added else output, **kept)
    if added:
        value = writer.add("Add", [value, added], "" if activation else output)
    if activation:
        _activated(writer, value, activation, list(writer.attributes.get("activation_params", ())), output)


@_expansion("FusedGemm")
def _fused_gemm(writer: ExpansionWriter, output: str) -> None:
    kept = {name: value for name, value in writer.attributes.items() if not name.startswith("activation")}
    numbers = [writer.attributes[name] for name in ("activation_alpha", "activation_beta") if name in writer.attributes]
    value = writer.add("Gemm", list(writer.node.input), **kept)
    _activated(writer, value, writer.text("activation"), numbers, output)


@_expansion("FusedMatMul", "TransposeMatMul")
def _fused_matmul(writer: ExpansionWriter, output: str) -> None:
    """Make alpha A' B', each perhaps with its last two axes exchanged."""
    given = writer.attributes
    if given.get("transBatchA", 0) or given.get("transBatchB", 0):
        raise NotImplementedError
    left = "...ji" if given.get("transA", 0) else "...ij"
    right = "...kj" if given.get("transB", 0) else "...jk"
    alpha = float(given.get("alpha", 1.0))
    target = output if alpha == 1.0 else ""
    inputs = [writer.input(0), writer.input(1)]
    if (left, right) == ("...ij", "...jk"):
        value = writer.add("MatMul", inputs, target)
    else:
        value = writer.add("Einsum", inputs, target, equation=f"{left},{right}->...ik")
    if alpha != 1.0:
        writer.add("Mul", [value, writer.number(alpha)], output)


def _gelu(writer: ExpansionWriter, x: str, output: str) -> None:
    """Gelu: x (1 + erf(x / sqrt 2)) / 2."""
    scaled = writer.add("Div", [x, writer.number(np.sqrt(2.0))])
    share = writer.add("Add", [writer.add("Erf", [scaled]), writer.number(1.0)])
    writer.add("Mul", [writer.add("Mul", [x, share]), writer.number(0.5)], output)


@_expansion("Gelu", "BiasGelu")
def _gelus(writer: ExpansionWriter, output: str) -> None:
    x = writer.input(0)
    _gelu(writer, writer.add("Add", [x, writer.input(1)]) if writer.input(1) else x, output)


@_expansion("FastGelu")
def _fast_gelu(writer: ExpansionWriter, output: str) -> None:
    """Gelu by tanh: x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    x = writer.add("Add", [writer.input(0), writer.input(1)]) if writer.input(1) else writer.input(0)
    cubed = writer.add("Mul", [writer.add("Mul", [x, x]), x])
    inner = writer.add("Add", [x, writer.add("Mul", [cubed, writer.number(0.044715)])])
    share = writer.add("Tanh", [writer.add("Mul", [inner, writer.number(np.sqrt(2 / np.pi))])])
    share = writer.add("Add", [share, writer.number(1.0)])
    writer.add("Mul", [writer.add("Mul", [x, share]), writer.number(0.5)], output)


@_expansion("QuickGelu")
def _quick_gelu(writer: ExpansionWriter, output: str) -> None:
    """Swish: x sigmoid(alpha x)."""
    x, alpha = writer.input(0), float(writer.attributes.get("alpha", 1.702))
    scaled = x if alpha == 1.0 else writer.add("Mul", [x, writer.number(alpha)])
    writer.add("Mul", [x, writer.add("Sigmoid", [scaled])], output)


def _normed(writer: ExpansionWriter, x: str, scale: str, shift: str, output: str, *, centred: bool = True) -> None:
    """(x - mean) / sqrt(variance + epsilon) scale + shift over the axes from `axis` on."""
    axis = int(writer.attributes.get("axis", -1))
    epsilon = float(writer.attributes.get("epsilon", 1e-5))
    if centred and writer.opset >= _NORM_OPSET:
        inputs = [x, scale, shift] if shift else [x, scale]
        writer.add("LayerNormalization", inputs, output, axis=axis, epsilon=epsilon)
        return
    if axis >= 0:
        raise NotImplementedError
    axes = list(range(axis, 0))

    def mean(value: str) -> str:
        if writer.opset >= 18:
            return writer.add("ReduceMean", [value, writer.constant(np.array(axes, np.int64))], keepdims=1)
        return writer.add("ReduceMean", [value], axes=axes, keepdims=1)

    gap = writer.add("Sub", [x, mean(x)]) if centred else x
    variance = writer.add("Add", [mean(writer.add("Mul", [gap, gap])), writer.number(epsilon)])
    value = writer.add("Div", [gap, writer.add("Sqrt", [variance])])
    value = writer.add("Mul", [value, scale], "" if shift else output)
    if shift:
        writer.add("Add", [value, shift], output)


@_expansion(*_LAYER_NORMS)
def _layer_norm(writer: ExpansionWriter, output: str) -> None:
    _only_output(writer)
    centred = writer.node.op_type == "LayerNormalization"
    _normed(writer, writer.input(0), writer.input(1), writer.input(2), output, centred=centred)


@_expansion("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def _skip_layer_norm(writer: ExpansionWriter, output: str) -> None:
    """The norm of x + skip + bias, which is the fourth output too."""
    node, centred = writer.node, writer.node.op_type == "SkipLayerNormalization"
    bias = writer.input(4 if centred else 3)
    if any(node.output[1:3]):
        raise NotImplementedError
    total = node.output[3] if len(node.output) > 3 else ""
    value = writer.add("Add", [writer.input(0), writer.input(1)], "" if bias else total)
    if bias:
        value = writer.add("Add", [value, bias], total)
    _normed(writer, value, writer.input(2), writer.input(3) if centred else "", output, centred=centred)


def _only_output(writer: ExpansionWriter) -> None:
    if any(writer.node.output[1:]):
        raise NotImplementedError


@_expansion("QLinearAdd", "QLinearMul")
def _quantised_pair(writer: ExpansionWriter, output: str) -> None:
    parts = [writer.dequantised(first) for first in (0, 3)]
    value = writer.add(writer.node.op_type.removeprefix("QLinear"), parts)
    writer.quantised(value, writer.input(6), writer.input(7), output)


@_expansion(
    "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearAveragePool", "QLinearGlobalAveragePool",
)  # fmt: skip
def _quantised_one(writer: ExpansionWriter, output: str) -> None:
    op = writer.node.op_type.removeprefix("QLinear")
    given = dict(writer.attributes)
    last = given.pop("channels_last", 0)
    coerced = op == "Softmax" and int(given.pop("opset", writer.opset)) < 13 <= writer.opset
    axis = int(given.get("axis", -1)) if op == "Softmax" else 0
    if coerced and axis != -1:
        raise NotImplementedError
    if "auto_pad" in given:
        given["auto_pad"] = writer.text("auto_pad")
    value = writer.dequantised(0)
    value = writer.add("Transpose", [value], perm=CHANNELS_FIRST) if last else value
    value = writer.add(op, [value], **given)
    value = writer.add("Transpose", [value], perm=CHANNELS_LAST) if last else value
    writer.quantised(value, writer.input(3), writer.input(4), output)


@_expansion("QLinearConv")
def _quantised_conv(writer: ExpansionWriter, output: str) -> None:
    """The standard one between two transpositions, where its maps have the channels last."""
    given = dict(writer.attributes)
    inputs = list(writer.node.input)
    if not given.pop("channels_last", 0):
        writer.add("QLinearConv", inputs, output, **given)
        return
    inputs[0] = writer.add("Transpose", inputs[:1], perm=CHANNELS_FIRST)
    writer.add("Transpose", [writer.add("QLinearConv", inputs, **given)], output, perm=CHANNELS_LAST)


@_expansion("QLinearConcat")
def _quantised_concat(writer: ExpansionWriter, output: str) -> None:
    parts = [writer.dequantised(first) for first in range(2, len(writer.node.input), 3)]
    value = writer.add("Concat", parts, axis=writer.attributes["axis"])
    writer.quantised(value, writer.input(0), writer.input(1), output)


@_expansion("QLinearWhere")
def _quantised_where(writer: ExpansionWriter, output: str) -> None:
    parts = [writer.dequantised(first) for first in (1, 4)]
    writer.quantised(writer.add("Where", [writer.input(0), *parts]), writer.input(7), writer.input(8), output)


@_expansion("QGemm")
def _quantised_gemm(writer: ExpansionWriter, output: str) -> None:
    """Make alpha A' B' + C with C in units of alpha scale_A scale_B."""
    given = writer.attributes
    column = (0 if given.get("transB", 0) else 1) if writer.opset >= 13 else None
    a = writer.dequantised(0)
    b = writer.dequantised(3, column)
    inputs = [a, b]
    if writer.input(6):
        unit = writer.add("Mul", [writer.input(1), writer.input(4)])
        steps = writer.add("Cast", [writer.input(6)], to=onnx.TensorProto.FLOAT)
        bias = writer.add("Mul", [steps, unit])
        alpha = float(given.get("alpha", 1.0))
        inputs.append(bias if alpha == 1.0 else writer.add("Mul", [bias, writer.number(alpha)]))
    value = writer.add("Gemm", inputs, "" if writer.input(7) else output, **given)
    if writer.input(7):
        writer.quantised(value, writer.input(7), writer.input(8), output)


def _integer_product(writer: ExpansionWriter, inputs: Sequence[str], unit: str, bias: str, output: str) -> None:
    steps = writer.add("Cast", [writer.add("MatMulInteger", inputs)], to=onnx.TensorProto.FLOAT)
    value = writer.add("Mul", [steps, unit], "" if bias else output)
    if bias:
        writer.add("Add", [value, bias], output)


@_expansion("MatMulIntegerToFloat")
def _integer_matmul(writer: ExpansionWriter, output: str) -> None:
    """(A - zero_A) (B - zero_B) scale_A scale_B + bias."""
    inputs = [writer.input(index) for index in (0, 1, 4, 5)]
    unit = writer.add("Mul", [writer.input(2), writer.input(3)])
    _integer_product(writer, inputs, unit, writer.input(6), output)


@_expansion("DynamicQuantizeMatMul")
def _dynamic_matmul(writer: ExpansionWriter, output: str) -> None:
    a, scale, zero = writer.fresh("a"), writer.fresh("scale"), writer.fresh("zero")
    made = helper.make_node("DynamicQuantizeLinear", [writer.input(0)], [a, scale, zero], name=f"{a}.quantised")
    writer.nodes.append(made)
    unit = writer.add("Mul", [scale, writer.input(2)])
    _integer_product(writer, [a, writer.input(1), zero, writer.input(3)], unit, writer.input(4), output)


@_expansion(_PER_PLACE)
def _norm_per_place(writer: ExpansionWriter, output: str) -> None:
    """(x - mean) / sqrt(variance + epsilon) scale + shift, all of the shape (C, H, W)."""
    x, scale, shift, mean, variance = (writer.input(index) for index in range(5))
    safe = writer.add("Add", [variance, writer.number(float(writer.attributes.get("epsilon", 1e-5)))])
    value = writer.add("Div", [writer.add("Sub", [x, mean]), writer.add("Sqrt", [safe])])
    writer.add("Add", [writer.add("Mul", [value, scale]), shift], output)


def _applies(node: onnx.NodeProto, opset: int) -> bool:
    if node.domain == DOMAIN:
        return node.op_type in _EXPANSIONS and node.op_type != _PER_PLACE
    if node.op_type == _PER_PLACE:
        return opset < 9 and any(item.name == "spatial" and not item.i for item in node.attribute)
    early = node.op_type == "LayerNormalization" and opset < _NORM_OPSET
    return node.domain in ("", "ai.onnx") and (early or node.op_type == "SimplifiedLayerNormalization")


def needs_expansion(proto: onnx.ModelProto) -> bool:
    """Whether `expand` would change anything."""
    opset = opset_of(proto)
    return any(_applies(node, opset) for node in proto.graph.node)


def expand(proto: onnx.ModelProto) -> None:
    """Replace, in place, the contributed nodes of the top-level graph; values keep their names.

    Raises:
        ModelError: a contributed node lacks an input or an attribute.
    """
    opset, graph = opset_of(proto), proto.graph
    taken = set(_names(graph))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if not _applies(node, opset):
            nodes.append(copied_node(node))
            continue
        try:
            writer = ExpansionWriter(node, opset, taken)
            _EXPANSIONS[node.op_type](writer, node.output[0])
        except NotImplementedError:
            nodes.append(copied_node(node))
            continue
        except (KeyError, IndexError, ValueError, TypeError) as error:
            what = f"{node.domain}.{node.op_type} '{node.name or ''.join(node.output[:1])}'"
            raise ModelError(f"the node {what} lacks an input or an attribute: {error}") from error
        nodes.extend(writer.nodes)
        graph.initializer.extend(writer.constants)
    del graph.node[:]
    graph.node.extend(nodes)


def _names(graph: onnx.GraphProto) -> Iterable[str]:
    for node in graph.node:
        yield from node.input
        yield from node.output
    yield from (item.name for item in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
