"""A guessed input size is tried, and where the graph does not take it, the usual others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from .input_spec import InputSpec
from .onnx_file import MAX_FILE_BYTES, ValueInfo, weight_bytes

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["PIXEL_TYPES", "settled"]

SQUARES: Final = (640, 112, 299, 128, 227, 192, 160, 96, 64, 32, 28, 240, 320, 384, 416, 512)
USUAL: Final = ((224, 224), (256, 256), (32, 320), (48, 320), (64, 256), *((side, side) for side in SQUARES))
"""Sizes that are tried in turn: classifiers, text lines of recognisers, detectors, faces, and rarer ones."""
LARGEST: Final = 640 * 640
PIXEL_TYPES: Final[Mapping[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    **{f"tensor({name})": np.dtype(name).type for name in ("uint8", "int8", "uint16", "int16", "int32")},
}
"""onnxruntime's names of the types that images have."""


def settled(spec: InputSpec, proto: onnx.ModelProto, inputs: Sequence[ValueInfo]) -> InputSpec:
    """The spec, with another size where its own was guessed and the graph does not run at it.

    Args:
        spec: the image input.
        proto: the graph.
        inputs: its inputs.

    Returns:
        The spec itself where the size is known, or runs, or nothing else runs either; the words of the guess say so.
    """
    words = next((guess for guess in spec.guessed if guess.startswith("size ")), None)
    if (
        words is None
        or len(inputs) != 1
        or weight_bytes(proto) > MAX_FILE_BYTES
        or spec.size[0] * spec.size[1] > LARGEST
    ):
        return spec
    from .inference_session import ORT_ERRORS, inference_session

    try:
        session = inference_session(proto.SerializeToString())
    except ORT_ERRORS:
        return spec
    shape = inputs[0].shape or ()
    sides = shape[2:4] if spec.layout == "NCHW" else shape[1:3]
    for size in dict.fromkeys([spec.size, *USUAL]):
        if any(isinstance(side, int) and side > 0 and side != edge for side, edge in zip(sides, size, strict=False)):
            continue
        if _runs(session, spec, size, shape):
            if size == spec.size:
                return spec
            first = f"{spec.size[0]}x{spec.size[1]}"
            said = f"size {size[0]}x{size[1]} (that of the input is dynamic, and the graph does not take {first})"
            guessed = tuple(said if guess is words else guess for guess in spec.guessed)
            return replace(spec, size=size, guessed=guessed)
    said = f"{words.removesuffix(')')}; the graph runs at none of the usual sizes: name its size with --preprocess)"
    return replace(spec, guessed=tuple(said if guess is words else guess for guess in spec.guessed))


def _runs(
    session: onnxruntime.InferenceSession, spec: InputSpec, size: tuple[int, int], shape: Sequence[object]
) -> bool:
    batch = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else 1
    dims = (batch, spec.channels, *size) if spec.layout == "NCHW" else (batch, *size, spec.channels)
    kind = PIXEL_TYPES.get(session.get_inputs()[0].type)
    if kind is None:
        return True
    from .inference_session import ORT_ERRORS

    try:
        session.run(None, {spec.name: np.zeros(dims, kind)})
    except ORT_ERRORS:
        return False
    return True
