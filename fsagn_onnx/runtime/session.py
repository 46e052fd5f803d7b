"""One ONNX graph in onnxruntime: providers, threads, one-line errors; shared between threads, survives a fork."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from ..data.closing import Closing
from ..errors import FsagnError, UsageError
from ..model.inference_session import ORT_ERRORS
from .fixed_batch import fixed_size, in_batches
from .providers import wanted_providers
from .tuning import Tuning, first_line, open_session

Array = NDArray[Any]

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


@dataclass(frozen=True)
class Port:
    """An input or output of a session: its name, its element type (`DTYPES`) and its shape (None: dynamic)."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


_renewing = threading.Lock()


_open: weakref.WeakSet[Session] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: a new lock, and sessions that are never freed, which would wait for threads that are gone."""
    global _renewing
    _renewing = threading.Lock()
    for session in _open:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session._session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Session(Closing):
    """An onnxruntime session that speaks in FsagnError.

    Threads may share it. After a fork the child opens the file anew when it first computes (onnxruntime's threads do
    not survive a fork); pickled, for example to a spawned process, it opens the file there.

    Attributes:
        source: what errors call the graph.
        inputs: the graph's inputs.
        outputs: the graph's outputs.
        provider: name of the provider that computes, for example ``CUDAExecutionProvider``.

    Args:
        model: path of an ONNX file or a graph in memory (never changed).
        providers: see `wanted_providers`. ``auto`` falls back to the CPU, and logs a line that says why, where CUDA's
            libraries do not load; a provider that was named explicitly must work.
        threads: threads inside an operator; None leaves it to onnxruntime.
        tuning: cache and what concerns CUDA; ``threads`` goes before its own.
        source: what to call the graph in errors; the path unless told.

    Raises:
        ModelError: onnxruntime cannot load the graph.
        UsageError: no such provider, or it does not work; or ``threads`` < 1.
    """

    def __init__(
        self,
        model: str | Path | onnx.ModelProto,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        tuning: Tuning | None = None,
        source: str | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, but got {threads}")
        tuning = tuning or Tuning()
        tuning = replace(tuning, threads=threads) if threads is not None else tuning
        self.source = source or ("graph in memory" if isinstance(model, onnx.ModelProto) else str(model))
        self._file = None if isinstance(model, onnx.ModelProto) else str(model)
        self._providers, self._tuning = providers, tuning
        wanted = wanted_providers(providers)
        self._session: onnxruntime.InferenceSession | None
        self._session, reason = open_session(model, wanted, tuning, self.source)
        self._process = os.getpid()
        self._single = False
        _open.add(self)
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted[0]:
            self._explain_fallback(wanted[0], reason, forced=providers != "auto")
        self.inputs = tuple(_port(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_port(argument) for argument in self._session.get_outputs())

    def __reduce__(self) -> tuple[Callable[..., Session], tuple[Any, ...]]:
        if self._file is None:
            raise FsagnError("a session of a graph in memory cannot go to another process; open it there")
        return Session, (self._file, self._providers, None, self._tuning, self.source)

    @property
    def batch(self) -> int | None:
        """The images that the graph takes at a time, None if any number; `run` takes any number either way."""
        return fixed_size(port.shape for port in self.inputs)

    def reopened(self, providers: str | Sequence[str], threads: int | None) -> Session:
        """Another session of the same file.

        Raises:
            FsagnError: the graph is in memory, and not kept.
        """
        if self._file is None:
            raise FsagnError(f"{self.source}: a graph in memory cannot be opened again; write it to a file first")
        return Session(self._file, providers, threads, source=self.source)

    @property
    def records(self) -> bool:
        """Whether its first pass is recorded as a CUDA graph."""
        return self._tuning.cuda_graph

    def live(self) -> onnxruntime.InferenceSession:
        """Onnxruntime's session, opened anew in a forked child.

        Raises:
            FsagnError: it is closed, or its graph was in memory and this is a forked child.
        """
        session = self._session
        if session is None:
            raise FsagnError(f"{self.source}: the session is closed")
        if self._process == os.getpid():
            return session
        if self._file is None:
            raise FsagnError(f"{self.source}: opened before this process was forked; open it in the child")
        with _renewing:
            if self._process != os.getpid():
                self._session, _ = open_session(
                    self._file, wanted_providers(self._providers), self._tuning, self.source
                )
                self._process = os.getpid()
        return self.live()

    def _explain_fallback(self, wanted: str, reason: str, *, forced: bool) -> None:
        because = f" ({reason})" if reason else ""
        if forced:
            self.close()
            raise UsageError(
                f"{wanted} does not work here{because}; use --providers auto to fall back to the CPU, "
                "or install the CUDA and cuDNN that your onnxruntime-gpu asks for"
            )
        _log.warning("%s does not work here, computing on the CPU%s", wanted, because)

    def run(
        self,
        outputs: Sequence[str] | None,
        feeds: Mapping[str, Array],
        axes: Callable[[], Mapping[str, int | None]] | None = None,
    ) -> dict[str, Array]:
        """Compute outputs.

        Args:
            outputs: names of the wanted outputs; None: all.
            feeds: an array per input; floating point is cast to the input's own type. More or fewer images than
                the graph's fixed batch go through it in groups, and one by one where the graph fails with several.
            axes: gives the axis of the images of each output, see `in_batches`; asked for groups only.

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
            return self._grouped(names, given, batch, axes)
        if batch is not None or counts <= {0, 1} or len(counts) != 1:
            return self._computed(names, given)
        if self._single:
            return self._grouped(names, given, 1, axes)
        try:
            return self._computed(names, given)
        except FsagnError as error:  # declared for any number, but takes one: a constant image beside it, a baked shape
            try:
                computed = self._grouped(names, given, 1, axes)
            except FsagnError:
                raise error from error.__cause__
            self._single = True
            return computed

    def _grouped(
        self,
        names: list[str],
        feeds: dict[str, Array],
        size: int,
        axes: Callable[[], Mapping[str, int | None]] | None,
    ) -> dict[str, Array]:
        known = None if axes is None else axes()
        return in_batches(lambda part: self._computed(names, part), feeds, size, known)

    def _computed(self, names: list[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
        session = self.live()
        try:
            computed = session.run(names, feeds)
        except ORT_ERRORS as error:
            raise FsagnError(f"{self.source}: onnxruntime failed on {self.provider}: {first_line(error)}") from error
        return dict(zip(names, computed, strict=True))

    def close(self) -> None:
        """Free the session's memory; closing twice is fine."""
        self._session = None


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
