"""Converters that onnx2torch lacks or gets wrong, one op family per file.

A new family is a new module here, named in `_FAMILIES`; it registers its converters when it is imported.
"""

from __future__ import annotations

import importlib

__all__ = ["load_converters"]

_FAMILIES = (
    "activations",
    "attention",
    "conv",
    "depth_to_space",
    "indexing",
    "norms",
    "pad",
    "pool",
    "quantise",
    "reduce",
    "reshape",
    "resize",
    "sampling",
    "slice",
    "types",
    "versions",
)


def load_converters() -> None:
    """Import every family once, so that its converters are registered."""
    for family in _FAMILIES:
        importlib.import_module(f".{family}", __package__)
