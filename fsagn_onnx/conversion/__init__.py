"""ONNX to torch: the part of a CNN between input and deepest tap, differentiable, checked."""

from __future__ import annotations

from ..errors import ConversionError, ParityError
from .assembly import Unsupported
from .parity import Parity, check_parity
from .tapped_module import TappedModule, convert, unsupported

__all__ = [
    "ConversionError",
    "Parity",
    "ParityError",
    "TappedModule",
    "Unsupported",
    "check_parity",
    "convert",
    "unsupported",
]
