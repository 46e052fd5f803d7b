"""Switching filters off: their channel is set to its mean in the model's own graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import LayerError
from ..model import Model, cut
from ..model.shapes import value_types
from .session import Session


def tail(proto: onnx.ModelProto, layer: str, outputs: Sequence[str] | None = None) -> onnx.ModelProto:
    """The part of a graph from a value on: the value becomes an input in place of what made it.

    Args:
        proto: a model; it is not changed.
        layer: a value that a node of the graph makes.
        outputs: names of the outputs to keep; None: all.

    Returns:
        A model with these outputs. Values that do not pass through the layer still need the image.

    Raises:
        LayerError: no node makes the value, or the outputs do not depend on it.
    """
    piece = onnx.ModelProto()
    piece.CopyFrom(proto)
    producers = [node for node in piece.graph.node if layer in node.output]
    if not producers:
        raise LayerError(f"cannot cut the graph behind '{layer}': no node of '{proto.graph.name}' makes it")
    value = piece.graph.input.add()
    value.name = layer
    value.type.CopyFrom(value_types(proto, [layer])[layer])
    value.type.tensor_type.shape.dim[0].Clear()
    value.type.tensor_type.shape.dim[0].dim_param = "N"
    for place, name in enumerate(producers[0].output):
        if name == layer:
            producers[0].output[place] = f"{layer}.replaced"
    kept = [item for item in piece.graph.value_info if item.name != layer]
    del piece.graph.value_info[:]
    piece.graph.value_info.extend(kept)
    kept_outputs = [item.name for item in proto.graph.output if outputs is None or item.name in outputs]
    piece = cut(piece, [name for name in kept_outputs if name != layer])
    if layer not in {item.name for item in piece.graph.input}:
        raise LayerError(f"the outputs of '{proto.graph.name}' do not depend on '{layer}'")
    return piece


class Ablation:
    """Answers of the model with one filter switched off at a time.

    Attributes:
        means: (C,), as given.

    Args:
        model: the model.
        layer: the layer.
        means: (C,), the value that a switched-off channel has everywhere: its mean over the data.
        outputs: names of the outputs that are wanted; None: all, which must all belong to single images.
        **session: ``providers`` and ``threads``.
    """

    def __init__(
        self,
        model: Model,
        layer: str,
        means: NDArray[np.floating],
        outputs: Sequence[str] | None = None,
        **session: Any,
    ) -> None:
        self._session = Session(tail(model.proto, layer, outputs), source=f"{model.path} from '{layer}' on", **session)
        self._layer, self.means, self._outputs = layer, means, outputs
        self._image = next((port.name for port in self._session.inputs if port.name != layer), None)

    def run(
        self, values: NDArray[np.float32], feature_map: NDArray[np.float32], filters: Sequence[int]
    ) -> dict[str, NDArray[Any]]:
        """The model's outputs, K rows: row i has filter ``filters[i]`` switched off.

        Args:
            values: one preprocessed image (1, ...), needed where the graph bypasses the layer.
            feature_map: (C, fh, fw) of the layer in this image.
            filters: ids.
        """
        parts: list[dict[str, NDArray[Any]]] = []
        step = max(1, 4_000_000 // feature_map.size)
        for start in range(0, len(filters), step):
            chosen = list(filters[start : start + step])
            maps = np.repeat(feature_map[None], len(chosen), axis=0)
            maps[np.arange(len(chosen)), chosen] = self.means[chosen][:, None, None]
            feeds: dict[str, NDArray[Any]] = {self._layer: maps}
            if self._image is not None:
                feeds[self._image] = np.repeat(values, len(chosen), axis=0)
            parts.append(self._session.run(self._outputs, feeds))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Free the session."""
        self._session.close()
