"""Measuring masks: methods side by side on the same images, filters, layer, areas and infills."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .bootstrap import Interval, bootstrap_mean
from .result import Evaluation
from .retention import RetentionAUC
from .rows import Row
from .run import METRICS, Options, evaluate
from .view import AREAS

__all__ = ["AREAS", "METRICS", "Evaluation", "Interval", "Options", "RetentionAUC", "Row", "bootstrap_mean", "evaluate"]


class _CallablePackage(ModuleType):
    """``fsagn_onnx.evaluate`` is a public function and a package of the same name: calling the package calls it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Evaluation:
        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
