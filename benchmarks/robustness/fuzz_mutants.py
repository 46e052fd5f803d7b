"""Damaged ONNX files; the same seed gives the same file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.robustness.fuzz_damages import (
    Rng,
    attributes,
    bit_flips,
    cycle,
    deep_nesting,
    duplicate_names,
    external_data,
    huge_dims,
    long_names,
    metadata,
    moved_bytes,
    nested_messages,
    ports,
    removed_nodes,
    sparse,
    truncation,
    versions,
    wrong_shapes,
    wrong_types,
)

ON_BYTES: dict[str, Callable[[bytes, Rng], bytes]] = {
    "bit flips": bit_flips,
    "truncation": truncation,
    "moved bytes": moved_bytes,
    "nested messages": nested_messages,
}
ON_GRAPH: dict[str, Callable[[onnx.ModelProto, Rng], None]] = {
    "removed nodes": removed_nodes,
    "cycles": cycle,
    "duplicate names": duplicate_names,
    "wrong shapes": wrong_shapes,
    "wrong types": wrong_types,
    "huge dims": huge_dims,
    "deep nesting": deep_nesting,
    "names of 100 kB": long_names,
    "attributes": attributes,
    "versions": versions,
    "inputs and outputs": ports,
    "metadata": metadata,
    "sparse weights": sparse,
}
EXTERNAL = "external data"
KINDS = (*ON_BYTES, *ON_GRAPH, EXTERNAL)


@dataclass(frozen=True)
class Mutant:
    """A damaged file: its number, the model it was made of, how it was damaged."""

    number: int
    model: str
    kind: str
    path: Path

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size


def make_mutant(number: int, seed: int, models: dict[str, onnx.ModelProto], folder: Path) -> Mutant:
    """Write mutant `number`: model and kind go round, the rest is drawn from (seed, number)."""
    rng = np.random.default_rng([seed, number])
    model = list(models)[number % len(models)]
    kind = KINDS[(number // len(models) + number) % len(KINDS)]
    place = folder / f"{number:04}"
    place.mkdir(parents=True)
    proto = onnx.ModelProto()
    proto.CopyFrom(models[model])
    if kind in ON_GRAPH:
        ON_GRAPH[kind](proto, rng)
    elif kind == EXTERNAL:
        external_data(proto, rng, place)
    content = proto.SerializeToString()
    if kind in ON_BYTES:
        content = ON_BYTES[kind](content, rng)
    path = place / f"{model}.onnx"
    path.write_bytes(content)
    return Mutant(number, model, kind, path)
