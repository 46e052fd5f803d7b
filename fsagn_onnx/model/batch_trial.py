"""A batch that is free in the file but not in the graph: found by a run, and held to what the graph takes.

Nor is a batch free whose images change one another's answers, as where its statistics are written node by node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import shape_inference

from .batch import fixed_batch
from .input_spec import InputSpec
from .onnx_file import MAX_FILE_BYTES, weight_bytes
from .shapes import skeleton, value_types
from .size_trial import PIXEL_TYPES
from .topology import Topology

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["held_batch", "mixing_node"]

GROUPS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
"""Images at a time that are tried in turn."""
MIXING: Final = frozenset({"Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum"})
"""Operators of one axis, which mix images where it is the first."""
MOVED: Final = 1e-3
"""Share of an output's largest number from which an image's answer has changed."""
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
    if not _free(proto, spec):
        return None
    resized = _resized_batch(proto, spec)
    if resized is None and not _suspicious(proto, spec):
        return None
    session = _session(proto)
    if session is not None and resized is not None and _runs(session, spec, resized):
        return resized
    if session is None or (_runs(session, spec, 1) and _runs(session, spec, 2)):
        return None
    return next((count for count in GROUPS if _runs(session, spec, count)), None)


def mixing_node(proto: onnx.ModelProto, spec: InputSpec) -> str | None:
    """Where the images of a batch change one another's answers, as "op 'value'": batch statistics written out.

    Nodes that reduce the first axis are suspicious; two images are run alone and together.

    Args:
        proto: the graph.
        spec: its image input.

    Returns:
        None where the batch is not free, or every image is answered for itself.
    """
    if not _free(proto, spec):
        return None
    topology = Topology(proto.graph)
    varying = topology.descendants([spec.name])
    mixing = [
        node for node in topology.nodes if node.input and node.input[0] in varying and 0 in _axes(node, topology, proto)
    ]
    session = _session(proto) if mixing else None
    if session is None or not _runs(session, spec, 2):
        return None
    kind = PIXEL_TYPES.get(session.get_inputs()[0].type)
    both = (
        np.random.default_rng(0).uniform(0, 255 * spec.scale, size=(2, *spec.sample_shape)).astype(kind or np.float32)
    )
    alone, together = (session.run(None, {spec.name: images}) for images in (both[:1], both))
    moved = any(_moved(one, two) for one, two in zip(alone, together, strict=True))
    return f"{mixing[0].op_type} '{mixing[0].output[0]}'" if moved else None


def _moved(alone: object, together: object) -> bool:
    """Whether the first image's numbers are others beside a second one; of an output with a row per image."""
    if not isinstance(alone, np.ndarray) or not isinstance(together, np.ndarray) or alone.dtype.kind != "f":
        return False
    if alone.shape[:1] != (1,) or together.shape != (2, *alone.shape[1:]):
        return False
    size = np.nanmax(np.abs(alone), initial=0)
    return bool(np.nanmax(np.abs(alone[0] - together[0]), initial=0) > MOVED * size)


def _axes(node: onnx.NodeProto, topology: Topology, proto: onnx.ModelProto) -> set[int]:
    """Axes that a node reduces or works along, where the first may be one of them; else none."""
    given = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if node.domain or not (node.op_type.startswith("Reduce") or node.op_type in (*MIXING, "MeanVarianceNormalization")):
        return set()
    if node.op_type == "MeanVarianceNormalization":
        return set(given.get("axes", (0, 2, 3)))
    if node.op_type.startswith("Reduce"):
        axes = given.get("axes")
        if axes is None and len(node.input) > 1 and node.input[1] in topology.tensors:
            axes = onnx.numpy_helper.to_array(topology.tensors[node.input[1]]).ravel().tolist()
        if axes is None:
            return set() if given.get("noop_with_empty_axes") or len(node.input) > 1 else {0}
    else:
        axes = [given.get("axis", -1)]
    found = {int(axis) for axis in axes}
    if min(found, default=0) < 0:
        rank = len(value_types(proto, [node.input[0]])[node.input[0]].tensor_type.shape.dim)
        found = {axis + rank if axis < 0 else axis for axis in found}
    return found


def _free(proto: onnx.ModelProto, spec: InputSpec) -> bool:
    inputs = [item for item in proto.graph.input if item.name not in {t.name for t in proto.graph.initializer}]
    return weight_bytes(proto) <= MAX_FILE_BYTES and len(inputs) == 1 and not fixed_batch(proto, spec.name)


def _session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession | None:
    from .inference_session import ORT_ERRORS, inference_session

    try:
        return inference_session(proto)
    except ORT_ERRORS:
        return None


def _resized_batch(proto: onnx.ModelProto, spec: InputSpec) -> int | None:
    """The number of images that a Resize holds among its sizes: it makes so many out of any number."""
    topology = Topology(proto.graph)
    varying = topology.descendants([spec.name])
    for node in topology.nodes:
        sizes = topology.tensors.get(node.input[3]) if node.op_type == "Resize" and len(node.input) > 3 else None
        if sizes is not None and node.input[0] in varying and not any(a.name == "axes" for a in node.attribute):
            numbers = onnx.numpy_helper.to_array(sizes).ravel()
            if numbers.size and numbers[0] > 0:
                return int(numbers[0])
    return None


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
