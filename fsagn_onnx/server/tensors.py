"""Tensors of the KServe v2 protocol: JSON numbers, or raw bytes behind the JSON (the binary tensor extension).

Source: the Open Inference Protocol, REST, https://kserve.github.io/website, and Triton's binary tensor extension.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..schema import Meta, checked_json, one_of, parse_json, shown, within

HEADER_LENGTH: Final = "inference-header-content-length"
MAX_RANK: Final = 8
MAX_SIDE: Final = 2**63 - 1
MAX_TENSORS: Final = 64
MAX_ID: Final = 256
MAX_WORDS: Final = 4096
"""Characters of a parameter that names filters or classes."""
FORMATS: Final = ("rle", "png")
"""How masks can be written."""

DTYPES: Final = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
NAMES: Final = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


Shape = Annotated[
    list[Annotated[int, Meta(ge=0, le=MAX_SIDE)]],
    Meta(min_length=1, max_length=MAX_RANK, description=f"a list of 1 to {MAX_RANK} whole numbers"),
]


class RequestError(Exception):
    """What is wrong with a request, for the client.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Tensor:
    """An input: numbers, or (datatype BYTES) pieces of bytes in a flat list."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[bytes]


def unpacked(body: bytes, encoding: str | None, limit: int) -> bytes:
    """A body without its compression.

    Args:
        body: as it came.
        encoding: value of the header ``Content-Encoding``, where there is one.
        limit: bytes that the plain body may have.

    Raises:
        RequestError: an encoding other than gzip, no whole gzip stream, or too many bytes.
    """
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise RequestError(f"Content-Encoding must be gzip or identity, but is {shown(encoding)}", 415)
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(f"the body is no gzip: {error}") from error
    if len(plain) > limit:
        raise RequestError(f"the body has more than {limit} bytes once it is unpacked", 413)
    if not stream.eof:
        raise RequestError("the body is no gzip: it stops before its end")
    return plain


class TensorParameters(msgspec.Struct):
    """Parameters of one tensor of a request.

    Attributes:
        binary_data_size: bytes behind the JSON that are this input's.
        binary_data: whether this output goes as raw bytes.
    """

    binary_data_size: Annotated[int, within(0, MAX_SIDE)] | None = None
    binary_data: bool | None = None


class InputEntry(msgspec.Struct):
    """An input of a request; its data stay text until their number is found right."""

    name: str
    datatype: Annotated[str, one_of((*DTYPES, "BYTES"))]
    shape: Shape
    data: msgspec.Raw = msgspec.Raw(b"null")
    parameters: TensorParameters | None = None


class OutputEntry(msgspec.Struct):
    """An output that a request wants."""

    name: str
    parameters: TensorParameters | None = None


class RequestParameters(msgspec.Struct):
    """Parameters of a whole request.

    Attributes:
        masks: form of the masks, where they are wanted.
        area: of the masks; None: the sufficient area of each.
        filters: which are explained, in words (``decisive:5``, ``against:3``, ``top:5``, ``3,17``), where the request
            has no such input.
        classes: names or numbers of the classes asked about, with commas, or ``top:J``; likewise.
        binary_data_output: whether all outputs go as raw bytes.
    """

    masks: Annotated[str, one_of(FORMATS)] | None = None
    area: Annotated[float, Meta(gt=0, le=1, description="a number in (0, 1]")] | None = None
    filters: Annotated[str, Meta(max_length=MAX_WORDS)] | None = None
    classes: Annotated[str, Meta(max_length=MAX_WORDS)] | None = None
    binary_data_output: bool | None = None


class InferRequest(msgspec.Struct):
    """The JSON of a request; what else stands there is another server's."""

    inputs: Annotated[list[InputEntry], Meta(max_length=MAX_TENSORS)]
    outputs: Annotated[list[OutputEntry], Meta(max_length=MAX_TENSORS)] | None = None
    parameters: RequestParameters | None = None
    id: Annotated[str, Meta(max_length=MAX_ID)] | int | None = None

    @property
    def asked(self) -> RequestParameters:
        """The parameters, or what they are where there are none."""
        return self.parameters or RequestParameters()


def parse_request(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, Tensor]]:
    """The JSON object of a request, and its inputs by name.

    Args:
        body: the whole body.
        header_length: value of the header `HEADER_LENGTH`, where there is one.

    Raises:
        RequestError: no such request.
    """
    text, binary = body, memoryview(b"")
    if header_length is not None:
        digits = header_length.isascii() and header_length.isdigit() and len(header_length) <= len(str(MAX_SIDE))
        if not digits or int(header_length) > len(body):
            raise RequestError(
                f"{HEADER_LENGTH} must be at most the body's {len(body)} bytes, but is {shown(header_length)}"
            )
        text, binary = body[: int(header_length)], memoryview(body)[int(header_length) :]
    request = checked_json(text, InferRequest, lambda said: RequestError(f"the request: {said}"))
    tensors: dict[str, Tensor] = {}
    for entry in request.inputs:
        if entry.name in tensors:
            raise RequestError(f"input {shown(entry.name)} is given twice")
        tensors[entry.name], binary = _tensor(entry, binary)
    if len(binary):
        raise RequestError(f"{len(binary)} bytes are left over behind the last input")
    return request, tensors


