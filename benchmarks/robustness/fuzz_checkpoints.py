"""Damages to a checkpoint: to the description in its header, to its tensors, to the header, to the file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.numpy

from benchmarks.robustness.fuzz_members import MEMBER_KINDS, Random, damaged_json, drawn

KEY = "fsagn_checkpoint"
Tensors = dict[str, np.ndarray]


def packed(description: bytes, tensors: Tensors) -> bytes:
    """A safetensors file; its header holds a text, whatever that says."""
    return safetensors.numpy.save(tensors, metadata={KEY: description.decode("utf-8", "replace")})


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and the numbers behind it."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: bytes, numbers: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + numbers


def removed_tensors(tensors: Tensors, rng: Random) -> Tensors:
    gone = drawn(list(tensors), rng)
    return {name: value for name, value in tensors.items() if name != gone}


def unknown_tensors(tensors: Tensors, rng: Random) -> Tensors:
    name = drawn(("weights/more", "more", "weights/", "/", "x" * 100_000, "weights/alpha.weight/x", "\n"), rng)
    return {**tensors, name: np.zeros(drawn((0, 1, 1000), rng), np.float32)}


def wrong_shapes(tensors: Tensors, rng: Random) -> Tensors:
    name = drawn(list(tensors), rng)
    old = tensors[name]
    shapes = ((), (0,), (*old.shape, 1), (1, *old.shape), (old.size,), (old.size + 1,), (1000, 1000))
    return {**tensors, name: np.zeros(drawn(shapes, rng), np.float32)}


def wrong_kinds(tensors: Tensors, rng: Random) -> Tensors:
    name = drawn(list(tensors), rng)
    return {**tensors, name: tensors[name].astype(drawn((np.float16, np.float64, np.int64, np.uint8, np.bool_), rng))}


def odd_numbers(tensors: Tensors, rng: Random) -> Tensors:
    name = drawn(list(tensors), rng)
    values = tensors[name].copy()
    values.reshape(-1)[int(rng.integers(values.size)) :] = drawn((np.nan, np.inf, -np.inf, 3e38, 1e-45), rng)
    return {**tensors, name: values}


ON_TENSORS: dict[str, Callable[[Tensors, Random], Tensors]] = {
    "removed tensors": removed_tensors,
    "unknown tensors": unknown_tensors,
    "wrong shapes": wrong_shapes,
    "wrong kinds of numbers": wrong_kinds,
    "odd numbers": odd_numbers,
}


def header_members(content: bytes, rng: Random) -> bytes:
    header, numbers = split(content)
    return joined(damaged_json(header, drawn(MEMBER_KINDS, rng), rng), numbers)


def header_length(content: bytes, rng: Random) -> bytes:
    return struct.pack("<Q", drawn((0, 1, 7, 2**20, 2**31, 2**40, 2**63, 2**64 - 1), rng)) + content[8:]


def flipped(content: bytes, rng: Random) -> bytes:
    damaged = bytearray(content)
    (length,) = struct.unpack_from("<Q", content)
    for _ in range(int(rng.integers(1, 8))):
        damaged[int(rng.integers(8, 8 + length))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def truncated(content: bytes, rng: Random) -> bytes:
    return content[: int(rng.integers(len(content)))]


ON_FILE: dict[str, Callable[[bytes, Random], bytes]] = {
    "members of the header": header_members,
    "length of the header": header_length,
    "bit flips in the header": flipped,
    "truncation": truncated,
}
CHECKPOINT_KINDS = (*MEMBER_KINDS, *ON_TENSORS, *ON_FILE)


def damaged_checkpoint(content: bytes, kind: str, rng: Random) -> bytes:
    """A checkpoint with damage of a kind."""
    if kind in ON_FILE:
        return ON_FILE[kind](content, rng)
    header, _ = split(content)
    tensors, text = safetensors.numpy.load(content), header["__metadata__"][KEY]
    if kind in ON_TENSORS:
        return packed(text.encode(), ON_TENSORS[kind](tensors, rng))
    return packed(damaged_json(json.loads(text), kind, rng), tensors)
