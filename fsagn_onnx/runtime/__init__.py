"""Explainer files in onnxruntime: images in, explanations out. onnxruntime, numpy and OpenCV; never torch."""

from __future__ import annotations

from .decision_explanation import explain_decisions
from .device_binding import Binding
from .engine import Engine, Pass
from .explainer import Explainer
from .explanation import Explanation, FilterExplanation, Prediction
from .file_engine import FileEngine
from .findings import Detection, Segment, Segmentation
from .metadata import ExplainerMetadata
from .session import Session
from .stream import Failure, Frame
from .tuning import Tuning
from .verifier import Verifier

__all__ = [
    "Binding",
    "Detection",
    "Engine",
    "Explainer",
    "ExplainerMetadata",
    "Explanation",
    "Failure",
    "FileEngine",
    "FilterExplanation",
    "Frame",
    "Pass",
    "Prediction",
    "Segment",
    "Segmentation",
    "Session",
    "Tuning",
    "Verifier",
    "explain_decisions",
]
