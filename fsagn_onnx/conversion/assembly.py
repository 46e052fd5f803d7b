"""From a normalised ONNX graph to torch modules, one per node, by onnx2torch's converters and ours.

onnx2torch's own assembly is not used: it maps graph outputs to nodes, not to values, so the second output of
a node gets lost; it copies an initializer for every use; it puts names out of the file into Python source and
runs it; and its errors do not say which node failed.
"""

from __future__ import annotations

import inspect
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import helper
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.onnx_tensor import OnnxTensor
from torch import Tensor, nn

from ..errors import ConversionError
from . import registry
from .ops import load_converters
from .rewrites.graph import Graph
from .rewrites.shapes import ValueType, infer_types

__all__ = ["Assembly", "Step", "Unsupported", "assemble", "unsupported_nodes", "version_of_domain"]


@dataclass(frozen=True)
class Unsupported:
    """An op without a converter.

    Attributes:
        op: op type.
        domain: its domain; "" is ONNX's own.
        version: op version at the model's opset.
        nodes: names of the nodes (or of the values they make, where they have none).
    """

    op: str
    domain: str
    version: int
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        name = f"{self.domain}.{self.op}" if self.domain else self.op
        return f"{name}-{self.version} ({len(self.nodes)}x, first: '{self.nodes[0]}')"


@dataclass(frozen=True)
class Step:
    """One node: which values its module reads and makes.

    Attributes:
        op: op type, for messages.
        node: the node's name, or the value that it makes, where it has none.
        inputs: values passed by position.
        keywords: values passed by keyword (those behind a left-out optional input).
        outputs: values made, "" where one is not wanted.
        last: values that no later step reads and that are no output: they can be freed after this one.
    """

    op: str
    node: str
    inputs: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    last: tuple[str, ...]


@dataclass(frozen=True)
class Assembly:
    """The modules of a graph, in the order in which they run, with the constants they read."""

    steps: tuple[Step, ...]
    modules: tuple[nn.Module, ...]
    constants: dict[str, Tensor]


def version_of_domain(proto: onnx.ModelProto, domain: str) -> int:
    """The opset version of a domain; 1 where the model does not import it."""
    alike = ("", "ai.onnx") if domain in ("", "ai.onnx") else (domain,)
    return next((o.version for o in proto.opset_import if o.domain in alike), 1)


def unsupported_nodes(proto: onnx.ModelProto) -> list[Unsupported]:
    """All ops of the graph without a converter, in the order in which they first appear."""
    load_converters()
    nodes: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for node in proto.graph.node:
        opset = version_of_domain(proto, node.domain)
        if registry.find(node.op_type, opset, node.domain) is None:
            version = registry.since_version(node.op_type, opset, node.domain)
            nodes[node.op_type, node.domain, version].append(node.name or node.output[0])
    return [Unsupported(*key, tuple(names)) for key, names in nodes.items()]


def assemble(graph: Graph, source: str, shapes: Mapping[str, tuple[int, ...]]) -> Assembly:
    """Convert every node of a normalised graph.

    Args:
        graph: the graph; in topological order, as ONNX demands. Its constants are dropped as they become modules.
        source: name of the file, for messages.
        shapes: shapes of its values at the file's own input size, as far as they are known.

    Raises:
        ConversionError: some ops have no converter (all are listed), or a converter refuses a node.
    """
    proto = graph.to_proto(weights=False)
    missing = unsupported_nodes(proto)
    if missing:
        raise ConversionError(f"{source}: no torch converter for {'; '.join(map(str, missing))}")
    typed = OnnxGraph(_with_types(proto, shapes))
    weights = typed._initializers  # its proto is without them
    weights.update((name, OnnxTensor(graph.constants[name])) for name in list(weights))
    graph.constants.clear()
    left = Counter(name for node in proto.graph.node for name in set(node.input))
    made: list[tuple[OnnxNode, nn.Module, tuple[str, ...]]] = []
    constants: dict[str, Tensor] = {}
    for node in typed.nodes.values():
        module, names = _convert(node, typed, proto, source)
        made.append((node, module, names))
        constants.update((n, _constant(typed, n, source)) for n in names if n in weights and n not in constants)
        left.subtract(set(node.input_values))
        for name in node.input_values:
            if not left[name]:
                weights.pop(name, None)
    reads = [names for _, _, names in made]
    last = _last_reads(reads, {v.name for v in proto.graph.output} | set(constants))
    steps = tuple(_step(node, module, names, free) for (node, module, names), free in zip(made, last, strict=True))
    return Assembly(steps, tuple(module for _, module, _ in made), constants)


def _constant(graph: OnnxGraph, name: str, source: str) -> Tensor:
    tensor = graph.initializers[name]
    try:
        made: Tensor = tensor.to_torch()
    except TypeError as error:
        kind = onnx.TensorProto.DataType.Name(tensor.proto.data_type)
        raise ConversionError(f"{source}: torch has no element type for the {kind} constant '{name}'") from error
    return made


def _with_types(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.GraphProto:
    """The graph with the type of every value, which some converters ask for (its rank, mostly)."""
    graph = onnx.GraphProto()
    graph.CopyFrom(proto.graph)
    del graph.value_info[:]
    known = {value.name for value in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    types = infer_types(proto)
    for name in dict.fromkeys(value for node in graph.node for value in node.output if value not in known):
        value = types.get(name, ValueType(onnx.TensorProto.FLOAT, None))
        dims = shapes.get(name, value.dims)
        if dims is not None:
            graph.value_info.append(helper.make_tensor_value_info(name, value.dtype, dims))
    return graph


def _convert(
    node: OnnxNode, graph: OnnxGraph, proto: onnx.ModelProto, source: str
) -> tuple[nn.Module, tuple[str, ...]]:
    opset = version_of_domain(proto, node.domain)
    converter = registry.find(node.operation_type, opset, node.domain)
    value = node.output_values[0]
    where = f"{source}: node '{node.name or value}' ({node.operation_type}, value '{value}')"
    if converter is None:
        raise ConversionError(f"{where}: no torch converter")
    try:
        with torch.random.fork_rng(devices=[]):  # nn.Conv2d and its like draw weights, which are then replaced
            module, mapping = converter(node, graph)
    except (NotImplementedError, KeyError, ValueError, RuntimeError, TypeError, IndexError) as error:
        # converters (onnx2torch's and ours) say NotImplementedError; a damaged node makes them fail in the other ways
        reason = " ".join(str(error).split())
        raise ConversionError(f"{where} cannot be converted: {reason or type(error).__name__}") from error
    return module, tuple(mapping.inputs)


def _last_reads(reads: Sequence[Sequence[str]], keep: set[str]) -> list[tuple[str, ...]]:
    seen, last = set(keep) | {""}, []
    for names in reversed(reads):
        last.append(tuple(dict.fromkeys(name for name in names if name not in seen)))
        seen.update(names)
    return last[::-1]


def _step(node: OnnxNode, module: nn.Module, names: tuple[str, ...], last: tuple[str, ...]) -> Step:
    """Values behind a left-out optional input go by keyword, so that the module's default holds for it."""
    given = names[: names.index("")] if "" in names else names
    keywords: tuple[tuple[str, str], ...] = ()
    if "" in names:
        parameters = tuple(inspect.signature(module.forward).parameters)
        rest = range(len(given), len(names))
        keywords = tuple((parameters[index], names[index]) for index in rest if names[index])
    outputs = tuple(node.output_values)
    return Step(node.operation_type, node.name or outputs[0], given, keywords, outputs, last)
