"""The converted module against onnxruntime, at every tap; where they differ, which node differs first."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper
from torch import Tensor

from ..errors import ConversionError, ParityError
from ..model.half import is_half
from ..model.inference_session import EXACT_SUMS, sums_saturate
from ..model.model import Model
from ..model.quantised import is_quantised
from .divergence import aligned, first_divergence, node_errors, unlike_rounding
from .reference import norm_error, relative_error, run_reference, saturation_error

if TYPE_CHECKING:
    from .tapped_module import TappedModule

__all__ = [
    "DRIFT_LIMIT", "PROBES", "ROUNDED_TOLERANCE", "TOLERANCE", "Parity", "check_parity", "probe_images",
    "relative_error",
]  # fmt: skip

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""Largest relative error max|a - b| / max|b| between torch (a) and onnxruntime (b) at a value."""

ROUNDED_TOLERANCE = 2e-2
"""Largest error ‖a - b‖ / ‖b‖ between a half-precision file in onnxruntime and its float32 form."""

NODE_TOLERANCE = 1e-5
"""Largest relative error of any single node of a float network whose taps differ by more than `TOLERANCE`."""

DRIFT_LIMIT = 0.5
"""Largest ‖a - b‖ / ‖b‖ of a quantised model's tap when both sides round by themselves: a number on a rounding
threshold falls to either side, moves by a whole step (1/255 of its range), and everything behind it follows. Two
builds of onnxruntime differ from each other in the same way."""

HALF_TOLERANCE = 1e-3
"""Largest relative error of an output that is float16: its last digit, 2^-11 of the value, may differ."""

PROBES = ("noise", "picture")
"""The names of the probe images."""

_TORCH_ERRORS = (RuntimeError, TypeError, ValueError, IndexError, KeyError)


_REASONS = {
    "float": "float32 sums in another order",
    "quantised": "float32 sums in another order; node by node, up to the rounding",
    "amplified": "the network amplifies float32's rounding: node by node, each on onnxruntime's inputs; torch in "
    "float32 is as far from float64 as onnxruntime is",
    "half": "the file computes in half precision, this in float32",
}


@dataclass(frozen=True)
class Parity:
    """How close the converted module comes to onnxruntime.

    Attributes:
        max_relative_error: the largest of `errors`.
        worst_value: the tap that has it.
        errors: {tap: max|a - b| / max|b| over all inputs}; where the model is compared node by node, the largest of all
            nodes up to the tap, each on onnxruntime's own inputs.
        inputs: the images compared.
        tolerance: the largest error allowed.
        reason: why it is what it is.
        drift: where the model is compared node by node: the largest difference at a tap when both sides run by
            themselves; ‖a - b‖ / ‖b‖ for a quantised model, max|a - b| / max|b| for a float one.
    """

    max_relative_error: float
    worst_value: str
    errors: dict[str, float]
    inputs: tuple[str, ...]
    tolerance: float = TOLERANCE
    reason: str = _REASONS["float"]
    drift: float = 0.0


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


@np.errstate(all="ignore")
def check_parity(model: Model, module: TappedModule, *, tolerance: float | None = None, seed: int = 0) -> Parity:
    """Compare the module with onnxruntime (CPU, no graph optimisation) at every value that it returns.

    Both images go through the module as one batch; a model of fixed batch size runs them in batches of that
    size. So a module that mixes images up, or that holds on to the file's batch size, does not pass.

    A quantised model is compared node by node, each on onnxruntime's own inputs and up to the rounding, as
    roundings that fall differently would add up; and as a whole, up to `DRIFT_LIMIT`. So is a float network that
    amplifies float32's rounding beyond the tolerance, with `NODE_TOLERANCE`; and onnxruntime must then be about as far
    from the result in float64 as torch is. A model that was
    prepared (half precision, onnxruntime's own operators) is compared with its prepared graph, and that with the
    file's.

    Args:
        model: the model that the module was made from.
        module: the converted module, on the CPU.
        tolerance: the largest error allowed; `TOLERANCE` unless told.
        seed: of the noise image.

    Raises:
        ParityError: a tap differs by more than `tolerance`; names the first diverging node.
        ConversionError: the module or onnxruntime cannot run the images.
    """
    images, batch = _inputs(model, module, seed)
    allowed = TOLERANCE if tolerance is None else tolerance
    try:
        parity = _checked(model, module, images, batch, allowed)
    except ParityError as error:
        saturation = _saturation(model, module, images)
        if not saturation:
            raise
        raise ParityError(f"{error}; {saturation}") from error
    saturation = _saturation(model, module, images)
    return replace(parity, reason=f"{parity.reason}; {saturation}") if saturation else parity


