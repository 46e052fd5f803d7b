"""One ONNX graph in onnxruntime: providers, threads, one-line errors."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ..errors import FsagnError, ModelError, UsageError
from .batching import fixed_size, in_batches
from .providers import CPU, CUDA, load_cuda_libraries, wanted_providers

Array = NDArray[Any]

INLINE_LIMIT = 2**31 - 2**20
"""Bytes of weights up to which a graph is handed over in memory; a protobuf message cannot reach 2 GiB."""

DTYPES: Final[Mapping[str, type[np.generic]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}

_log = logging.getLogger(__name__)
_WARNING, _FATAL = 2, 4  # onnxruntime's log severities; warning is its default

# onnxruntime's exceptions have no common base of their own.
ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    *{kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)},
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Port:
    """An input or output of a session: its name, its element type (`DTYPES`) and its shape (None: dynamic)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Session:
    """An onnxruntime session that speaks in FsagnError.

    Attributes:
        inputs: the graph's inputs.
        outputs: the graph's outputs.
        provider: name of the provider that computes, for example ``CUDAExecutionProvider``.

    Args:
        model: path of an ONNX file or a graph in memory (never changed).
        providers: see `wanted_providers`. ``auto`` falls back to the CPU, and logs a line that says why, where CUDA's
            libraries do not load; a provider that was named explicitly must work.
        threads: threads inside an operator; None leaves it to onnxruntime.

    Raises:
        ModelError: onnxruntime cannot load the graph.
        UsageError: no such provider, or it does not work; or ``threads`` < 1.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, but got {threads}")
        self.source = "graph in memory" if isinstance(model, onnx.ModelProto) else str(model)
        wanted = wanted_providers(providers)
        self._session: onnxruntime.InferenceSession | None
        self._session, reason = _open(model, wanted, threads, self.source)
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted[0]:
            self._explain_fallback(wanted[0], reason, forced=providers != "auto")
        self.inputs = tuple(_port(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_port(argument) for argument in self._session.get_outputs())

    def _explain_fallback(self, wanted: str, reason: str, *, forced: bool) -> None:
        because = f" ({reason})" if reason else ""
        if forced:
            self.close()
            raise UsageError(
                f"{wanted} does not work here{because}; use --providers auto to fall back to the CPU, "
                "or install the CUDA and cuDNN that your onnxruntime-gpu asks for"
            )
        _log.warning("%s does not work here, computing on the CPU%s", wanted, because)

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute outputs.

        Args:
            outputs: names of the wanted outputs; None: all.
            feeds: an array per input; floating point is cast to the input's own type. More or fewer images than
                the graph's fixed batch go through it in groups.

        Returns:
            name -> array, in the order asked.

        Raises:
            FsagnError: the session is closed, or onnxruntime failed; the first line of its message.
        """
        names = [port.name for port in self.outputs] if outputs is None else list(outputs)
        dtypes = {port.name: DTYPES.get(port.dtype) for port in self.inputs}
        given = {name: cast(array, dtypes.get(name)) for name, array in feeds.items()}
        counts = {len(array) if array.ndim else 0 for array in given.values()}
        batch = fixed_size(port.shape for port in self.inputs if port.name in given)
        if batch is not None and len(counts) == 1 and counts.isdisjoint((0, batch)):
            return in_batches(lambda part: self._computed(names, part), given, batch)
        return self._computed(names, given)

    def _computed(self, names: list[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self._session is None:
            raise FsagnError(f"{self.source}: the session is closed")
        try:
            computed = self._session.run(names, feeds)
        except ORT_ERRORS as error:
            raise FsagnError(f"{self.source}: onnxruntime failed on {self.provider}: {first_line(error)}") from error
        return dict(zip(names, computed, strict=True))

    def close(self) -> None:
        """Free the session's memory; closing twice is fine."""
        self._session = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def cast(array: Array, dtype: type[np.generic] | None) -> Array:
    """Floats as an input's own type, rounded for one of whole numbers; anything else as it is."""
    if dtype is None or array.dtype == dtype or not np.issubdtype(array.dtype, np.floating):
        return np.ascontiguousarray(array)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        array = np.clip(np.rint(array), limits.min, limits.max)
    return np.ascontiguousarray(array, dtype=dtype)


def _port(argument: onnxruntime.NodeArg) -> Port:
    shape = tuple(extent if isinstance(extent, int) else None for extent in argument.shape)
    return Port(argument.name, argument.type, shape)


def _open(
    model: str | Path | onnx.ModelProto, providers: tuple[str, ...], threads: int | None, source: str
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session, and why the first of the providers may be missing from it."""
    reason = load_cuda_libraries() if CUDA in providers else ""
    with tempfile.TemporaryDirectory(prefix="fsagn-") as folder:
        graph = _loadable(model, Path(folder))
        try:
            return _create(graph, providers, threads), reason
        except ORT_ERRORS as error:
            failure = error
        if providers != (CPU,):
            try:
                return _create(graph, (CPU,), threads), reason or first_line(failure)
            except ORT_ERRORS as error:
                failure = error
    raise ModelError(f"{source}: onnxruntime cannot load it: {first_line(failure)}") from failure


def _create(graph: str | bytes, providers: tuple[str, ...], threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    # A provider library that does not load is reported by the process-wide logger, several lines in colour.
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=list(providers), enable_fallback=0)
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def _loadable(model: str | Path | onnx.ModelProto, folder: Path) -> str | bytes:
    """What onnxruntime opens: the path, the graph's bytes, or a file in ``folder`` where these are too many."""
    if not isinstance(model, onnx.ModelProto):
        if not Path(model).is_file():
            raise ModelError(f"{model}: no such file")
        return str(model)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < INLINE_LIMIT:
        content: bytes = model.SerializeToString()
        return content
    return str(_write_outside(model, folder))


def _write_outside(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a graph of 2 GiB or more with its weights in a file beside it."""
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, full = light.graph, model.graph
    graph.name = full.name
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, name).extend(getattr(full, name))
    with (folder / "weights").open("wb") as weights:
        for tensor in full.initializer:
            if not tensor.HasField("raw_data"):
                graph.initializer.append(tensor)
                continue
            outside = graph.initializer.add(
                name=tensor.name,
                data_type=tensor.data_type,
                dims=tensor.dims,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            for key, value in (
                ("location", "weights"),
                ("offset", weights.tell()),
                ("length", len(tensor.raw_data)),
            ):
                outside.external_data.add(key=key, value=str(value))
            weights.write(tensor.raw_data)
    path = folder / "graph.onnx"
    path.write_bytes(light.SerializeToString())
    return path
