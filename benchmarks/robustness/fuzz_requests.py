"""Hostile requests to the server: made from right ones, each with one kind of damage."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from benchmarks.robustness.fuzz_members import MEMBER_KINDS, Random, damaged_json, drawn
from fsagn_onnx.testing.planted import planted_picture

LENGTH = "inference-header-content-length"
SIDES = {"ok": (48, 64, 90), "large": (6000, 8192, 20000, 65535)}


@dataclass
class Ask:
    """A request: its JSON, what stands behind that, headers, and what is known of the right answer."""

    members: dict[str, Any]
    binary: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/v2/models/m/infer"
    text: bytes | None = None
    whole: bool = False

    @property
    def body(self) -> bytes:
        return (json.dumps(self.members).encode() if self.text is None else self.text) + self.binary


def picture(rng: Random) -> np.ndarray:
    pixels = planted_picture(int(rng.integers(4))).image
    sides = [int(drawn(SIDES["ok"], rng)) for _ in range(2)]
    return cv2.resize(pixels, (sides[0], sides[1]))


def encoded(pixels: np.ndarray, rng: Random) -> bytes:
    return bytes(cv2.imencode(drawn((".png", ".jpg", ".bmp", ".webp"), rng), pixels[..., ::-1])[1])


def right(name: str, sample: tuple[int, ...], inside: bool, rng: Random) -> Ask:
    """A request that is answered with 200."""
    pixels, count = picture(rng), int(rng.integers(1, 4))
    form = drawn(("base64", "bytes", "uint8", *(() if inside else ("json", "raw"))), rng)
    entry: dict[str, Any] = {"name": name, "shape": [count], "datatype": "BYTES"}
    ask = Ask({"inputs": [entry]}, whole=True)
    if form == "base64":
        entry["data"] = [base64.b64encode(encoded(pixels, rng)).decode()] * count
    elif form == "bytes":
        one = encoded(pixels, rng)
        ask.binary = (struct.pack("<I", len(one)) + one) * count
    elif form == "uint8":
        entry |= {"shape": [count, *pixels.shape], "datatype": "UINT8"}
        ask.binary = pixels.tobytes() * count
    else:
        values = rng.standard_normal((count, *sample)).astype(np.float32)
        entry |= {"shape": list(values.shape), "datatype": "FP32"}
        if form == "raw":
            ask.binary = values.tobytes()
        else:
            entry["data"] = values.ravel().round(2).tolist() if rng.integers(2) else values.round(2).tolist()
    if ask.binary:
        entry["parameters"] = {"binary_data_size": len(ask.binary)}
    if not inside and rng.integers(2):
        ids = [[-1, 3, -1], [2], list(range(8))][int(rng.integers(3))]
        ask.members["inputs"].append(
            {"name": "filters", "shape": [count, len(ids)], "datatype": "INT64", "data": ids * count}
        )
    if rng.integers(2):
        ask.members["parameters"] = {"masks": drawn(("rle", "png"), rng), "area": drawn((0.1, 1, None), rng)}
    if rng.integers(3) == 0:
        ask.members["outputs"] = [{"name": "filter_ids"}, {"name": "area_rank", "parameters": {"binary_data": True}}]
    ask.members["id"] = drawn(("", "a", 7), rng)
    return ask


def on_members(kind: str, ask: Ask, rng: Random) -> None:
    ask.text = damaged_json(ask.members, kind, rng)


def broken_picture(ask: Ask, rng: Random) -> None:
    content = bytearray(encoded(picture(rng), rng))
    for _ in range(int(rng.integers(1, 20))):
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    one = drawn((bytes(content), bytes(content[: len(content) // 2]), b"", b"GIF89a" + bytes(50), bytes(1000)), rng)
    entry = {"name": ask.members["inputs"][0]["name"], "datatype": "BYTES", "shape": [1]}
    ask.members["inputs"], ask.binary = [{**entry, "data": [base64.b64encode(one).decode()]}], b""


def black(width: int, height: int) -> bytes:
    """A picture of one bit per pixel, a thousand times smaller as a file than as pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head, rows = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), bytes((1 + width // 8) * min(height, 8192))
    pieces = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


def huge_picture(ask: Ask, rng: Random) -> None:
    one = black(*(int(drawn(SIDES["large"], rng)) for _ in range(2)))
    count = int(drawn((1, 2, 16, 64, 65), rng))
    entry = {"name": ask.members["inputs"][0]["name"], "datatype": "BYTES", "shape": [count]}
    ask.members["inputs"], ask.binary = [{**entry, "data": [base64.b64encode(one).decode()] * count}], b""


def wrong_shape(ask: Ask, rng: Random) -> None:
    entry = drawn(ask.members["inputs"], rng)
    entry["shape"] = drawn(
        ([], [0], [1], [2**31] * 8, [2**62, 2], [1, 0, 3, 3], [3, -1], [1] * 8, [1] * 9, [64], [10**9], [2.0], [[1]]),
        rng,
    )


def wrong_datatype(ask: Ask, rng: Random) -> None:
    kinds = ("BOOL", "UINT8", "INT8", "UINT64", "FP16", "FP32", "FP64", "BF16", "BYTES", "bytes", "", 3, None)
    drawn(ask.members["inputs"], rng)["datatype"] = drawn(kinds, rng)


def wrong_sizes(ask: Ask, rng: Random) -> None:
    entry = drawn(ask.members["inputs"], rng)
    size = drawn(
        (0, 1, -1, 2**31, 2**63, 10**30, "3", 1.0, True, len(ask.binary) + 1, max(0, len(ask.binary) - 1)), rng
    )
    entry["parameters"] = {"binary_data_size": size}
    if rng.integers(2):
        ask.binary = ask.binary[: int(rng.integers(len(ask.binary) + 1))] + bytes(int(rng.integers(3)))


def asked_filters(ask: Ask, rng: Random) -> None:
    ids: Any = drawn(
        ([-2], [10**6], [2**62], [1, 1], [-1] * 9, [-1] * 1000, [0.5], ["a"], [None], [], [[1, 2], [3]], [True]), rng
    )
    count = ask.members["inputs"][0]["shape"][0]
    entry = {"name": "filters", "datatype": drawn(("INT64", "INT32", "FP32", "BYTES"), rng), "shape": [count, len(ids)]}
    ask.members["inputs"] = [ask.members["inputs"][0], {**entry, "data": ids * drawn((1, count), rng)}]


def asked_parameters(ask: Ask, rng: Random) -> None:
    wrong = {
        "masks": drawn(("rle", "png", "gif", "", 3, ["rle"], {"a": 1}, True), rng),
        "area": drawn((0, -1, 1e-300, 1.5, 1e308, "0.1", True, [0.1], 0.5), rng),
        "binary_data_output": drawn((True, False, 1, "yes", None), rng),
        "classes": drawn((None, [10**9], "x"), rng),
    }
    name = drawn(tuple(wrong), rng)
    ask.members["parameters"] = {"masks": "rle", "area": 0.2} | {name: wrong[name]}


def asked_outputs(ask: Ask, rng: Random) -> None:
    ask.members["outputs"] = drawn(
        ([], [{}], [{"name": "x"}], [{"name": "filter_ids"}] * 64, [{"name": "area_rank"}] * 5000,
         [{"name": "masks", "parameters": {"binary_data": True}}], {"name": "filter_ids"}, ["filter_ids"],
         [{"name": "filter_ids", "parameters": 3}]),
        rng,
    )  # fmt: skip


def wrong_headers(ask: Ask, rng: Random) -> None:
    length = len(ask.body) - len(ask.binary)
    name = drawn((LENGTH, "content-encoding", "content-length", "content-type", "accept", "x" * 5000), rng)
    values = ("0", "-1", str(length - 1), str(length + 1), "9" * 4400, "1e3", "gzip", "br", "gzip, gzip", "\xff", "")
    ask.headers[name] = drawn(values, rng)


def packed(ask: Ask, rng: Random) -> None:
    body = drawn(
        (
            gzip.compress(ask.body),
            gzip.compress(ask.body)[:-9],
            gzip.compress(bytes(2**28)),
            ask.body,
            b"\x1f\x8b" + bytes(9),
        ),
        rng,
    )
    ask.headers["content-encoding"] = drawn(("gzip", "x-gzip", "GZIP"), rng)
    ask.text, ask.binary = body, b""


def other_paths(ask: Ask, rng: Random) -> None:
    ask.method = drawn(("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X" * 1000), rng)
    ask.path = drawn(
        ("/", "/v2", "/v2/models/x/infer", "/v2/models/m/versions/9/infer", "/v2/models/" + "m" * 10_000 + "/infer",
         "/v2/models/m", "/metrics", "/../../etc/passwd", "/v2/models/%00/ready", "/v2/health/ready"), rng,
    )  # fmt: skip


ON_ASK: dict[str, Callable[[Ask, Random], None]] = {
    "broken pictures": broken_picture,
    "huge pictures": huge_picture,
    "shapes": wrong_shape,
    "datatypes": wrong_datatype,
    "binary sizes": wrong_sizes,
    "filters": asked_filters,
    "parameters": asked_parameters,
    "outputs": asked_outputs,
    "headers": wrong_headers,
    "compression": packed,
    "paths and methods": other_paths,
}
NONE = "no damage"
REQUEST_KINDS = (NONE, *MEMBER_KINDS, *ON_ASK)


def make_ask(number: int, seed: int, name: str, sample: tuple[int, ...], inside: bool) -> tuple[str, Ask]:
    """A request and the kind of its damage."""
    rng, kind = np.random.default_rng([seed, number]), REQUEST_KINDS[number % len(REQUEST_KINDS)]
    ask = right(name, sample, inside, rng)
    ask.whole = kind == NONE
    if kind in ON_ASK:
        ON_ASK[kind](ask, rng)
    elif kind != NONE:
        on_members(kind, ask, rng)
    if ask.binary:
        ask.headers.setdefault(LENGTH, str(len(ask.body) - len(ask.binary)))
    return kind, ask
