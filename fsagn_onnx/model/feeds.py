"""Several inputs: the image stays, the others become constants, so that the rest of the program sees one input."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ..errors import ModelError, UsageError
from .dialects import literal
from .onnx_file import Shape, dtype_name, shape_of

__all__ = ["MAX_FEED_BYTES", "Feed", "bind", "parse_feeds"]

Feed = float | int | bool | Sequence[Any] | NDArray[Any]
"""A number, (nested) lists of numbers, or an array."""

MAX_FEED_BYTES = 64 * 2**20
"""Largest constant that is bound, and largest .npy file that is read."""


def parse_feeds(texts: Iterable[str]) -> dict[str, Feed]:
    """Read `--feed NAME=VALUE`: the value is a number, a list like [640, 640], or an .npy file.

    Raises:
        UsageError: another form, or the same name twice.
        ModelError: the file cannot be read.
    """
    feeds: dict[str, Feed] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise UsageError(f"--feed must be NAME=VALUE, but got '{text}'")
        if name in feeds:
            raise UsageError(f"--feed gives '{name}' twice")
        feeds[name] = _value(name, value)
    return feeds


def _value(name: str, text: str) -> Feed:
    if text.endswith(".npy"):
        return _array(Path(text))
    found = {"true": True, "false": False}.get(text.lower(), literal(text))
    if not isinstance(found, (bool, int, float, list, tuple)):
        raise UsageError(f"--feed {name}: expected a number, a list like [640, 640] or an .npy file, but got '{text}'")
    return found


def _array(path: Path) -> NDArray[Any]:
    """Read an .npy file without pickle, its size checked first."""
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no regular file, expected an .npy file")
        size = path.stat().st_size
        if size > MAX_FEED_BYTES:
            raise ModelError(f"{path} has {size} bytes, more than the limit of {MAX_FEED_BYTES} for a constant input")
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(mapped)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise ModelError(f"{path} is not an .npy file of numbers: {' '.join(str(error).split())[:200]}") from error


def bind(proto: onnx.ModelProto, feeds: Mapping[str, Feed]) -> onnx.ModelProto:
    """Turn inputs into constants.

    Args:
        proto: A model; it is not changed.
        feeds: Input name -> value. A number fills the input's whole shape; a list or an array must fit to it (missing
            leading axes are taken for 1). Dynamic axes take the value's own length, else 1.

    Returns:
        A model in which these inputs are initializers.

    Raises:
        ModelError: no such input, or a value that does not fit to its type or shape.
    """
    if not feeds:
        return proto
    bound = onnx.ModelProto()
    bound.CopyFrom(proto)
    graph = bound.graph
    inputs = {item.name: item for item in graph.input}
    for name, value in feeds.items():
        if name not in inputs:
            nearest = difflib.get_close_matches(name, inputs, n=3, cutoff=0.3) or list(inputs)[:5]
            raise ModelError(f"--feed: no input '{name}'; nearest: {', '.join(map(repr, nearest))}")
        tensor = _constant(inputs[name], value)
        for kind in ("input", "initializer"):
            kept = [item for item in getattr(graph, kind) if item.name != name]
            graph.ClearField(kind)
            getattr(graph, kind).extend(kept)
        graph.initializer.append(tensor)
    return bound


def _constant(item: onnx.ValueInfoProto, value: Feed) -> onnx.TensorProto:
    if item.type.WhichOneof("value") != "tensor_type":
        raise ModelError(f"--feed: the input '{item.name}' is not a tensor")
    kind = item.type.tensor_type.elem_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        array = np.asarray(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"--feed: the input '{item.name}' cannot be given: {' '.join(str(error).split())}") from error
    if array.dtype.kind not in "biuf" or dtype.kind not in "biufV":
        raise ModelError(f"--feed: the input '{item.name}' takes {dtype_name(kind)}, but got {array.dtype} values")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
        exact = dtype.kind not in "biu" or np.array_equal(cast.astype(np.float64), array.astype(np.float64))
    if not exact:
        raise ModelError(f"--feed: the input '{item.name}' takes {dtype_name(kind)}, which cannot hold {_brief(array)}")
    shape = _shape(item.name, shape_of(item.type.tensor_type), array.shape)
    if math.prod(shape) * dtype.itemsize > MAX_FEED_BYTES:
        raise ModelError(f"--feed: the input '{item.name}' of shape {shape} has more than {MAX_FEED_BYTES} bytes")
    return numpy_helper.from_array(np.array(np.broadcast_to(cast, shape)), item.name)


def _shape(name: str, wanted: Shape | None, given: tuple[int, ...]) -> tuple[int, ...]:
    """The constant's shape: the input's, its dynamic axes as long as the value is."""
    if wanted is None:
        return given
    aligned = (1,) * (len(wanted) - len(given)) + given
    fits = len(given) <= len(wanted) and all(
        not isinstance(want, int) or want == have or have == 1 for want, have in zip(wanted, aligned, strict=True)
    )
    if not fits:
        words = ", ".join("?" if dim is None else str(dim) for dim in wanted)
        raise ModelError(f"--feed: the input '{name}' must have the shape ({words}), but the value has {given}")
    return tuple(want if isinstance(want, int) else have for want, have in zip(wanted, aligned, strict=True))


def _brief(array: NDArray[Any]) -> str:
    text = " ".join(str(array.tolist()).split())
    return text if len(text) <= 60 else text[:57] + "..."
