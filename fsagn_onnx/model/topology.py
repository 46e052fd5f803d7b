"""Who makes and who uses each value of an ONNX graph, captures of subgraphs included."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

__all__ = [
    "RANDOM_OPS",
    "Topology",
    "copied_node",
    "node_inputs",
    "rename_values",
    "sort_nodes",
    "subgraphs",
]

RANDOM_OPS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""Ops whose outputs differ from run to run: never constants."""


def copied_node(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node of its own with the same content."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of a node (`If`, `Loop`, `Scan`), not those nested deeper."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _captures(graph: onnx.GraphProto) -> Iterator[str]:
    known = {item.name for item in graph.input}
    known.update(item.name for item in graph.initializer)
    known.update(item.values.name for item in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node_inputs(node) if name not in known)
        known.update(node.output)
    yield from (item.name for item in graph.output if item.name not in known)


def node_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node reads: its inputs (left-out ones skipped) and what its subgraphs capture."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from _captures(graph)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Bring the nodes of the top-level graph into topological order, in place.

    ONNX demands it, onnxruntime does not. A graph in order stays as it is, and so does one with a cycle.
    """
    nodes = list(graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{producer[name] for name in node_inputs(node) if name in producer} for node in nodes]
    if all(max(needed, default=-1) < index for index, needed in enumerate(needs)):
        return
    users: dict[int, list[int]] = {}
    for index, needed in enumerate(needs):
        for source in needed:
            users.setdefault(source, []).append(index)
    ready = [index for index, needed in enumerate(needs) if not needed]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users.get(index, ()):
            needs[user].discard(index)
            if not needs[user]:
                heapq.heappush(ready, user)
    if len(order) == len(nodes):
        copies = [onnx.NodeProto.FromString(nodes[index].SerializeToString()) for index in order]
        del graph.node[:]
        graph.node.extend(copies)


@dataclass(frozen=True, eq=False)
class Topology:
    """Producers, consumers and constants of a graph; nodes are numbered in the file's (topological) order."""

    graph: onnx.GraphProto

    @cached_property
    def nodes(self) -> Sequence[onnx.NodeProto]:
        """The nodes of the top-level graph."""
        return list(self.graph.node)

    @cached_property
    def producer(self) -> dict[str, int]:
        """Value name -> number of the node that makes it."""
        return {name: index for index, node in enumerate(self.nodes) for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, tuple[int, ...]]:
        """Value name -> numbers of the nodes that read it, each once, ascending."""
        users: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(node_inputs(node)):
                users.setdefault(name, []).append(index)
        return {name: tuple(indices) for name, indices in users.items()}

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Initializer name -> tensor (dense ones)."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def tensors(self) -> dict[str, onnx.TensorProto]:
        """Initializers and the values of Constant nodes, by name."""
        found = dict(self.initializers)
        for node in self.nodes:
            if node.op_type == "Constant" and node.output:
                found.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
        return found

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return frozenset(item.name for item in self.graph.output)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Values that are the same for every input: initializers and what is computed from them alone."""
        known = set(self.initializers)
        known.update(item.values.name for item in self.graph.sparse_initializer)
        for node in self.nodes:
            if node.op_type not in RANDOM_OPS and all(name in known for name in node_inputs(node)):
                known.update(name for name in node.output if name)
        return frozenset(known)

    def ancestors(self, values: Iterable[str]) -> set[int]:
        """Numbers of all nodes that the values need."""
        wanted: set[int] = set()
        stack = [self.producer[name] for name in values if name in self.producer]
        while stack:
            index = stack.pop()
            if index in wanted:
                continue
            wanted.add(index)
            stack.extend(self.producer[name] for name in node_inputs(self.nodes[index]) if name in self.producer)
        return wanted

    def descendants(self, values: Iterable[str]) -> set[str]:
        """The values themselves and every value computed from them."""
        reached = set(values)
        for node in self.nodes:
            if any(name in reached for name in node_inputs(node)):
                reached.update(name for name in node.output if name)
        return reached


def rename_values(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give values inside a graph other names, where nodes make or read them and in subgraphs too.

    Inputs and outputs of the graph itself keep theirs.

    Args:
        graph: a graph; changed.
        names: old name -> new name.
    """
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in subgraphs(node):
            rename_values(inner, names)
    for item in (*graph.initializer, *graph.value_info):
        item.name = names.get(item.name, item.name)
