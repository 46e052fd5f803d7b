"""What every way to a decision value gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .writer import NodeWriter

__all__ = ["LEAST", "ULP", "Decision", "owners_of"]

LEAST: Final = 1e-12
"""Smallest probability whose logarithm is taken."""
ULP: Final = 2.0**-24
"""Half a step of float32 below 1: a probability is kept so far from 1."""


@dataclass(frozen=True)
class Decision:
    """Names of values.

    Attributes:
        class_ids: int64 (N, J).
        decision: d_c, float (N, J).
        cotangents: value of the model -> dd_c / d of it, rows (N J, ...).
        owners: int64 (N J,), the image of each row; None where J is 1.
    """

    class_ids: str
    decision: str
    cotangents: Mapping[str, str]
    owners: str | None


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
