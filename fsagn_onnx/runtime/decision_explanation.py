"""What a plain model's decisions rest on, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..model.model import Model, load_model
from .class_request import AskedClasses
from .depth_choice import MOST_PICTURES, choose_depth
from .evidence import PlainEvidence
from .explainer import Explainer, Filters
from .explanation import Explanation
from .stream import Images, Prepared, named_images, prepare

__all__ = ["explain_decisions"]


def explain_decisions(
    model: str | Path | Model,
    images: Images,
    classes: AskedClasses = None,
    filters: Filters = "decisive:5",
    *,
    layer: str | None = None,
    depths: Sequence[str] | None = None,
    measure: bool = False,
    **session: Any,
) -> list[Explanation]:
    """What the decisions of a plain model rest on: evidence maps and contributing filters, without torch or training.

    Evidence is the positive part of gradient x activation at the depth that, on the first pictures, keeps and removes
    the decision best; a filter's contribution is phi_k = sum over places of F_k dd_c / dF_k.

    Args:
        model: an ONNX file, or a loaded model.
        images: see `Explainer.explain`.
        classes: whose evidence: names or numbers, -1 or ``top:J`` for the highest scores; None: the highest one.
        filters: see `Explainer.explain`.
        layer: whose filters; None: the model's default.
        depths: values of the layers whose gradients are read; None: measured on the first pictures.
        measure: measure too what the model answers without the evidence, and with it alone.
        **session: ``providers`` and ``threads``, see `Session`.

    Returns:
        One explanation per image, in order.

    Raises:
        GradientError: the model does not classify, or has an operator without a gradient.
        ImageError: an image cannot be explained; the first one's message.

    Example:
        >>> (explanation,) = explain_decisions("model.onnx", "photos/0.png")
        >>> explanation.evidence[0].label, [found.id for found in explanation.filters][:2]
        ('argo', [64, 61])
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    with PlainEvidence(loaded, layer, depths, **session) as engine:
        if depths is None:
            first = islice(named_images(images), MOST_PICTURES)
            fitted = (prepare(named, loaded.input_spec, preview=False) for named in first)
            choose_depth(engine, [found.pixels for found in fitted if isinstance(found, Prepared)])
        return Explainer(engine, **session).explain(
            images, filters, classes=-1 if classes is None else classes, measure=measure
        )
