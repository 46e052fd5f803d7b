"""A batch that is free in the file but not in the graph: found by a run, and held to what the graph takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import shape_inference

from .batch import fixed_batch
from .input_spec import InputSpec
from .onnx_file import MAX_FILE_BYTES, weight_bytes
from .shapes import skeleton
from .size_trial import PIXEL_TYPES
from .topology import Topology

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["held_batch"]

GROUPS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
"""Images at a time that are tried in turn."""
MOST_PIXELS: Final = 32 * 256 * 256
"""No larger batch is run for the trial."""


def held_batch(proto: onnx.ModelProto, spec: InputSpec) -> int | None:
    """How many images the graph takes at a time, where its file says "any number" and two of them do not fit.

    A Reshape may hold the 1 that was exported, a constant input of one image may be joined to many, frames may be
    taken in groups. Shape inference tells which graphs are suspicious; those are run.

    Args:
        proto: the graph.
        spec: its image input.

    Returns:
        None where the batch is declared, or free, or where the graph runs with no number at all.
    """
    inputs = [item for item in proto.graph.input if item.name not in {t.name for t in proto.graph.initializer}]
    if (
        weight_bytes(proto) > MAX_FILE_BYTES
        or len(inputs) != 1
        or fixed_batch(proto, spec.name)
        or not _suspicious(proto, spec)
    ):
        return None
    from .inference_session import ORT_ERRORS, inference_session

    try:
        session = inference_session(proto)
    except ORT_ERRORS:
        return None
    if _runs(session, spec, 1) and _runs(session, spec, 2):
        return None
    return next((count for count in GROUPS if _runs(session, spec, count)), None)


def _suspicious(proto: onnx.ModelProto, spec: InputSpec) -> bool:
    topology = Topology(proto.graph)
    for node in topology.nodes:
        target = topology.tensors.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) > 1 else None
        if target is not None and node.input[0] not in topology.constants:
            sizes = onnx.numpy_helper.to_array(target).ravel()
            if sizes.size and sizes[0] > 0:
                return True
    return not all(_infers(proto, spec, count) for count in (1, 2))


def _infers(proto: onnx.ModelProto, spec: InputSpec, count: int) -> bool:
    """Whether shape inference finds nothing wrong with so many images."""
    bare = skeleton(proto)
    del bare.graph.value_info[:]
    for item in bare.graph.input:
        if item.name == spec.name:
            kind = item.type.tensor_type.elem_type
            item.CopyFrom(onnx.helper.make_tensor_value_info(item.name, kind, [count, *spec.sample_shape]))
    for item in bare.graph.output:
        if item.type.HasField("tensor_type"):
            item.type.tensor_type.ClearField("shape")
    try:
        shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return False
    return True


def _runs(session: onnxruntime.InferenceSession, spec: InputSpec, count: int) -> bool:
    from .inference_session import ORT_ERRORS

    shape = (count, *spec.sample_shape)
    if np.prod(shape) > MOST_PIXELS * spec.channels:
        return False
    kind = PIXEL_TYPES.get(session.get_inputs()[0].type)
    if kind is None:
        return True
    try:
        session.run(None, {spec.name: np.zeros(shape, kind)})
    except ORT_ERRORS:
        return False
    return True
