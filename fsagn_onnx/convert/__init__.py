"""ONNX to torch: the part of a CNN between input and deepest tap, differentiable, checked."""

from __future__ import annotations

from .assemble import Unsupported
from .parity import Parity, check_parity
from .tapped import TappedModule, convert, unsupported

__all__ = ["Parity", "TappedModule", "Unsupported", "check_parity", "convert", "unsupported"]