def _tensor(entry: InputEntry, binary: memoryview) -> tuple[Tensor, memoryview]:
    name, shape, count = entry.name, tuple(entry.shape), math.prod(entry.shape)
    size = entry.parameters.binary_data_size if entry.parameters is not None else None
    if size is None:
        return Tensor(name, entry.datatype, shape, _from_json(entry, count)), binary
    if size > len(binary):
        raise RequestError(f"input {shown(name)}: binary_data_size must be 0..{len(binary)}, but is {shown(size)}")
    values = _from_bytes(name, entry.datatype, count, binary[:size])
    return Tensor(name, entry.datatype, shape, values), binary[size:]


def _from_json(entry: InputEntry, count: int) -> NDArray[Any] | list[bytes]:
    name, datatype = entry.name, entry.datatype
    text = bytes(entry.data)
    if not text.startswith(b"["):
        raise RequestError(f"input {shown(name)}: data must be a list")
    given = (
        0 if text[1:-1].isspace() or text == b"[]" else text.count(b",") + 1
    )  # of numbers, nested or not, and base64
    if given != count:
        raise RequestError(f"input {shown(name)}: shape asks for {count} elements, data has {given}")
    listed = parse_json(text, lambda said: RequestError(f"input {shown(name)}: {said}"))
    if datatype == "BYTES":
        try:
            pieces = [base64.b64decode(piece, validate=True) for piece in listed]
        except (TypeError, ValueError, binascii.Error):
            raise RequestError(f"input {shown(name)}: BYTES in JSON must be base64 texts") from None
        return pieces
    if not _are_numbers(listed, MAX_RANK):
        raise RequestError(f"input {shown(name)}: data must be numbers that fit {datatype}, nested or flat")
    try:
        values = np.asarray(listed)
        fits = values.dtype.kind in ("bf" if datatype.startswith("FP") else "b") + "iu"
        with np.errstate(over="ignore"):  # becomes infinite, which is refused later
            array = values.astype(DTYPES[datatype]) if fits else values
    except (ValueError, OverflowError, TypeError):
        fits = False
    if not fits:
        raise RequestError(f"input {shown(name)}: data must be numbers that fit {datatype}, nested or flat")
    if array.size != count:
        raise RequestError(f"input {shown(name)}: shape asks for {count} elements, data has {array.size}")
    if array.dtype.kind in "iu" and not np.array_equal(array, values):
        raise RequestError(f"input {shown(name)}: data does not fit {datatype}")
    return array.ravel()


def _are_numbers(listed: list[Any], rank: int) -> bool:
    """Whether a list holds numbers only, nested or not: numpy would pad texts, all to the length of the longest."""
    kinds = set(map(type, listed))
    if kinds == {list} and rank > 1:
        return all(_are_numbers(inner, rank - 1) for inner in listed)
    return kinds <= {int, float, bool}


def _from_bytes(name: str, datatype: str, count: int, binary: memoryview) -> NDArray[Any] | list[bytes]:
    if datatype != "BYTES":
        dtype = np.dtype(DTYPES[datatype]).newbyteorder("<")
        if len(binary) != count * dtype.itemsize:
            raise RequestError(
                f"input {shown(name)}: shape asks for {count * dtype.itemsize} bytes, {len(binary)} came"
            )
        return np.frombuffer(binary, dtype=dtype).astype(DTYPES[datatype], copy=False)
    pieces: list[bytes] = []
    while len(binary) >= 4 and len(pieces) < count:
        (length,) = struct.unpack_from("<I", binary)
        if length > len(binary) - 4:
            break
        pieces.append(bytes(binary[4 : 4 + length]))
        binary = binary[4 + length :]
    if len(pieces) != count or len(binary):
        raise RequestError(
            f"input {shown(name)}: BYTES must be {count} pieces, each behind its length (4 bytes, little endian)"
        )
    return pieces


def format_answer(
    head: Mapping[str, Any], outputs: Mapping[str, NDArray[Any] | list[list[str]]], binary: set[str]
) -> tuple[bytes, int | None]:
    """The body of an answer.

    Args:
        head: members of the JSON object besides ``outputs``.
        outputs: arrays of numbers or texts, or lists of texts (N, K); texts become BYTES.
        binary: names of outputs that go as raw bytes.

    Returns:
        The body, and the length of its JSON where bytes follow.

    Raises:
        RequestError: an output is not finite, which JSON cannot say.
    """
    described, raw = [], []
    for name, values in outputs.items():
        if isinstance(values, np.ndarray) and values.dtype not in NAMES:
            texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in values.flat]
            described.append({"name": name, "datatype": "BYTES", "shape": list(values.shape), "data": texts})
            continue
        if isinstance(values, list):
            shape = [len(values), len(values[0]) if values else 0]
            texts = [text for row in values for text in row]
            described.append({"name": name, "datatype": "BYTES", "shape": shape, "data": texts})
            continue
        entry: dict[str, Any] = {"name": name, "datatype": NAMES[values.dtype], "shape": list(values.shape)}
        if name in binary:
            raw.append(np.ascontiguousarray(values).tobytes())
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = values.ravel().tolist()
        described.append(entry)
    try:
        text = json.dumps({**head, "outputs": described}, allow_nan=False).encode()
    except ValueError as error:
        raise RequestError("an output is not finite (NaN or infinite): ask for it as binary data", 500) from error
    return b"".join([text, *raw]), len(text) if raw else None
