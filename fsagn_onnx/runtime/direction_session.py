"""Questions about any direction, asked of an explainer file that was made for questions about classes.

A question about a class is made of the gradient of its decision, one value in the graph. Here a graph is made in which
that value is an input, and what was learnt about decisions alone is left out.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from ..errors import ExplainerError, UsageError
from ..model.topology import Topology
from .contract import (
    CLASSES,
    DIRECTION,
    DIRECTION_PHI,
    EVIDENCE_RANK,
    EVIDENCE_RETENTION,
    FILTERS,
    LEARNT,
    PREFIX,
    REQUEST,
)
from .session import Session

Array = NDArray[Any]

DIRECTIONS: Final = f"{PREFIX}directions"
"""The input in place of the gradient, float32 (D, C)."""


def check_directions(directions: ArrayLike, count: int, layer: str) -> NDArray[np.float32]:
    """Directions as the graph takes them, float32 (D, C).

    Args:
        directions: (D, C), or (C,) for one.
        count: C, filters of the layer.
        layer: its name, for the message.

    Raises:
        UsageError: they are of another length, all zero, or not finite.
    """
    try:
        given = np.asarray(directions)
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            asked = given.astype(np.float32, casting="same_kind" if given.dtype.kind in "fc" else "unsafe")
    except (TypeError, ValueError):
        raise UsageError("directions must be an array of numbers, one per filter") from None
    asked = asked[None] if asked.ndim == 1 else asked
    if asked.ndim != 2 or asked.shape[1] != count or not len(asked):
        raise UsageError(
            f"directions must be (D, {count}), one number per filter of layer '{layer}', "
            f"but are {tuple(np.shape(directions))}"
        )
    if not np.isfinite(asked).all():
        raise UsageError("directions must be finite, but hold NaN or infinity")
    if zero := np.flatnonzero(~asked.any(axis=1)).tolist():
        raise UsageError(f"direction {zero[0]} is all zero: it asks about nothing")
    return asked


def direction_graph(proto: onnx.ModelProto, channels: int, source: str) -> onnx.ModelProto:
    """The graph with the input `DIRECTIONS` in place of the gradient of a decision.

    Args:
        proto: of a file that answers questions about classes; changed.
        channels: C, filters of the layer.
        source: its path, for the message.

    Raises:
        ExplainerError: the value is not in the graph.
    """
    graph = proto.graph
    made = {name for node in graph.node for name in node.output}
    if not {DIRECTION, DIRECTION_PHI} <= made or not set(LEARNT) <= {item.name for item in graph.initializer}:
        raise ExplainerError(f"{source}: directions can be asked of the float32 file only; export one for that")
    for item in graph.initializer:
        if item.name in LEARNT:
            item.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(item)), item.name))
    kept = [node for node in graph.node if DIRECTION not in node.output]
    zero, one, width, minus = (f"{DIRECTION}/{name}" for name in ("zero", "one", "width", "minus"))
    for name, values in ((zero, [0]), (one, [2, 3]), (width, [channels]), (minus, [-1, channels, 1, 1])):
        graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    shape = f"{DIRECTION}/shape"
    spread = [
        helper.make_node("Shape", [CLASSES], [f"{DIRECTION}/asked"]),
        helper.make_node("Concat", [f"{DIRECTION}/asked", width], [shape], axis=0),
        helper.make_node("Expand", [DIRECTIONS, shape], [f"{DIRECTION}/spread"]),
        helper.make_node("Reshape", [f"{DIRECTION}/spread", minus], [DIRECTION]),
    ]
    ready = [node for node in kept if node.name.startswith(REQUEST)]
    rest = [node for node in kept if not node.name.startswith(REQUEST)]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (*ready, *spread, *rest)]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(DIRECTIONS, TensorProto.FLOAT, ["D", channels]))
    for name in (EVIDENCE_RANK, EVIDENCE_RETENTION, DIRECTION_PHI):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    topology = Topology(graph)
    if topology.producer[DIRECTION] not in topology.ancestors([DIRECTION_PHI]):
        raise ExplainerError(f"{source}: its graph does not weigh filters by a direction; ask about classes")
    needed = topology.ancestors([EVIDENCE_RANK, EVIDENCE_RETENTION, DIRECTION_PHI])
    kept_nodes = [node for number, node in enumerate(nodes) if number in needed]
    del graph.node[:]
    graph.node.extend(kept_nodes)
    return proto


class DirectionSession:
    """Computes questions about directions.

    Args:
        proto: of a file that answers questions about classes; changed.
        image: name of its image input.
        channels: filters of the layer.
        options: providers, threads and tuning, as `Session` takes them.
        source: the file's path.
    """

    def __init__(
        self, proto: onnx.ModelProto, image: str, channels: int, options: tuple[Any, Any, Any], source: str
    ) -> None:
        self._image = image
        self._session = Session(direction_graph(proto, channels, source), *options, source)
        self._asked = {port.name for port in self._session.inputs}

    def run(self, batch: Array, directions: NDArray[np.float32]) -> tuple[Array, Array, Array]:
        """Area rank (N, D, h, w), retention (N, D, A), and the sum over filters of what they add (N, D).

        Raises:
            UsageError: several directions, of a file with a fixed request.
        """
        count = len(batch)
        feeds: dict[str, Array] = {self._image: batch, DIRECTIONS: directions}
        if CLASSES in self._asked:
            feeds[CLASSES] = np.zeros((count, len(directions)), dtype=np.int64)
        elif len(directions) != 1:
            raise UsageError("a file with a fixed request takes one direction at a time")
        if FILTERS in self._asked:
            feeds[FILTERS] = np.zeros((count, 1), dtype=np.int64)
        found = self._session.run((EVIDENCE_RANK, EVIDENCE_RETENTION, DIRECTION_PHI), feeds)
        rank, retention, phi = (found[name].astype(np.float32, copy=False) for name in found)
        return rank, retention, phi.sum(axis=2)

    def close(self) -> None:
        """Free the session."""
        self._session.close()
