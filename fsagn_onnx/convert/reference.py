"""What onnxruntime makes of a graph (CPU, without graph optimisations): what the converted module is held to."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper

from ..errors import ConversionError
from ..model.cut import cut
from .rewrites.constants import ORT_ERRORS

__all__ = ["fixed_batch", "norm_error", "relative_error", "run"]

Array = npt.NDArray[Any]

_MAX_MESSAGE_BYTES = 2**31 - 2**20


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


def fixed_batch(proto: onnx.ModelProto, name: str) -> int | None:
    """The batch size that the input `name` is fixed to, None where it is free."""
    value = next((item for item in proto.graph.input if item.name == name), None)
    dims = () if value is None else value.type.tensor_type.shape.dim
    return (dims[0].dim_value or None) if dims else None


def run(proto: onnx.ModelProto, values: Sequence[str], name: str, images: Array, source: str) -> list[Array]:
    """The values for a batch of images; a graph of fixed batch size gets it in batches of that size.

    Raises:
        ConversionError: onnxruntime cannot run the graph.
    """
    piece = cut(proto, values)
    del piece.graph.output[:]
    piece.graph.output.extend(helper.make_empty_tensor_value_info(value) for value in values)
    size = fixed_batch(piece, name) or len(images)
    count = -(-len(images) // size)
    padded = np.resize(images, (count * size, *images.shape[1:]))
    parts = []
    try:
        session = _session(piece)
        for part in np.split(padded, count):
            parts.append(session.run(list(values), {name: part}))
    except ORT_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConversionError(f"{source}: onnxruntime cannot run the model: {reason}") from error
    joined = [np.concatenate(arrays) if np.ndim(arrays[0]) else arrays[0] for arrays in zip(*parts, strict=True)]
    return [array[: len(images)] if np.shape(array)[:1] == (len(padded),) else array for array in joined]


def _session(piece: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    weights = sum(len(tensor.raw_data) for tensor in piece.graph.initializer)
    if weights < _MAX_MESSAGE_BYTES:
        return ort.InferenceSession(piece.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(piece, path, save_as_external_data=True, location="weights.bin")
        return ort.InferenceSession(str(path), options, providers=providers)
