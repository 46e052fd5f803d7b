"""A model repository for NVIDIA's Triton: DIR/NAME/config.pbtxt and DIR/NAME/1/model.onnx.

Source of the fields: Triton's model_config.proto; max_batch_size > 0 means that the first axis, which the config then
leaves out, is a batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from ..data.files import make_folder, write_file
from ..errors import OutputError
from ..runtime.file_engine import FileEngine
from ..runtime.session import Port

TYPES: Final = {
    "tensor(float)": "TYPE_FP32", "tensor(float16)": "TYPE_FP16", "tensor(double)": "TYPE_FP64",
    "tensor(int64)": "TYPE_INT64", "tensor(int32)": "TYPE_INT32", "tensor(uint8)": "TYPE_UINT8",
    "tensor(int8)": "TYPE_INT8", "tensor(bool)": "TYPE_BOOL",
}  # fmt: skip
MAX_DELAY_US: Final = 2000


def write_repository(explainer: Path, folder: Path, *, name: str | None = None, max_batch: int = 8) -> Path:
    """Write an explainer as a Triton model.

    Args:
        explainer: the file.
        folder: the model repository; made where it is missing.
        name: the model's name; the file's stem unless told.
        max_batch: images per pass.

    Returns:
        The model's folder.

    Raises:
        ExplainerError: no usable explainer.
        OutputError: the folder cannot be written, or holds the model already.
    """
    engine = FileEngine(explainer, "cpu")
    try:
        text = config_text(engine, name or explainer.stem, max_batch)
    finally:
        engine.close()
    target = folder / (name or explainer.stem)
    if target.exists():
        raise OutputError(f"{target} exists already: remove it, or choose another --name")
    make_folder(target / "1")
    write_file(target / "1" / "model.onnx", [explainer.read_bytes()])
    write_file(target / "config.pbtxt", [text.encode("utf-8")])
    return target


def config_text(engine: FileEngine, name: str, max_batch: int) -> str:
    """The text of config.pbtxt."""
    about = engine.metadata
    lines = [
        f"name: {_text(name)}",
        f"platform: {_text('onnxruntime_onnx')}",
        f"max_batch_size: {max_batch}",
        *_ports("input", engine.inputs),
        *_ports("output", engine.outputs),
        f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_DELAY_US} }}",
    ]
    described = {"layer": about.layer, "content": about.content, "fsagn": about.to_json()}
    for key, value in described.items():
        lines.append(f"parameters {{ key: {_text(key)} value: {{ string_value: {_text(value)} }} }}")
    return "\n".join(lines) + "\n"


def _ports(side: str, ports: tuple[Port, ...]) -> list[str]:
    lines = []
    for port in ports:
        dims: list[Any] = [-1 if extent is None else extent for extent in port.shape[1:]]
        lines.append(f"{side} {{ name: {_text(port.name)} data_type: {TYPES[port.dtype]} dims: {json.dumps(dims)} }}")
    return lines


def _text(text: str) -> str:
    """A quoted string of protobuf's text format: octal escapes for all but printable ASCII."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode("utf-8"))
    return '"' + "".join(plain) + '"'
