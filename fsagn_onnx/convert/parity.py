"""The converted module against onnxruntime, at every tap; where they differ, which node differs first."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import helper
from torch import Tensor

from ..errors import ConversionError, ParityError
from ..model.cut import cut
from ..model.graph import Model
from .rewrites.constants import ORT_ERRORS

if TYPE_CHECKING:
    from .tapped import TappedModule

__all__ = ["PROBES", "TOLERANCE", "Parity", "check_parity", "probe_images", "relative_error"]

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""Largest relative error max|a - b| / max|b| between torch (a) and onnxruntime (b) at a value."""

PROBES = ("noise", "picture")
"""The names of the probe images."""

_MAX_MESSAGE_BYTES = 2**31 - 2**20
_TORCH_ERRORS = (RuntimeError, TypeError, ValueError, IndexError, KeyError)


@dataclass(frozen=True)
class Parity:
    """How close the converted module comes to onnxruntime.

    Attributes:
        max_relative_error: the largest of `errors`.
        worst_value: the tap that has it.
        errors: {tap: max|a - b| / max|b| over all inputs}.
        inputs: the images compared.
    """

    max_relative_error: float
    worst_value: str
    errors: dict[str, float]
    inputs: tuple[str, ...]


def probe_images(size: tuple[int, int], channels: int, seed: int = 0) -> dict[str, npt.NDArray[np.uint8]]:
    """Two test images (H, W, c) uint8: seeded noise, and smooth gradients with shapes on them."""
    height, width = size
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j][..., None]
    phase = rng.uniform(0, 2 * math.pi, channels)
    picture = 128 + 60 * np.sin(3 * x + phase) + 60 * np.cos(4 * y - phase)
    disc = (x - 0.35) ** 2 + (y - 0.4) ** 2 < 0.05
    box = (abs(x - 0.7) < 0.15) & (abs(y - 0.65) < 0.2)
    stripes = (np.sin(40 * (x + y)) > 0) & box
    for shape in (disc, box, stripes):
        picture = np.where(shape, rng.uniform(0, 255, channels), picture)
    return dict(zip(PROBES, (noise, np.clip(picture, 0, 255).astype(np.uint8)), strict=True))


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


def check_parity(model: Model, module: TappedModule, *, tolerance: float = TOLERANCE, seed: int = 0) -> Parity:
    """Compare the module with onnxruntime (CPU, no graph optimisation) at every value that it returns.

    Both images go through the module as one batch; a model of fixed batch size runs them in batches of that
    size. So a module that mixes images up, or that holds on to the file's batch size, does not pass.

    Args:
        model: the model that the module was made from.
        module: the converted module, on the CPU.
        tolerance: the largest relative error allowed.
        seed: of the noise image.

    Raises:
        ParityError: a tap differs by more than `tolerance`; names the first diverging node.
        ConversionError: the module or onnxruntime cannot run the images.
    """
    images, batch = _inputs(model, module, seed)
    piece = cut(model.proto, module.values)
    expected = _onnxruntime(piece, module.input_name, images, module.values, model)
    made = _torch(model, module, batch)
    errors = {tap: relative_error(made[tap], value) for tap, value in zip(module.values, expected, strict=True)}
    worst = max(errors, key=lambda tap: errors[tap])
    if not errors[worst] <= tolerance:
        raise ParityError(_divergence(model, module, images, tolerance) or _tap_message(model, worst, errors[worst]))
    return Parity(errors[worst], worst, errors, PROBES)


def _tap_message(model: Model, tap: str, error: float) -> str:
    return (
        f"{model.path.name}: torch and onnxruntime differ by {error:.2g} (relative) at the value '{tap}' "
        "when several images go in at once: the graph holds the batch size that it was exported with; "
        "export it again with a dynamic batch"
    )


def _inputs(model: Model, module: TappedModule, seed: int) -> tuple[Array, Tensor]:
    spec = model.input_spec
    pixels = np.stack(list(probe_images(spec.size, spec.channels, seed).values()))
    images: Array = spec.normalise(pixels)
    wanted = next((v for v in model.proto.graph.input if v.name == module.input_name), None)
    if wanted is not None:
        images = images.astype(helper.tensor_dtype_to_np_dtype(wanted.type.tensor_type.elem_type))
    return images, torch.from_numpy(np.ascontiguousarray(images))