def _saturation(model: Model, module: TappedModule, images: Array) -> str:
    """What to say where onnxruntime, left to itself, gets the model's 8-bit sums wrong on this processor."""
    if not (is_quantised(model.source) and sums_saturate()):
        return ""
    error = saturation_error(model.source, module.input_name, _typed(model.source, module.input_name, images))
    return (
        f"this CPU adds 8-bit products in 16 bits: the plain model itself is off by {error:.2g} (‖a - b‖ / ‖b‖) where "
        f"a session is opened without {EXACT_SUMS} = 1"
        if error
        else ""
    )


def _checked(model: Model, module: TappedModule, images: Array, batch: Tensor, allowed: float) -> Parity:
    name = model.path.name
    values = run_reference(model.proto, module.values, module.input_name, images, name, module)
    expected = dict(zip(module.values, values, strict=True))
    made = _torch(model, module, batch)
    if is_quantised(model.proto):
        parity = _quantised(model, module, images, (made, expected), allowed)
    else:
        parity = _float(model, module, images, (made, expected), allowed)
    if model.source is model.proto or model.training_mode:
        return parity  # nodes in training mode answer otherwise in a batch, or every time
    return _with_source(model, module, images, parity)


Values = tuple[dict[str, Array], dict[str, Array]]
"""{tap: torch's}, {tap: onnxruntime's}."""


def _float(model: Model, module: TappedModule, images: Array, values: Values, allowed: float) -> Parity:
    made, expected = values
    errors = {tap: relative_error(made[tap], value) for tap, value in expected.items()}
    limits = {tap: max(allowed, HALF_TOLERANCE) if v.dtype == np.float16 else allowed for tap, v in expected.items()}
    worst = max(errors, key=lambda tap: errors[tap] / limits[tap])
    if limits[worst] < errors[worst] <= DRIFT_LIMIT:
        least = min(NODE_TOLERANCE, allowed)
        found, wrong = node_errors(model.proto, module, images, least, model.path.name)
        if not wrong and _is_rounding(model, module, images, least):
            return _by_node(module, found, expected, allowed, "amplified", errors[worst])
    if not errors[worst] <= limits[worst]:
        message = first_divergence(model.proto, module, images, allowed, model.path.name)
        raise ParityError(message or _tap_message(model, worst, errors[worst]))
    return Parity(errors[worst], worst, errors, PROBES, allowed)


def _is_rounding(model: Model, module: TappedModule, images: Array, least: float) -> bool:
    try:
        return not unlike_rounding(model.proto, module, images, least, model.path.name)
    except _TORCH_ERRORS:  # a node that torch cannot compute in float64
        return False


def _quantised(model: Model, module: TappedModule, images: Array, values: Values, allowed: float) -> Parity:
    name, (made, expected) = model.path.name, values
    found, wrong = node_errors(model.proto, module, images, allowed, name)
    if wrong:
        raise ParityError(wrong)
    alike = aligned(model.proto, module, images, name)
    found |= _aligned_errors(model, alike, expected, allowed)
    drifts = {tap: norm_error(made[tap], value) for tap, value in expected.items()}
    furthest = max(drifts, key=lambda tap: drifts[tap])
    if not drifts[furthest] <= DRIFT_LIMIT:
        raise ParityError(
            f"{name}: every node agrees with onnxruntime, but their roundings add up to {drifts[furthest]:.2g} "
            f"(‖a - b‖ / ‖b‖; allowed {DRIFT_LIMIT}) at the value '{furthest}': explain the float model"
        )
    return _by_node(module, found, expected, allowed, "quantised", drifts[furthest])


def _aligned_errors(
    model: Model, whole: tuple[dict[str, Array], str], expected: dict[str, Array], allowed: float
) -> dict[str, float]:
    """{tap: relative error} of a quantised model whose roundings fall to onnxruntime's side."""
    made, first = whole
    errors = {tap: relative_error(made[tap], value) for tap, value in expected.items()}
    for tap, error in errors.items():
        limit = max(allowed, HALF_TOLERANCE) if expected[tap].dtype == np.float16 else allowed
        if not error <= limit:
            raise ParityError(
                f"{model.path.name}: the value '{tap}' of the whole network differs from onnxruntime's by {error:.2g} "
                f"(relative; allowed {limit:.0e}), although each number near a rounding threshold falls to its side"
                f"{'; first, ' if first else ''}{first}"
            )
    return errors


