"""Names that an explainer's graph needs for itself, freed in the model's."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from ..errors import ExplainerError
from ..model.topology import rename_values
from ..runtime.contract import CLASSES, FILTERS, OWN_OUTPUTS, PREFIX


def free_names(graph: onnx.GraphProto, taps: Collection[str], source: str) -> None:
    """Rename the values inside a model's graph that have a name of the explainer's own inputs, outputs or nodes.

    Args:
        graph: a graph of our own; changed.
        taps: values whose names must stay.
        source: the model's file, for the message.

    Raises:
        ExplainerError: an input, output or tapped value has such a name.
    """
    taken = {FILTERS, CLASSES, *OWN_OUTPUTS}
    fixed = {item.name for item in (*graph.input, *graph.output)} | set(taps)
    if clash := sorted(name for name in fixed if name in taken or name.startswith(PREFIX)):
        raise ExplainerError(
            f"{source}: the value '{clash[0]}' has a name that an explainer file needs for its own; "
            "rename it in the model"
        )
    known = {name for node in graph.node for name in node.output} | {item.name for item in graph.initializer}
    clashing = {name for name in known if name in taken or name.startswith(PREFIX)}
    if clashing:
        rename_values(graph, {name: f"model/{name}" for name in clashing})
