"""Reading an ONNX file, its external data included, without trusting it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ..errors import ModelError
from .local_functions import check_functions
from .topology import subgraphs

__all__ = [
    "MAX_EXTERNAL_BYTES",
    "MAX_FILE_BYTES",
    "Shape",
    "ValueInfo",
    "check_external_data",
    "dtype_name",
    "metadata_of",
    "read_proto",
    "shape_of",
    "value_info",
    "weight_bytes",
]

MAX_FILE_BYTES = 2 * 2**30 - 1
"""Protobuf's own limit on one message."""
MAX_EXTERNAL_BYTES = 16 * 2**30
"""Limit on all external data of one model together."""

Shape = tuple[int | str | None, ...]
"""A dimension is a number, the name of a dynamic dimension, or None where nothing is known."""


@dataclass(frozen=True)
class ValueInfo:
    """A graph input or output: name, dtype in numpy's words ("float32"), shape (None: rank unknown)."""

    name: str
    dtype: str
    shape: Shape | None


def dtype_name(elem_type: int) -> str:
    """ONNX's element type in numpy's words; "unknown" for 0."""
    if elem_type == TensorProto.UNDEFINED:
        return "unknown"
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(elem_type).name
    except (KeyError, TypeError):
        return f"type {elem_type}"


def shape_of(tensor: onnx.TypeProto.Tensor) -> Shape | None:
    """The shape of a tensor type, None if not even its rank is known."""
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor.shape.dim)


def value_info(item: onnx.ValueInfoProto) -> ValueInfo:
    """The description of a graph input or output; sequences and maps come as dtype "not a tensor"."""
    if item.type.WhichOneof("value") != "tensor_type":
        return ValueInfo(item.name, "not a tensor", None)
    return ValueInfo(item.name, dtype_name(item.type.tensor_type.elem_type), shape_of(item.type.tensor_type))


def metadata_of(proto: onnx.ModelProto) -> dict[str, str]:
    """The metadata entries of the file."""
    return {entry.key: entry.value for entry in proto.metadata_props}


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """All tensors of a graph: initializers, sparse ones, attributes of nodes, subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def _all_tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Those of the graph and of the local functions."""
    yield from _tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of the raw weights of the top-level graph: nearly the size of the message, without writing it."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def _texts(graph: onnx.GraphProto) -> Iterator[object]:
    """All names in a graph that mean something; protobuf hands out bytes where one is no UTF-8."""
    yield graph.name
    for item in (*graph.input, *graph.output, *graph.value_info):
        yield item.name
        yield from (dim.dim_param for dim in item.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in _tensors(graph))
    yield from _node_texts(graph.node)


def _node_texts(nodes: Iterable[onnx.NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        for inner in subgraphs(node):
            yield from _texts(inner)


def _function_texts(proto: onnx.ModelProto) -> Iterator[object]:
    for function in proto.functions:
        yield from (function.name, function.domain, *function.input, *function.output)
        yield from _node_texts(function.node)


def _external_file(path: Path, tensor: TensorProto, location: str) -> Path:
    """The file that external data lies in, proven to be inside the folder of the model."""
    what = f"{path}: external data of '{tensor.name}'"
    if not location:
        raise ModelError(f"{what} names no file")
    if "\0" in location:
        raise ModelError(f"{what} has a file name with a zero byte")
    folder = path.parent.resolve()
    escaped = Path(location).is_absolute() or ".." in Path(location.replace("\\", "/")).parts
    try:
        target = (folder / location).resolve()
        there = target.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a link that leads to itself, a name that is too long
        raise ModelError(f"{what} cannot be found: {' '.join(str(error).split())[:200]}") from error
    if escaped or not target.is_relative_to(folder):
        raise ModelError(f"{what} points outside of the model's folder ('{location}'); it must lie inside it")
    if not there:
        raise ModelError(f"{what} is missing: expected the file '{target}'; copy it beside the model")
    return target


def _external_piece(path: Path, tensor: TensorProto) -> tuple[Path, int, int]:
    """The file, offset and length of one tensor's external data, proven to be there and inside the folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    target = _external_file(path, tensor, entries.get("location", ""))
    what = f"{path}: external data of '{tensor.name}' in '{target.name}'"
    size = target.stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else size - offset
    except ValueError:
        raise ModelError(f"{what} has an offset or length that is not a number") from None
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(f"{what} wants bytes {offset} to {offset + length} of a file of {size} bytes: truncated?")
    return target, offset, length


def check_external_data(path: str | os.PathLike[str], proto: onnx.ModelProto) -> None:
    """Check, without reading it, that all external data is there, long enough, and inside the model's folder.

    Args:
        path: The file that the model came from.
        proto: The model, read with `external_data=False`.

    Raises:
        ModelError: it is not; the message names the tensor and the file.
    """
    for tensor in _all_tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            _external_piece(Path(path), tensor)


def _load_external(path: Path, tensor: TensorProto, budget: int) -> int:
    """Read one tensor's external data into `raw_data`; returns the bytes read."""
    target, offset, length = _external_piece(path, tensor)
    if length > budget:
        raise ModelError(f"{path}: more than {MAX_EXTERNAL_BYTES} bytes of external data")
    try:
        with target.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
    except OSError as error:
        raise ModelError(f"{path}: external data in '{target.name}' cannot be read: {error.strerror}") from error
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
    return length


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ModelError(f"{path} is a folder, expected an ONNX file")
        if not path.is_file():
            raise ModelError(f"{path} is no regular file (a pipe, a device or a socket), expected an ONNX file")
        if size == 0:
            raise ModelError(f"{path} is empty, expected an ONNX file")
        if size > max_bytes:
            raise ModelError(f"{path} has {size} bytes, more than the limit of {max_bytes}")
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"no file {path}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def read_proto(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_FILE_BYTES, external_data: bool = True
) -> onnx.ModelProto:
    """Read an ONNX file with all its external data in memory; nothing is checked beyond that it is ONNX.

    Args:
        path: The file.
        max_bytes: Limit on the file's size, applied before anything is read.
        external_data: Read it too; without, the model is good for its description only.

    Returns:
        The model; with `external_data`, no tensor of it refers to another file.

    Raises:
        ModelError: no such file, empty, too large, truncated, not ONNX, functions that cannot be written out, or
            external data that is missing, truncated, too large or outside of the model's folder.
    """
    path = Path(path)
    content = _read_bytes(path, max_bytes)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(f"{path} is not an ONNX file, or a truncated one ({len(content)} bytes)") from error
    if not proto.graph.node:
        raise ModelError(f"{path} is not an ONNX model: it has no graph, or one without nodes")
    del content
    described = (proto.producer_name, proto.producer_version, *(opset.domain for opset in proto.opset_import))
    metadata = (text for entry in proto.metadata_props for text in (entry.key, entry.value))
    if not all(
        isinstance(text, str) for text in chain(_texts(proto.graph), _function_texts(proto), described, metadata)
    ):
        raise ModelError(f"{path} is a damaged ONNX file: a name in it is not UTF-8 text")
    try:
        check_functions(proto)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    budget = MAX_EXTERNAL_BYTES
    for tensor in _all_tensors(proto) if external_data else ():
        if tensor.data_location == TensorProto.EXTERNAL:
            budget -= _load_external(path, tensor, budget)
    return proto