def _fixed_batch(piece: onnx.ModelProto, name: str) -> int | None:
    value = next(v for v in piece.graph.input if v.name == name)
    dims = value.type.tensor_type.shape.dim
    return dims[0].dim_value or None if dims else None


def _onnxruntime(piece: onnx.ModelProto, name: str, images: Array, values: Sequence[str], model: Model) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    size = _fixed_batch(piece, name) or len(images)
    count = -(-len(images) // size)
    padded = np.resize(images, (count * size, *images.shape[1:]))
    parts = []
    try:
        session = _session(piece, options)
        for part in np.split(padded, count):
            parts.append(session.run(list(values), {name: part}))
    except ORT_ERRORS as error:
        reason = " ".join(str(error).split())
        raise ConversionError(f"{model.path.name}: onnxruntime cannot run the model: {reason}") from error
    joined = [np.concatenate(arrays) if np.ndim(arrays[0]) else arrays[0] for arrays in zip(*parts, strict=True)]
    return [array[: len(images)] if np.shape(array)[:1] == (len(padded),) else array for array in joined]


def _session(piece: onnx.ModelProto, options: ort.SessionOptions) -> ort.InferenceSession:
    providers = ["CPUExecutionProvider"]
    weights = sum(len(tensor.raw_data) for tensor in piece.graph.initializer)
    if weights < _MAX_MESSAGE_BYTES:
        return ort.InferenceSession(piece.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(piece, path, save_as_external_data=True, location="weights.bin")
        return ort.InferenceSession(str(path), options, providers=providers)


def _torch(model: Model, module: TappedModule, batch: Tensor) -> dict[str, Array]:
    done: set[str] = set()
    try:
        with torch.no_grad():
            made = module(batch, watch=lambda name, value: done.add(name))
    except _TORCH_ERRORS as error:
        step = next(step for step in module.steps if not done.issuperset(filter(None, step.outputs)))
        reason = " ".join(str(error).split())
        raise ConversionError(
            f"{model.path.name}: node '{step.node}' ({step.op}, value '{step.outputs[0]}') fails in torch: {reason}"
        ) from error
    return {tap: value.numpy() for tap, value in made.items()}


def _divergence(model: Model, module: TappedModule, images: Array, tolerance: float) -> str:
    """What the first node says that differs by more than `tolerance`; "" where none does."""
    original = {value for node in model.proto.graph.node for value in node.output}
    steps = [step for step in module.steps if step.outputs[0] in original]
    values = [step.outputs[0] for step in steps]
    piece = cut(model.proto, module.values)
    del piece.graph.output[:]
    piece.graph.output.extend(helper.make_empty_tensor_value_info(value) for value in values)
    size = _fixed_batch(piece, module.input_name) or 1
    made: dict[str, Array] = {}
    for image in range(len(images)):
        part = np.resize(images[image], (size, *images.shape[1:]))
        expected = _onnxruntime(piece, module.input_name, part, values, model)
        with torch.no_grad():
            module(torch.from_numpy(part), watch=lambda name, value: made.update({name: value.numpy()}))
        for step, value, b in zip(steps, values, expected, strict=True):
            error = relative_error(made[value], b)
            if not error <= tolerance:
                what = _difference(made[value], b)
                return (
                    f"{model.path.name}: torch and onnxruntime differ first at node '{step.node}' "
                    f"({step.op}, value '{value}') by {error:.2g} (relative; allowed {tolerance:.0e}): {what}"
                )
    return ""


def _difference(a: Array, b: Array) -> str:
    if a.shape != b.shape:
        return f"torch has shape {tuple(a.shape)}, onnxruntime {tuple(b.shape)}"
    gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
    where = np.unravel_index(int(np.nan_to_num(gap, nan=np.inf).argmax()), gap.shape)
    position = ", ".join(str(int(i)) for i in where)
    return f"torch {float(a[where]):.6g}, onnxruntime {float(b[where]):.6g} at [{position}]"
