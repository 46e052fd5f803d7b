"""Explainer files in onnxruntime: images in, explanations out. onnxruntime, numpy and OpenCV; never torch."""

from __future__ import annotations

from .engine import Engine, FileEngine, Pass
from .explainer import Explainer
from .explanation import Explanation, FilterExplanation, Prediction
from .metadata import ExplainerMetadata
from .session import Session
from .stream import Failure
from .verify import Verifier

__all__ = [
    "Engine",
    "Explainer",
    "ExplainerMetadata",
    "Explanation",
    "Failure",
    "FileEngine",
    "FilterExplanation",
    "Pass",
    "Prediction",
    "Session",
    "Verifier",
]
