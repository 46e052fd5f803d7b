"""Rewrites that bring an ONNX graph into the form that the converters expect. Pure onnx: no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.inliner

from ..errors import ConversionError
from .rewrites.constants import CONSTANT_NODES, FOLD_CONSTANTS
from .rewrites.graph import Graph, Rewrite
from .rewrites.identity import PASS_THROUGH
from .rewrites.norm import FOLD_BATCH_NORM

__all__ = ["REWRITES", "normalise", "rewritten"]

REWRITES: tuple[Rewrite, ...] = (CONSTANT_NODES, PASS_THROUGH, FOLD_CONSTANTS, FOLD_BATCH_NORM)
"""In the order in which they run, once each."""


@np.errstate(all="ignore")
def rewritten(
    proto: onnx.ModelProto,
    rewrites: Sequence[Rewrite] = REWRITES,
    weights: Mapping[str, onnx.TensorProto] | None = None,
) -> Graph:
    """A graph that computes the same outputs in fewer and plainer nodes; `proto` stays as it is.

    Graph outputs keep their names; other values may vanish (a conv's own output, when its norm is folded in).

    Args:
        proto: the model.
        rewrites: the passes, in their order.
        weights: the initializers that `proto` has without their data.

    Raises:
        ConversionError: a rewrite did not reach its postcondition, or the constant part cannot be computed.
    """
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    graph = Graph(proto, weights)
    for rewrite in rewrites:
        try:
            rewrite.apply(graph)
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConversionError(f"rewrite '{rewrite.name}' fails, the file is damaged: {reason}") from error
        left = next(rewrite.leftovers(graph), None)
        if left is not None:
            raise ConversionError(
                f"rewrite '{rewrite.name}' left the {left.op_type} node '{left.name}' "
                f"(value '{left.output[0]}') as it was"
            )
    return graph


def normalise(proto: onnx.ModelProto, rewrites: Sequence[Rewrite] = REWRITES) -> onnx.ModelProto:
    """The model of `rewritten`, weights included."""
    return rewritten(proto, rewrites).to_proto()
