"""Gradients as ONNX nodes: what a decision hangs on, without torch."""

from __future__ import annotations

from ..errors import GradientError
from .backward import add_gradients, missing_rules
from .contributions import Contributions, add_contributions
from .decision import add_decision
from .decision_values import Decision
from .dense_decision import DenseScores

__all__ = [
    "Contributions",
    "Decision",
    "DenseScores",
    "GradientError",
    "add_contributions",
    "add_decision",
    "add_gradients",
    "missing_rules",
]