def _by_node(
    module: TappedModule, found: dict[str, float], taps: Collection[str], allowed: float, reason: str, drift: float
) -> Parity:
    """The result of a comparison node by node: a tap has the largest error of all nodes up to it."""
    errors, so_far = {}, 0.0
    for step in module.steps:
        so_far = max([so_far, *(found.get(value, 0.0) for value in step.outputs)])
        errors.update({value: so_far for value in step.outputs if value in taps})
    worst = max(errors, key=lambda tap: errors[tap])
    return Parity(errors[worst], worst, errors, PROBES, allowed, _REASONS[reason], drift)


def _with_source(model: Model, module: TappedModule, images: Array, parity: Parity) -> Parity:
    """Hold the prepared graph to the file's, where a tap (or what it is a float view of) is in both.

    Returns:
        `parity` with the larger of both errors for each tap.
    """
    name, half, pairs = model.path.name, is_half(model.source), _common(model, module)
    if not pairs or not (half or _other_ops(model)):
        return parity
    values = list(dict.fromkeys(pairs.values()))
    try:
        theirs = run_reference(
            model.source, values, module.input_name, _typed(model.source, module.input_name, images), name
        )
    except ConversionError:
        if not half:
            raise
        return parity  # onnxruntime's CPU has no kernels for bfloat16: the float32 graph is all there is to compare
    rounded = half or is_quantised(model.proto)
    if rounded and not half:
        alike, own = aligned(model.source, module, images, name), dict(zip(values, theirs, strict=True))
        floats = {tap: own[value] for tap, value in pairs.items() if tap == value}
        _aligned_errors(model, alike, floats, allowed=TOLERANCE)
    ours = run_reference(model.proto, values, module.input_name, images, name, module)
    distance = norm_error if rounded else relative_error
    allowed = ROUNDED_TOLERANCE if half else DRIFT_LIMIT if rounded else TOLERANCE
    found = {value: distance(a, b) for value, a, b in zip(values, ours, theirs, strict=True)}
    worst = max(found, key=lambda value: found[value])
    if not found[worst] <= allowed:
        raise ParityError(
            f"{name}: the graph in float32 and standard operators differs from the file's own at the value '{worst}' "
            f"by {found[worst]:.2g} (allowed {allowed:.0e})"
        )
    if rounded and not half:
        return replace(parity, drift=max(parity.drift, found[worst]))
    errors = {tap: max(error, found.get(pairs.get(tap, ""), 0.0)) for tap, error in parity.errors.items()}
    tap = max(errors, key=lambda value: errors[value])
    tolerance, reason = (allowed, _REASONS["half"]) if half else (parity.tolerance, parity.reason)
    return replace(
        parity, max_relative_error=errors[tap], worst_value=tap, errors=errors, tolerance=tolerance, reason=reason
    )


def _other_ops(model: Model) -> bool:
    """Whether preparing did more than add float views."""
    prepared = {(n.op_type, n.domain, tuple(n.output)) for n in model.proto.graph.node}
    return any((n.op_type, n.domain, tuple(n.output)) not in prepared for n in model.source.graph.node)


def _common(model: Model, module: TappedModule) -> dict[str, str]:
    """{tap: the same value in the file's graph, or the integers that the tap is a float view of}."""
    theirs = {value for node in model.source.graph.node for value in node.output if value}
    makers = {value: node for node in model.proto.graph.node for value in node.output}
    found = {}
    for tap in module.values:
        if tap in theirs:
            found[tap] = tap
        elif makers[tap].input and makers[tap].input[0] in theirs:
            found[tap] = makers[tap].input[0]
    return found


def _typed(proto: onnx.ModelProto, name: str, images: Array) -> Array:
    kind = next(v for v in proto.graph.input if v.name == name).type.tensor_type.elem_type
    made: Array = images.astype(helper.tensor_dtype_to_np_dtype(kind))
    return made


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
    if any(value.name == module.input_name for value in model.proto.graph.input):
        images = _typed(model.proto, module.input_name, images)
    return images, torch.from_numpy(np.ascontiguousarray(images))


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
