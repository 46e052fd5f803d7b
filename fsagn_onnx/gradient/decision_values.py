"""What every way to a decision value gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from onnx import TensorProto

from .writer import NodeWriter

__all__ = ["LEAST", "ULP", "Decision", "as_type", "owners_of", "worked_in"]

LEAST: Final = 1e-12
"""Smallest probability whose logarithm is taken."""
ULP: Final = 2.0**-24
"""Half a step of float32 below 1: a probability is kept so far from 1."""


@dataclass(frozen=True)
class Decision:
    """Names of values.

    Attributes:
        class_ids: int64 (N, J).
        decision: d_c, float32 (N, J).
        cotangents: value of the model -> dd_c / d of it, rows (N J, ...).
        owners: int64 (N J,), the image of each row; None where J is 1.
    """

    class_ids: str
    decision: str
    cotangents: Mapping[str, str]
    owners: str | None


def worked_in(held: int) -> int:
    """The type that decisions of some scores are computed in: float32, unless they are of double precision.

    Args:
        held: element type of the scores.
    """
    return int(TensorProto.DOUBLE if held == TensorProto.DOUBLE else TensorProto.FLOAT)


def as_type(write: NodeWriter, value: str, has: int, wanted: int) -> str:
    """A value as another type of numbers.

    Args:
        write: appends to the graph.
        value: name of the value.
        has: its element type.
        wanted: the one that is asked for.
    """
    return value if has == wanted else write.op("Cast", value, to=wanted)


def owners_of(write: NodeWriter, classes: str) -> str:
    """0, ..., 0, 1, ..., 1, ...: the image of each class asked about.

    Args:
        write: appends to the graph.
        classes: name of an int64 value (N, J).
    """
    sizes = write.op("Shape", classes)
    count = write.op("Gather", sizes, write.constant(0), axis=0)
    numbers = write.op("Range", write.constant(0), count, write.constant(1))
    spread = write.op("Expand", write.unsqueeze(numbers, 1), sizes)
    return write.op("Reshape", spread, write.constant([-1]))
