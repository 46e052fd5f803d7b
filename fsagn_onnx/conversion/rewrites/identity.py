"""Nodes that pass their input through at inference: Identity, Dropout, and the like."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from .graph import Graph, Rewrite, is_op

__all__ = ["PASS_THROUGH"]


def _passes_through(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether the node's first output equals its first input at inference."""
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Dropout"):
        training = graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        unset = len(node.input) < 3 or not node.input[2]
        return unset or (training is not None and not bool(training))
    return False


def _removable(graph: Graph) -> Iterator[onnx.NodeProto]:
    uses = graph.uses()
    for node in graph.nodes:
        unused_rest = all(not uses[value] for value in node.output[1:] if value)
        if node.output[0] not in graph.outputs and unused_rest and _passes_through(node, graph):
            yield node


def _remove(graph: Graph) -> int:
    removed = list(_removable(graph))
    graph.rename_uses({node.output[0]: node.input[0] for node in removed})
    graph.remove(removed)
    return len(removed)


PASS_THROUGH = Rewrite("pass-through nodes removed", _remove, _removable)
"""Identity (of values and of shared initializers) and Dropout. One whose output is a graph output stays."""
