"""The graph that everything works on: standard operators, inference, float32, a float value per quantised conv."""

from __future__ import annotations

import onnx

from .contributed import expand, needs_expansion
from .half import is_half, widen
from .narrow_types import has_narrow_types, widen_narrow_types
from .quantised import add_float_views, lacks_float_views
from .training_mode import has_training_nodes, leave_training

__all__ = ["prepared"]


def prepared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model that computes the same: `proto` itself where there is nothing to do, else a changed copy.

    Values keep their names and their meaning, except that half becomes float32 (`half.widen`) and that nodes in
    training mode take each picture as a batch of its own (`training_mode`).

    Raises:
        ModelError: a node of onnxruntime's own operators is malformed.
    """
    tests = (needs_expansion, is_half, has_narrow_types, has_training_nodes, lacks_float_views)
    if not any(test(proto) for test in tests):
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    if has_narrow_types(made):
        widen_narrow_types(made)
    if needs_expansion(made):
        expand(made)
    if has_training_nodes(made):
        leave_training(made)
    if is_half(made):
        widen(made)
    add_float_views(made)
    return made
