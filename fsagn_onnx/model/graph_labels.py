"""Class names that a graph holds itself: in the nodes behind its scores that turn numbers into texts or maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import onnx
from onnx import TensorProto

from .topology import Topology, node_inputs

__all__ = ["graph_labels"]

ML: Final = "ai.onnx.ml"
ARG_MAX: Final = "ArgMax"
PASSING: Final = frozenset(["Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
"""Operators between an ArgMax and the node that names the class: they keep the number."""


def graph_labels(graph: onnx.GraphProto) -> tuple[str, ...] | None:
    """The names of the classes that the last nodes of a classifier of scikit-learn's or CoreML's kind give out.

    That is ZipMap's ``classlabels_*``, LabelEncoder's table behind an ArgMax, or a constant of texts from which
    ArrayFeatureExtractor or Gather takes one by an ArgMax.

    Args:
        graph: as the file has it.

    Returns:
        None where there are none, where two nodes do not agree, and where they are only the numbers from 0 on.
    """
    found = set(_named(graph))
    if len(found) != 1:
        return None
    names = found.pop()
    return None if names == tuple(map(str, range(len(names)))) else names


def _named(graph: onnx.GraphProto) -> Iterator[tuple[str, ...]]:
    topology = Topology(graph)
    texts = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.STRING}
    for node in topology.nodes:
        given = {item.name: item for item in node.attribute}
        names: Sequence[str] | None = None
        if node.op_type == "ZipMap" and node.domain == ML:
            names = _texts(given, "classlabels_strings") or _numbers(given, "classlabels_int64s")
        elif node.op_type == "LabelEncoder" and node.domain == ML and _by_number(topology, node.input[0]):
            names = _texts(given, "classes_strings") or _table(given)
        elif node.op_type in ("ArrayFeatureExtractor", "Gather") and node.input[0] in texts:
            tensor = texts[node.input[0]]
            alone = max(tensor.dims, default=0) == len(tensor.string_data)
            names = _decoded(tensor.string_data) if alone and _by_number(topology, node.input[1]) else None
        if names:
            yield tuple(names)


def _by_number(topology: Topology, value: str) -> bool:
    """Whether a value is the place of the largest score."""
    while (index := topology.producer.get(value)) is not None:
        node = topology.nodes[index]
        if node.op_type == ARG_MAX:
            return True
        if node.op_type not in PASSING:
            return False
        value = next(node_inputs(node), "")
    return False


def _decoded(texts: Sequence[bytes]) -> list[str]:
    return [text.decode("utf-8", "replace") for text in texts]


def _texts(given: dict[str, onnx.AttributeProto], name: str) -> list[str]:
    return _decoded(given[name].strings) if name in given else []


def _numbers(given: dict[str, onnx.AttributeProto], name: str) -> list[str]:
    return [str(number) for number in given[name].ints] if name in given else []


def _table(given: dict[str, onnx.AttributeProto]) -> list[str]:
    """LabelEncoder's names in the order of the classes; nothing where it does not name each class from 0 on."""
    keys = list(given["keys_int64s"].ints) if "keys_int64s" in given else []
    names = _texts(given, "values_strings") or _numbers(given, "values_int64s")
    if len(keys) != len(names) or sorted(keys) != list(range(len(keys))):
        return []
    return [name for _, name in sorted(zip(keys, names, strict=True))]
