"""One row: build the file, load it, convert it, compare every tap."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort

from fsagn_onnx.conversion import check_parity, convert
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.model import load_model
from fsagn_onnx.model.inference_session import ORT_ERRORS
from fsagn_onnx.model.topology import Topology

from .rows import Row

BEHIND = frozenset({"NonMaxSuppression", "RoiAlign", "TopK", "Loop", "If", "Scan"})
"""Ops behind backbone and neck of a detector: layers that need one of these are not tapped."""


def check(row: Row) -> dict[str, Any]:
    """The row's result: ``status`` is built (but unfinished), passed or failed; a traceback is a defect."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fsagn-coverage-") as folder:
        path = Path(folder) / "model.onnx"
        row.build(path)
        result: dict[str, Any] = {"built_s": round(time.monotonic() - started, 2)}
        started = time.monotonic()
        try:
            result |= _converted(path, row)
        except FsagnError as error:
            result |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        if result["status"] == "failed":
            require_session(path)
        result["checked_s"] = round(time.monotonic() - started, 2)
    return result


def require_session(path: Path) -> None:
    """Let onnxruntime say it, where it cannot load the file itself: then the tool that made it is at fault."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        raise RuntimeError(f"onnxruntime refuses the file: {' '.join(str(error).split())}") from None


def _converted(path: Path, row: Row) -> dict[str, Any]:
    model = load_model(path)
    topology = Topology(model.proto.graph)
    late = topology.descendants(
        value for node in topology.nodes if node.op_type in BEHIND for value in node.output if value
    )
    taps = [layer.value for layer in model.layers if layer.value not in late]
    module = convert(model, taps, outputs=row.outputs, check=False)
    parity = check_parity(model, module)
    return {
        "status": "passed",
        "opset": model.opset,
        "nodes": len(model.proto.graph.node),
        "taps": len(taps),
        "error": parity.max_relative_error,
        "worst": parity.worst_value,
        "allowed": parity.tolerance,
        "drift": parity.drift,
    }
