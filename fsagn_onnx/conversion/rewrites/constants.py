"""Constant nodes become initializers; what depends on constants alone is computed once, by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...errors import ConversionError
from ...model.inference_session import ORT_ERRORS, inference_session
from .graph import Array, Graph, Rewrite, attribute, is_op
from .shapes import infer_types

__all__ = ["CONSTANT_NODES", "FOLD_CONSTANTS", "MAX_FOLDED_ELEMENTS"]

MAX_FOLDED_ELEMENTS = 16 * 2**20
"""No single folded value may have more elements than this: a small file must not blow up in memory."""

_RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
)
_SUBGRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def _value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None for strings and sparse tensors."""
    tensor = attribute(node, "value")
    if tensor is not None:
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        return copy
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, f"{name}s"):
            plain = attribute(node, key)
            if plain is not None:
                return numpy_helper.from_array(np.asarray(plain, dtype=dtype))
    return None


def _constant_nodes(graph: Graph) -> Iterator[onnx.NodeProto]:
    for node in graph.nodes:
        if is_op(node, "Constant") and node.output[0] not in graph.outputs and _value(node) is not None:
            yield node


def _move_constants(graph: Graph) -> int:
    moved = list(_constant_nodes(graph))
    for node in moved:
        tensor = _value(node)
        if tensor is not None:
            tensor.name = node.output[0]
            graph.constants[tensor.name] = tensor
    graph.remove(moved)
    return len(moved)


CONSTANT_NODES = Rewrite("constant nodes to initializers", _move_constants, _constant_nodes)


def _may_fold(node: onnx.NodeProto, graph: Graph) -> bool:
    return (
        node.domain in ("", "ai.onnx")
        and any(node.input)
        and not is_op(node, *_RANDOM)
        and not any(value in graph.outputs for value in node.output)
        and not any(a.type in _SUBGRAPHS for a in node.attribute)
    )


def _constant_part(graph: Graph) -> list[onnx.NodeProto]:
    """The nodes that depend on constants alone, in order, as far as their sizes are known and allowed."""
    known, part = set(graph.constants), []
    for node in graph.nodes:
        if _may_fold(node, graph) and all(name in known for name in node.input if name):
            part.append(node)
            known.update(node.output)
    if not part:
        return []
    types, uses = infer_types(_model(graph, part, ())), graph.uses()
    known, allowed = set(graph.constants), []
    for node in part:
        sizes = [types[value].elements if value in types else None for value in node.output if uses[value]]
        small = all(size is not None and size <= MAX_FOLDED_ELEMENTS for size in sizes)
        if small and all(name in known for name in node.input if name):
            allowed.append(node)
            known.update(node.output)
    return allowed


def _model(graph: Graph, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> onnx.ModelProto:
    made = onnx.ModelProto(ir_version=max(graph.proto.ir_version, 4))
    made.opset_import.extend(graph.proto.opset_import)
    made.graph.name = "constants"
    made.graph.node.extend(nodes)
    names = dict.fromkeys(name for node in nodes for name in node.input if name in graph.constants)
    made.graph.initializer.extend(graph.constants[name] for name in names)
    made.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    return made


def _computed(graph: Graph, part: Sequence[onnx.NodeProto]) -> dict[str, Array]:
    inside = {id(node) for node in part}
    read = {name for node in graph.nodes if id(node) not in inside for name in node.input}
    wanted = [value for node in part for value in node.output if value in read]
    if not wanted:
        return {}
    try:
        session = inference_session(_model(graph, part, wanted), threads=1, optimised=False)
        arrays: list[Any] = session.run(wanted, {})
    except ORT_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConversionError(
            f"the constant part of the graph (first node: {part[0].op_type} '{part[0].name}') cannot be "
            f"computed by onnxruntime: {reason}"
        ) from error
    return dict(zip(wanted, arrays, strict=True))


def _fold(graph: Graph) -> int:
    folded = 0
    while part := _constant_part(graph):
        for name, array in _computed(graph, part).items():
            graph.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        graph.remove(part)
        folded += len(part)
    return folded


FOLD_CONSTANTS = Rewrite("constant folding", _fold, lambda graph: iter(_constant_part(graph)))
