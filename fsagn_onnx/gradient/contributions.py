"""Contributions of a layer's filters to a decision, written into the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ..errors import GradientError
from ..model.classifier import Classifier
from .backward import PREFIX, Backward, Sizes
from .decision import decision_writer
from .dense_decision import DenseScores
from .facts import Shape
from .step import Cotangent

__all__ = ["Contributions", "add_contributions", "contributions_of"]


@dataclass(frozen=True)
class Contributions:
    """Names of values.

    Attributes:
        class_ids: int64 (N, J).
        decision: d_c, float (N, J).
        gradient: dd_c / dF, (N J, C, h, w), or (N J, C, 1, 1) where it is the same at every place.
        phi: contributions sum over places of F_k dd_c / dF_k, (N, J, C).
        support: sums of all positive and of all negative contributions, (N, J, 2).
        owners: int64 (N J,), the image of each row of ``gradient``; None where J is 1.
        uniform: the gradient is the same at every place, (N J, C, 1, 1).
    """

    class_ids: str
    decision: str
    gradient: str
    phi: str
    support: str
    owners: str | None
    uniform: bool


def add_contributions(
    proto: onnx.ModelProto,
    classifier: Classifier | DenseScores,
    layer_value: str,
    classes: str,
    *,
    single: bool = False,
    sizes: Sizes | None = None,
    prefix: str = PREFIX,
) -> Contributions:
    """Append what the filters of a layer add to the decision about some classes.

    Where pooling and a linear classifier follow, this is exact and nearly free: the gradient is one number per filter,
    and is never spread over the map.

    Args:
        proto: a model in topological order at opset 13 or later; changed.
        classifier: which of its outputs classifies, and how; or where scores per box or place are.
        layer_value: the tapped value (N, C, h, w).
        classes: name of an int64 value (N, J), see `add_decision`.
        single: J is 1: rows are images.
        sizes: input -> shape of one sample, where the graph leaves it open.
        prefix: what names of new nodes and values begin with.

    Raises:
        GradientError: the model does not classify, its decision does not hang on the layer, or an op between them has
            no rule.
    """
    back = Backward(proto, sizes, prefix)
    decision = decision_writer(back.facts, back.write, classifier).write(classes, single)
    given = back.run(decision.cotangents, [layer_value], decision.owners)[layer_value]
    shape = back.facts.shape(layer_value)
    if len(shape) != 4:
        raise GradientError(f"the layer '{layer_value}' must be (N, C, h, w), but has {len(shape)} axes")
    phi, support = contributions_of(back, layer_value, given, classes, decision.owners)
    uniform = _alike(shape, given)
    gradient = given.value if uniform else back.full(layer_value, given)
    return Contributions(decision.class_ids, decision.decision, gradient, phi, support, decision.owners, uniform)


def _alike(shape: Shape, given: Cotangent) -> bool:
    """Whether a gradient is the same at every place, and kept once."""
    return {axis for axis in (2, 3) if shape[axis] != 1} <= given.narrow and not given.narrow & {0, 1}


def contributions_of(
    back: Backward,
    layer_value: str,
    given: Cotangent,
    classes: str,
    owners: str | None,
    means: NDArray[np.floating] | None = None,
) -> tuple[str, str]:
    """Append the contributions of a layer's filters, and the sums of the positive and of the negative ones.

    Args:
        back: has written the gradient.
        layer_value: the tapped value (N, C, h, w).
        given: its gradient, rows (N J, ...).
        classes: name of the int64 value (N, J) that was asked for.
        owners: of the rows, None where J is 1.
        means: (C,), what each filter is against: sum over places of (F_k - mean_k) dd_c / dF_k; None: against 0.

    Returns:
        Names of (N, J, C) and (N, J, 2).
    """
    write, shape = back.write, back.facts.shape(layer_value)
    channels, cells = shape[1], shape[2] * shape[3]
    kind = helper.tensor_dtype_to_np_dtype(back.facts.type(layer_value))
    if means is not None:
        layer_value = write.op("Sub", layer_value, write.constant(means.astype(kind).reshape(1, channels, 1, 1)))
    per_class = write.op("Concat", write.op("Shape", classes), write.constant([channels]), axis=0)  # (N, J, C)
    if _alike(shape, given):
        slopes = write.op("Reshape", given.value, per_class)
        total = write.op("Reshape", write.sum(layer_value, [2, 3]), write.constant([-1, 1, channels]))
        phi = write.op("Mul", slopes, total)
    else:
        maps = layer_value if owners is None else write.op("Gather", layer_value, owners, axis=0)
        product = write.op("Mul", maps, given.value if given.narrow <= {1, 2, 3} else back.full(layer_value, given))
        flat = write.op("Reshape", product, write.constant([-1, channels, cells]))
        phi = write.op("Reshape", write.sum(flat, [2], keep=False), per_class)
    zero = write.constant(np.zeros((), kind))
    sums = [write.sum(write.op(extreme, phi, zero), [2]) for extreme in ("Max", "Min")]
    return phi, write.op("Concat", *sums, axis=2)
