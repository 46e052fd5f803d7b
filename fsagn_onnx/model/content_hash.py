"""The content hash of a model: what it computes, not how its file is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, numpy_helper

from ..errors import ModelError

__all__ = ["array_of", "content_hash", "file_hash"]

Piece = bytes | memoryview


def content_hash(proto: onnx.ModelProto) -> str:
    """SHA-256 of what a model computes.

    Hashed are the nodes in their order, attributes, value names, initializers, graph inputs and outputs,
    opsets and local functions.

    Doc strings, metadata, producer, IR version, names of nodes and of the graph, inferred shapes, and the
    form in which a tensor is stored (raw, typed field, external file) do not count. Initializers, attributes
    and opsets count in the order of their names.

    Args:
        proto: A model with its external data in memory.

    Returns:
        64 hexadecimal digits.

    Raises:
        ModelError: a tensor has another number of bytes than its shape and dtype ask for.
    """
    digest = hashlib.sha256()

    def feed(pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)

    for opset in sorted(proto.opset_import, key=lambda item: item.domain or "ai.onnx"):
        feed((b"opset", (opset.domain or "ai.onnx").encode(), str(opset.version).encode()))
    feed(_graph(proto.graph))
    for function in sorted(proto.functions, key=lambda item: (item.domain, item.name)):
        feed((b"function", function.domain.encode(), function.name.encode()))
        feed(_names(function.input))
        feed(_names(function.output))
        feed(_names(function.attribute))
        for node in function.node:
            feed(_node(node))
        feed(_attributes(function.attribute_proto))
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """The numbers of a tensor.

    Raises:
        ModelError: it has another number of bytes than its shape and type ask for, or no such type is known.
    """
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        detail = " ".join(str(error).split())
        raise ModelError(f"the tensor '{tensor.name}' is broken: {detail}") from error


def _names(names: Iterable[str]) -> Iterator[Piece]:
    listed = list(names)
    yield str(len(listed)).encode()
    yield from (name.encode() for name in listed)


def _graph(graph: onnx.GraphProto) -> Iterator[Piece]:
    yield b"graph"
    for kind, items in ((b"input", graph.input), (b"output", graph.output)):
        for item in items:
            yield kind
            yield item.name.encode()
            yield from _type(item.type)
    for tensor in sorted(graph.initializer, key=lambda item: item.name):
        yield b"initializer"
        yield from _tensor(tensor)
    for sparse in sorted(graph.sparse_initializer, key=lambda item: item.values.name):
        yield from _sparse(sparse)
    for node in graph.node:
        yield from _node(node)
    yield b"end"


def _type(described: onnx.TypeProto) -> Iterator[Piece]:
    if described.WhichOneof("value") != "tensor_type":
        yield described.SerializeToString(deterministic=True)
        return
    tensor = described.tensor_type
    yield str(tensor.elem_type).encode()
    if tensor.HasField("shape"):
        yield from _names(
            str(dim.dim_value) if dim.HasField("dim_value") else f"?{dim.dim_param}" for dim in tensor.shape.dim
        )


def _node(node: onnx.NodeProto) -> Iterator[Piece]:
    yield b"node"
    yield (node.domain or "ai.onnx").encode()
    yield node.op_type.encode()
    yield from _names(node.input)
    yield from _names(node.output)
    yield from _attributes(node.attribute)


def _attributes(attributes: Iterable[AttributeProto]) -> Iterator[Piece]:
    for attribute in sorted(attributes, key=lambda item: item.name):
        yield b"attribute"
        yield attribute.name.encode()
        yield str(attribute.type).encode()
        yield attribute.ref_attr_name.encode()
        if attribute.type == AttributeProto.TENSOR:
            yield from _tensor(attribute.t)
        elif attribute.type == AttributeProto.TENSORS:
            for tensor in attribute.tensors:
                yield from _tensor(tensor)
        elif attribute.type == AttributeProto.GRAPH:
            yield from _graph(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            for graph in attribute.graphs:
                yield from _graph(graph)
        elif attribute.type == AttributeProto.SPARSE_TENSOR:
            yield from _sparse(attribute.sparse_tensor)
        else:
            plain = AttributeProto()
            plain.CopyFrom(attribute)
            plain.ClearField("doc_string")
            yield plain.SerializeToString(deterministic=True)


def _sparse(sparse: onnx.SparseTensorProto) -> Iterator[Piece]:
    yield b"sparse"
    yield from _names(str(dim) for dim in sparse.dims)
    yield from _tensor(sparse.values)
    yield from _tensor(sparse.indices)


def _tensor(tensor: TensorProto) -> Iterator[Piece]:
    yield tensor.name.encode()
    yield str(tensor.data_type).encode()
    yield from _names(str(dim) for dim in tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        yield from tensor.string_data
        return
    elements = array_of(tensor)
    yield np.ascontiguousarray(elements).reshape(-1).view(np.uint8).data
