"""What the numbers of an output that classifies say: probabilities and log-odds. Written once, in numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..gradient.decision_values import LEAST
from ..model.classifier import SINGLE

__all__ = ["log_odds_of", "probabilities_of"]


def probabilities_of(numbers: NDArray[np.float64], scores: str) -> NDArray[np.float64]:
    """Probabilities (N, classes).

    Args:
        numbers: (N, numbers), what the model gives.
        scores: what they are, one of `SCORES`; one number is a decision between two classes.
    """
    if scores in SINGLE:
        positive = numbers[:, :1] if scores == "sigmoid" else 1 / (1 + np.exp(-np.clip(numbers[:, :1], -700, 700)))
        positive = np.clip(positive, 0, 1)
        return np.concatenate([1 - positive, positive], axis=1)
    if scores == "logits":
        powers = np.exp(numbers - numbers.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return np.clip(np.exp(np.minimum(numbers, 0)) if scores == "log-probabilities" else numbers, 0, 1)


def log_odds_of(numbers: NDArray[np.float64], scores: str) -> NDArray[np.float64]:
    """Decision values d_c (N, classes), see `Classes.decisions`; arguments as for `probabilities_of`."""
    if scores == "logits":
        return _against_the_others(numbers)
    if scores == "logit":
        return np.concatenate([-numbers[:, :1], numbers[:, :1]], axis=1)
    if scores in ("labels", "sigmoid"):
        inside = np.clip(numbers, LEAST, 1 - LEAST)
        odds = np.log(inside) - np.log1p(-inside)
        return odds if scores == "labels" else np.concatenate([-odds[:, :1], odds[:, :1]], axis=1)
    return _against_the_others(np.log(np.maximum(numbers, LEAST)) if scores == "probabilities" else numbers)


def _against_the_others(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each logit minus the log sum exp of the others, (N, C): the highest is left out of its sum, not subtracted."""
    rows, best = np.arange(len(logits)), logits.argmax(axis=1)
    top = logits[rows, best]
    powers = np.exp(logits - top[:, None])
    rest = powers.sum(axis=1, keepdims=True) - powers
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = logits - top[:, None] - np.log(rest)
        others = logits.copy()
        others[rows, best] = -np.inf
        second = others.max(axis=1)
        odds[rows, best] = top - second - np.log(np.exp(others - second[:, None]).sum(axis=1))
    return np.asarray(odds)
