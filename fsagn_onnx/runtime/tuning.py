"""Opens graphs in onnxruntime: fallback to the CPU, graphs of 2 GiB and more, a cache of optimised graphs."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime

from ..errors import ModelError
from ..model.inference_session import EXACT_SUMS, ORT_ERRORS, inference_session
from .providers import CPU, CUDA, load_cuda_libraries

INLINE_LIMIT: Final = 2**31 - 2**20
"""Bytes of weights up to which a graph is handed over in memory; a protobuf message cannot reach 2 GiB."""

_WARNING, _FATAL = 2, 4  # onnxruntime's log severities; warning is its default
LINE: Final = 300
_PLACE: Final = re.compile(r"(?:\b[A-Za-z]:)?[/\\][^\s:]*onnxruntime[^\s:]*\.(?:cc|cpp|cu|cuh|h|hpp):\d+ (?=[^()]*\()")
_QUALIFIERS: Final = re.compile(r"^\s*(?:const\b)?\s*(?:\[with [^\]]*\])?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuning:
    """How a session is made.

    Attributes:
        threads: threads inside an operator; None leaves it to onnxruntime.
        cache: folder for optimised graphs, so that the next start is faster; None: no cache. Only for files without
            external data, on the CPU. The folder must be the user's own: what lies there is loaded.
        tf32: let CUDA compute float32 products in TensorFloat-32.
        cuda_graph: record one CUDA graph and replay it; for fixed shapes on the device only, see `Binding`.
    """

    threads: int | None = None
    cache: Path | None = None
    tf32: bool = True
    cuda_graph: bool = False


def first_line(error: BaseException) -> str:
    """The first line of an exception's message that says something, at most 300 characters: its beginning and its end.

    onnxruntime names the place in its own source before the cause, a file and a whole C++ signature; they are left out.
    """
    lines = [_without_places(line).strip() for line in str(error).splitlines()]
    line = next((line for line in lines if line), type(error).__name__)
    return line if len(line) <= LINE else f"{line[: LINE // 2 - 3]} ... {line[-LINE // 2 + 2 :]}"


def _without_places(line: str) -> str:
    """A line of onnxruntime's without ``/path/file.cc:256 onnxruntime::Model::Model(...) const``."""
    while place := _PLACE.search(line):
        at, depth = place.end(), 0
        while at < len(line):
            depth += (line[at] == "(") - (line[at] == ")")
            at += 1
            if line[at - 1] == ")" and depth == 0:
                break
        rest = _QUALIFIERS.sub("", line[at:])
        line = f"{line[: place.start()].rstrip()} {rest.lstrip()}"
    return line


def open_session(
    model: str | Path | onnx.ModelProto, providers: tuple[str, ...], tuning: Tuning, source: str
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session, and why the first of the providers may be missing from it.

    Raises:
        ModelError: onnxruntime refuses the graph.
    """
    reason = load_cuda_libraries() if CUDA in providers else ""
    with tempfile.TemporaryDirectory(prefix="fsagn-") as folder:
        graph = _loadable(model, Path(folder))
        try:
            return _create(graph, providers, tuning), reason
        except ORT_ERRORS as error:
            failure = error
        if providers != (CPU,):
            try:
                return _create(graph, (CPU,), tuning), reason or first_line(failure)
            except ORT_ERRORS as error:
                failure = error
    raise ModelError(f"{source}: onnxruntime cannot load it: {first_line(failure)}") from failure


def _create(graph: str | bytes, providers: tuple[str, ...], tuning: Tuning) -> onnxruntime.InferenceSession:
    if tuning.cache is not None and isinstance(graph, str) and providers == (CPU,):
        return _cached(Path(graph), tuning, tuning.cache)
    # A provider library that does not load is reported by the process-wide logger, several lines in colour.
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        return _session(graph, tuning, providers=_with_options(providers, tuning))
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def _session(graph: str | bytes, tuning: Tuning, **options: Any) -> onnxruntime.InferenceSession:
    # Threads that wait for the next pass would take the processors from decoding and drawing.
    config = {"session.force_spinning_stop": "1"}
    if tuning.threads is not None:
        options["inter_op_num_threads"] = 1
    return inference_session(graph, threads=tuning.threads, config=config, **options)


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


def _with_options(providers: tuple[str, ...], tuning: Tuning) -> list[str | tuple[str, Mapping[str, Any]]]:
    cuda = {"use_tf32": int(tuning.tf32), "enable_cuda_graph": int(tuning.cuda_graph)}
    return [(name, cuda) if name == CUDA else name for name in providers]


def _cached(path: Path, tuning: Tuning, folder: Path) -> onnxruntime.InferenceSession:
    """A session from the optimised graph in the cache; made there where it is missing.

    Optimised graphs fit one onnxruntime, one kind of processor and one set of options: all are part of the name.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"{onnxruntime.__version__} {platform.machine()} {EXACT_SUMS} {_processor()}".encode())
    optimised = folder / f"{digest.hexdigest()[:32]}.onnx"
    if optimised.is_file():
        try:
            return _session(str(optimised), tuning, optimised=False)
        except ORT_ERRORS as error:
            _log.warning("%s in the cache cannot be used, making it anew: %s", optimised, first_line(error))
            optimised.unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = folder / f".{optimised.name}.{os.getpid()}.part"
        session = _session(str(path), tuning, optimized_model_filepath=str(part))
        part.replace(optimised)
    except OSError as error:
        _log.warning("no cache in %s: %s", folder, error.strerror or error)
        session = _session(str(path), tuning)
    return session


def _processor() -> str:
    """Name of the processor, which decides how onnxruntime lays out its graph."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return " ".join(line for line in lines[:40] if line.startswith(("model name", "flags", "Features")))
