"""Measuring masks: methods side by side on the same images, filters, layer, areas and infills."""

from __future__ import annotations

from ..statistics.bootstrap import Interval, bootstrap_mean
from .image_masks import AREAS
from .metrics.interface import MetricRow
from .metrics.retention import RetentionAUC
from .result import Evaluation
from .run import METRICS, Options, evaluate

__all__ = [
    "AREAS",
    "METRICS",
    "Evaluation",
    "Interval",
    "MetricRow",
    "Options",
    "RetentionAUC",
    "bootstrap_mean",
    "evaluate",
]
