"""How large a graph becomes when its local functions are written out, found before anything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx

from ..errors import ModelError
from .topology import subgraphs

__all__ = ["MAX_NODES", "check_functions"]

MAX_NODES = 100_000
"""Nodes of a graph, its functions written out: each level of functions that call one another twice doubles them."""

_COUNTED = 10**18
"""Where counting ends: the next level would double the digits of a number that nobody reads."""

Key = tuple[str, str, str]


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[Key]:
    """Domain, op and overload of every node, those of subgraphs included."""
    for node in nodes:
        yield (node.domain, node.op_type, node.overload)
        for graph in subgraphs(node):
            yield from _calls(graph.node)


def check_functions(proto: onnx.ModelProto, limit: int = MAX_NODES) -> None:
    """Refuse functions that call themselves, or that make too many nodes of a few lines.

    Args:
        proto: the model.
        limit: nodes that writing its functions out may give.

    Raises:
        ModelError: naming the function.
    """
    called = {(item.domain, item.name, item.overload): Counter(_calls(item.node)) for item in proto.functions}
    sizes: dict[Key, int] = {}
    open_now: set[Key] = set()
    waiting = list(called)
    while waiting:
        key = waiting[-1]
        inner = [other for other in called[key] if other in called and other not in sizes]
        if key in sizes or not inner:
            size = sum(count * sizes.get(op, 1) for op, count in called[key].items())
            sizes.setdefault(key, min(size, _COUNTED))
            open_now.discard(key)
            waiting.pop()
            continue
        if key in open_now:
            raise ModelError(f"its function '{key[1]}' calls itself; a model's functions must not")
        open_now.add(key)
        waiting += inner
    nodes = sum(sizes.get(key, 1) for key in _calls(proto.graph.node))
    if called and nodes > limit:
        largest = max(sizes, key=lambda key: sizes[key])
        raise ModelError(
            f"its functions written out give {nodes:.6g} nodes, more than the limit of {limit} (one call of "
            f"'{largest[1]}' gives {sizes[largest]:.6g}); export the model without functions"
        )
