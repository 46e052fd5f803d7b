"""How two files differ that two versions of the program wrote, by the kind of file."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

IGNORED: Final = re.compile(
    r"versions?|tool_version|python|numpy|onnx|onnxruntime|opencv|torch|platform|machine|host|cpu|seconds|started"
    r"|finished|created|date|time|elapsed|.*_seconds|.*_ms|.*per_second|rate|speed|peak_memory|file_sha256"
)
TIMED: Final = re.compile(r"\d+(\.\d+)? ?(ms|s|min|h|images/s|pairs/s|frames/s|MB|KB|kB)\b|\d+(\.\d+)? (per|a) second")
COST: Final = re.compile(r"\| [\w-]+ \| \d+\.\d+ \| \d+ \| \d+ \|")
"""A row of evaluation.md's table of seconds and passes."""
VERSION: Final = re.compile(r"\b\d+\.\d+\.\d+\w*")


def members(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two JSON values differ; versions and times do not count."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            if IGNORED.fullmatch(str(key)):
                continue
            if key not in a or key not in b:
                value = a.get(key, b.get(key))
                yield f"{where}.{key} only in {'A' if key in a else 'B'}: {json.dumps(value, default=str)[:120]}"
            else:
                yield from members(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{where}: {len(a)} items and {len(b)}"
        for number, (left, right) in enumerate(zip(a, b, strict=False)):
            yield from members(left, right, f"{where}[{number}]")
    elif a != b and not (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)):
        yield f"{where}: {str(a)[:100]!r} and {str(b)[:100]!r}"


def documents(a: Path, b: Path) -> Iterator[str]:
    yield from members(*(json.loads(path.read_text(encoding="utf-8")) for path in (a, b)))


def lines_of_json(a: Path, b: Path) -> Iterator[str]:
    rows = [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line] for path in (a, b)]
    yield from members(*rows)


def tables(a: Path, b: Path) -> Iterator[str]:
    rows = [list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) for path in (a, b)]
    yield from members(*rows)


def same(a: np.ndarray, b: np.ndarray, where: str) -> Iterator[str]:
    """Arrays are the same to the bit."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        yield f"{where}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
    elif a.dtype != object and a.tobytes() != b.tobytes():
        yield f"{where}: {np.count_nonzero(a != b)} of {a.size} values differ"
    elif a.dtype == object and a.tolist() != b.tolist():
        yield f"{where}: values differ"


def named(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name in sorted(a.keys() | b.keys()):
        if name in a and name in b:
            yield from same(a[name], b[name], name)
        else:
            yield f"{name} only in {'A' if name in a else 'B'}"


def arrays(a: Path, b: Path) -> Iterator[str]:
    both = ({"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded) for loaded in map(np.load, (a, b)))
    yield from named(*both)


def tensors(a: Path, b: Path) -> Iterator[str]:
    from safetensors.numpy import load_file

    yield from named(load_file(a), load_file(b))


def pictures(a: Path, b: Path) -> Iterator[str]:
    yield from same(*(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (a, b)), "pixels")


def films(a: Path, b: Path) -> Iterator[str]:
    both = [cv2.VideoCapture(str(path)) for path in (a, b)]
    number = 0
    while True:
        (more_a, left), (more_b, right) = (film.read() for film in both)
        if not (more_a and more_b):
            if more_a or more_b or not number:
                yield f"{'A' if more_a else 'B'} has more frames than {number}"
            return
        yield from same(left, right, f"frame {number}")
        number += 1


def parquet(a: Path, b: Path) -> Iterator[str]:
    from pyarrow import parquet as files

    left, right = (files.read_table(path) for path in (a, b))
    if left.schema.names != right.schema.names:
        yield f"columns {left.schema.names} and {right.schema.names}"
    for name in left.schema.names:
        if name in right.schema.names and not left[name].equals(right[name]):
            yield f"column {name} differs"


def texts(a: Path, b: Path) -> Iterator[str]:
    """Lines, with times and versions struck out; one JSON document by its members."""
    both = [path.read_text(encoding="utf-8") for path in (a, b)]
    if all(text.startswith("{") for text in both):
        yield from members(*map(json.loads, both))
        return
    left, right = ([VERSION.sub("V", TIMED.sub("T", line)).rstrip() for line in t.splitlines()] for t in both)
    for sign, ours, others in (("A", left, right), ("B", right, left)):
        only = (line for line in ours if line not in others and not COST.fullmatch(line))
        yield from (f"line only in {sign}: {line[:160]}" for line in only)


def networks(a: Path, b: Path) -> Iterator[str]:
    """The graph by its bytes, the metadata by members."""
    import onnx

    both = [onnx.load(path) for path in (a, b)]
    notes = [{entry.key: json.loads(entry.value) for entry in proto.metadata_props} for proto in both]
    yield from members(*notes, "metadata")
    for proto in both:
        del proto.metadata_props[:]
        proto.producer_version = ""
    if both[0].SerializeToString(deterministic=True) != both[1].SerializeToString(deterministic=True):
        yield "the graph differs"


def raw(a: Path, b: Path) -> Iterator[str]:
    if a.read_bytes() != b.read_bytes():
        yield f"bytes differ ({a.stat().st_size} and {b.stat().st_size})"


KINDS: Final[dict[str, Callable[[Path, Path], Iterator[str]]]] = {
    ".npz": arrays,
    ".npy": arrays,
    ".png": pictures,
    ".avi": films,
    ".onnx": networks,
    ".parquet": parquet,
    ".json": documents,
    ".jsonl": lines_of_json,
    ".csv": tables,
    ".md": texts,
    ".out": texts,
    ".err": texts,
    ".html": lambda a, b: iter(()),
    ".safetensors": tensors,
}
