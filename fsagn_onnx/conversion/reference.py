"""What onnxruntime makes of a graph (CPU, without graph optimisations): what the converted module is held to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from ..errors import ConversionError
from ..model.batch import fixed_batch
from ..model.cut import cut
from ..model.inference_session import ORT_ERRORS, inference_session

__all__ = ["norm_error", "relative_error", "run_reference", "saturation_error"]

Array = npt.NDArray[Any]


FED = frozenset({
    TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16,
    TensorProto.UINT16, TensorProto.INT32, TensorProto.UINT32, TensorProto.INT64, TensorProto.UINT64, TensorProto.BOOL,
})  # fmt: skip
"""Types of weights that onnxruntime takes as inputs out of numpy: no halves of a byte, no bfloat16."""


def relative_error(a: Array, b: Array) -> float:
    """max|a - b| / max|b|; 0 for equal ones (NaN and infinity included), infinite for other shapes."""
    if a.shape != b.shape:
        return math.inf
    if a.size == 0 or np.array_equal(a, b, equal_nan=b.dtype.kind == "f"):
        return 0.0
    first, second = a.astype(np.float64), b.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(first - second))
    if not np.isfinite(gap).all():
        return math.inf
    scale = np.abs(second[np.isfinite(second)]).max(initial=0.0)
    return float(gap.max() / scale) if scale else math.inf


def norm_error(a: Array, b: Array) -> float:
    """‖a - b‖ / ‖b‖; infinite for other shapes and where either is not finite."""
    if a.shape != b.shape:
        return math.inf
    first, second = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return relative_error(a, b)
    gap, size = float(np.linalg.norm(first - second)), float(np.linalg.norm(second))
    return gap / size if size else (math.inf if gap else 0.0)


def run_reference(
    proto: onnx.ModelProto,
    values: Sequence[str],
    name: str,
    images: Array,
    source: str,
    module: nn.Module | None = None,
) -> list[Array]:
    """The values for a batch of images; a graph of fixed batch size gets it in batches of that size.

    Args:
        proto: the graph; not changed.
        values: what to compute.
        name: of the image input.
        images: the batch (N, ...).
        source: name of the file, for messages.
        module: where its weights are the graph's to the bit, they are used, so that they are not in memory twice.

    Raises:
        ConversionError: onnxruntime cannot run the graph.
    """
    piece = cut(proto, values, weights=False)
    del piece.graph.output[:]
    piece.graph.output.extend(helper.make_empty_tensor_value_info(value) for value in values)
    size = fixed_batch(piece, name) or len(images)
    count = -(-len(images) // size)
    padded = np.concatenate([images, images[-1:].repeat(count * size - len(images), axis=0)])  # as the module fills up
    parts = []
    try:
        session, weights = _session(piece, proto, module)
        for part in np.split(padded, count):
            parts.append(session.run(list(values), {name: part, **weights}))
    except ORT_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConversionError(f"{source}: onnxruntime cannot run the model: {reason}") from error
    joined = [
        np.concatenate(arrays) if count > 1 and np.ndim(arrays[0]) else arrays[0] for arrays in zip(*parts, strict=True)
    ]
    return [array[: len(images)] if np.shape(array)[:1] == (len(padded),) else array for array in joined]


def saturation_error(proto: onnx.ModelProto, name: str, images: Array) -> float:
    """How far the outputs of a session that anybody opens are from exact 8-bit sums: the largest `norm_error`.

    0 where onnxruntime cannot run the graph.
    """
    part = np.resize(images, (fixed_batch(proto, name) or len(images), *images.shape[1:]))
    try:
        plain, exact = (
            inference_session(proto, threads=torch.get_num_threads(), exact=exact).run(None, {name: part})
            for exact in (False, True)
        )
    except ORT_ERRORS:
        return 0.0
    return max((norm_error(a, b) for a, b in zip(plain, exact, strict=True)), default=0.0)


def _session(
    piece: onnx.ModelProto, proto: onnx.ModelProto, module: nn.Module | None
) -> tuple[ort.InferenceSession, Mapping[str, Array]]:
    """A session, and the weights that it takes as inputs: as initializers it would hold copies of them."""
    threads = torch.get_num_threads()
    bare = {tensor.name for tensor in piece.graph.initializer if tensor.data_location == TensorProto.EXTERNAL}
    large = [tensor for tensor in proto.graph.initializer if tensor.name in bare]
    if whole := [tensor for tensor in large if tensor.data_type not in FED]:
        names = {tensor.name for tensor in whole}
        kept = [tensor for tensor in piece.graph.initializer if tensor.name not in names]
        del piece.graph.initializer[:]
        piece.graph.initializer.extend([*kept, *whole])
        large = [tensor for tensor in large if tensor.name not in names]
    try:
        session = inference_session(_fed(piece, large), threads=threads, optimised=False)
    except ORT_ERRORS:  # an op that wants its weights constant
        if not large:
            raise
        kept = [tensor for tensor in piece.graph.initializer if tensor.name not in bare]
        del piece.graph.initializer[:]
        piece.graph.initializer.extend([*kept, *large])
        return inference_session(piece, threads=threads, optimised=False), {}
    return session, dict(_arrays(large, module))


def _fed(piece: onnx.ModelProto, large: Sequence[TensorProto]) -> onnx.ModelProto:
    """The graph with the tensors `large` as inputs."""
    fed, names = onnx.ModelProto(), {tensor.name for tensor in large}
    fed.CopyFrom(piece)
    graph = fed.graph
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(tensor for tensor in piece.graph.initializer if tensor.name not in names)
    graph.input.extend(value for value in piece.graph.input if value.name not in names)
    graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in large)
    return fed


def _arrays(tensors: Sequence[TensorProto], module: nn.Module | None) -> Iterator[tuple[str, Array]]:
    """Each tensor's name and elements: those of the module where they are equal to the bit, else a copy."""
    alike: dict[tuple[int, ...], list[Array]] = defaultdict(list)
    for weight in (*module.parameters(), *module.buffers()) if module is not None else ():
        if weight.device.type == "cpu" and weight.is_contiguous() and weight.dtype == torch.float32:
            alike[tuple(weight.shape)].append(weight.detach().numpy())
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        bits = array.reshape(-1).view(np.uint8)
        for other in alike[array.shape] if array.dtype == np.float32 else ():
            if np.array_equal(other.reshape(-1)[:64].view(np.uint8), bits[:256]) and np.array_equal(
                other.reshape(-1).view(np.uint8), bits
            ):
                array = other
                break
        yield tensor.name, array
