"""Where a plain model's decisions come from, at which depths they may be explained, and which filters are told."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..errors import GradientError
from ..gradient.backward import missing_rules
from ..gradient.dense_decision import DenseScores
from ..model.classifier import Classifier
from ..model.model import Model
from .classes import Classes

__all__ = ["chosen_filters", "decision_source", "evidence_depths"]

MOST_DEPTHS: Final = 6
"""Candidates at most: the deepest layer of each of so many map sizes."""


def decision_source(classes: Classes, name: str = "the model") -> Classifier | DenseScores:
    """Where a model's decisions come from: an output that classifies, or scores per box or place.

    Args:
        classes: how the model's outputs are read.
        name: what to call the model.

    Raises:
        GradientError: it decides nothing that is known, or its boxes are chosen before their scores are given.
    """
    if classes.classifier.output is not None:
        return classes.classifier
    if classes.detector is not None and (scores := classes.detector.scores) is not None:
        if not scores.chosen:
            return DenseScores(scores, boxes=True)
        raise GradientError(f"{name}: its boxes ({classes.detector.layout}) are chosen inside: no scores before that")
    if classes.class_map is not None and (scores := classes.class_map.scores) is not None:
        return DenseScores(scores, boxes=False, mask=classes.class_map.kind == "mask")
    raise GradientError(f"{name} does not classify: {classes.classifier.reason}")


def decided_value(source: Classifier | DenseScores) -> str:
    """The value that decisions are taken from."""
    return source.score.value if isinstance(source, DenseScores) else str(source.output)


def evidence_depths(model: Model, classes: Classes) -> tuple[str, ...]:
    """Layers whose gradients may show what a decision rests on: the deepest of each map size, shallow ones first.

    Args:
        model: the CNN.
        classes: how its outputs are read.

    Raises:
        GradientError: the model does not classify, or no layer has a gradient; the reason of the deepest.
    """
    target = decided_value(decision_source(classes, model.path.name))
    deepest: dict[tuple[int, int], str] = {}
    for layer in model.layers:
        if not layer.reason or layer.default:
            deepest.pop(layer.shape[1:], None)
            deepest[layer.shape[1:]] = layer.value
    default = model.default_layer
    deepest[default.shape[1:]] = default.value
    found = [value for shape, value in deepest.items() if min(shape) > 1]
    sizes = {model.input_spec.name: model.input_spec.sample_shape}
    kept = [value for value in found if not missing_rules(model.proto, [target], [value], sizes)]
    if not kept:
        missing = missing_rules(model.proto, [target], found[-1:], sizes)
        raise GradientError(f"{model.path.name}: no gradient by '{found[-1]}': no rule for {', '.join(missing)}")
    ordered = [layer.value for layer in model.layers if layer.value in kept]
    return tuple(ordered[-MOST_DEPTHS:])


def chosen_filters(
    peaks: NDArray[np.floating], phi: NDArray[np.floating], filters: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Fill every slot that asks for a kind of filter; those asked for by id are taken first.

    Args:
        peaks: (N, C).
        phi: (N, C), contributions.
        filters: (N, K): ids; -1 the highest peak, -2 the largest contribution, -3 the smallest.

    Returns:
        (N, K) ids; -1 where no filter was left.
    """
    found = filters.copy()
    for image, asked in enumerate(found):
        taken = set(asked[asked >= 0].tolist())
        orders = {-1: np.argsort(-peaks[image], kind="stable"), -2: np.argsort(-phi[image], kind="stable"),
                  -3: np.argsort(phi[image], kind="stable")}  # fmt: skip
        for slot in np.flatnonzero(asked < 0):
            best = next((int(k) for k in orders[int(asked[slot])] if int(k) not in taken), -1)
            asked[slot] = best
            taken.add(best)
    return found
