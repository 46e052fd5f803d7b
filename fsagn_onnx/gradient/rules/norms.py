"""Normalisation."""

from __future__ import annotations

import math

import numpy as np

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent


@gradient_rule("BatchNormalization", inputs=(0,), narrow=True)
def _batch_norm(step: BackwardStep) -> dict[int, Cotangent]:
    """In inference: one factor per channel, which a convolution before it takes into its weights."""
    if step.attribute("training_mode", 0):
        raise step.refuse("it is in training mode: export the model in inference mode")
    epsilon, scale, variance = step.attribute("epsilon", 1e-5), step.array(1), step.array(4)
    channels = [-1, *[1] * (len(step.shape()) - 2)]
    if scale is not None and variance is not None:
        factor = step.numbers((scale / np.sqrt(variance.astype(np.float64) + epsilon)).reshape(channels))
    else:
        spread = step.op("Sqrt", step.op("Add", step.x(4), step.number(epsilon)))
        factor = step.op("Reshape", step.op("Div", step.x(1), spread), step.write.constant(channels))
    return {0: Cotangent(step.d.value, step.d.narrow, factor)}


def _standardised(step: BackwardStep, x: str, given: str, axes: list[int], epsilon: float) -> str:
    """Dx of (x - mean) / sqrt(variance + epsilon) over some axes."""
    write = step.write
    centred = step.op("Sub", x, write.reduce("ReduceMean", x, axes))
    variance = write.reduce("ReduceMean", step.mul(centred, centred), axes)
    spread = step.op("Sqrt", step.op("Add", variance, step.number(epsilon)))
    unit = step.op("Div", centred, spread)
    along = step.mul(unit, write.reduce("ReduceMean", step.mul(given, unit), axes))
    rest = step.op("Sub", step.op("Sub", given, write.reduce("ReduceMean", given, axes)), along)
    return step.op("Div", rest, spread)


@gradient_rule("InstanceNormalization", inputs=(0,))
def _instance_norm(step: BackwardStep) -> dict[int, str]:
    rank = len(step.shape())
    scale = step.op("Reshape", step.x(1), step.write.constant([-1, *[1] * (rank - 2)]))
    given = step.mul(step.d.value, scale)
    return {0: _standardised(step, step.x(), given, list(range(2, rank)), step.attribute("epsilon", 1e-5))}


@gradient_rule("LayerNormalization", inputs=(0,))
def _layer_norm(step: BackwardStep) -> dict[int, str]:
    rank = len(step.shape())
    axes = list(range(step.attribute("axis", -1) % rank, rank))
    given = step.mul(step.d.value, step.x(1))
    return {0: _standardised(step, step.x(), given, axes, step.attribute("epsilon", 1e-5))}


@gradient_rule("GroupNormalization", inputs=(0,))
def _group_norm(step: BackwardStep) -> dict[int, str]:
    shape, groups = step.shape(), step.attribute("num_groups", 1)
    apart = (shape[0], groups, math.prod(shape[1:]) // groups)
    per_group = step.opset < 21 and step.shape(1) == (groups,)
    scale = step.op("Reshape", step.x(1), step.write.constant([1, -1, *[1] * (1 if per_group else len(shape) - 2)]))
    given = step.d.value if per_group else step.mul(step.d.value, scale)
    given = step.forward.reshaped(given, apart)
    given = step.mul(given, scale) if per_group else given
    x = step.forward.reshaped(step.x(), apart)
    found = _standardised(step, x, given, [2], step.attribute("epsilon", 1e-5))
    return {0: step.forward.reshaped(found, shape)}


@gradient_rule("RMSNormalization", inputs=(0,))
def _root_mean_square(step: BackwardStep) -> dict[int, str]:
    rank, x = len(step.shape()), step.x()
    axes = list(range(step.attribute("axis", -1) % rank, rank))
    given = step.mul(step.d.value, step.x(1))
    square = step.write.reduce("ReduceMean", step.mul(x, x), axes)
    spread = step.op("Sqrt", step.op("Add", square, step.number(step.attribute("epsilon", 1e-5))))
    unit = step.op("Div", x, spread)
    along = step.mul(unit, step.write.reduce("ReduceMean", step.mul(given, unit), axes))
    return {0: step.op("Div", step.op("Sub", given, along), spread)}


@gradient_rule("LpNormalization")
def _lp_norm(step: BackwardStep) -> dict[int, str]:
    """Y = x / |x|: what points along x falls away."""
    x, axis, given = step.x(), step.attribute("axis", -1), step.d.value
    if step.attribute("p", 2) == 1:
        length, direction = step.write.sum(step.op("Abs", x), [axis]), step.op("Sign", x)
    else:
        length, direction = step.op("Sqrt", step.write.sum(step.mul(x, x), [axis])), step.y()
    along = step.mul(direction, step.write.sum(step.mul(given, step.y()), [axis]))
    return {0: step.op("Div", step.op("Sub", given, along), length)}


@gradient_rule("LRN")
def _local_response(step: BackwardStep) -> dict[int, str]:
    """Y = x D^-b with D = bias + a / n times the sum of squares over n channels around."""
    shape, size = step.shape(), step.attribute("size", 1)
    alpha, beta, bias = step.attribute("alpha", 1e-4), step.attribute("beta", 0.75), step.attribute("bias", 1.0)
    channels = np.arange(shape[1])
    low, high = channels - (size - 1) // 2, channels + size // 2
    near = ((channels[None] >= low[:, None]) & (channels[None] <= high[:, None])).astype(np.float64)  # (out, in)
    x, given = step.x(), step.d.value
    inner = step.along(step.mul(x, x), shape, {1: near.T * alpha / size})
    inner = step.op("Add", inner, step.number(bias))
    around = step.along(step.op("Div", step.mul(given, step.y()), inner), shape, {1: near})
    first = step.mul(given, step.op("Pow", inner, step.number(-beta)))
    return {0: step.op("Sub", first, step.mul(step.mul(x, around), step.number(2 * alpha * beta / size)))}


@gradient_rule("MeanVarianceNormalization")
def _mean_variance(step: BackwardStep) -> dict[int, str]:
    axes = step.attribute("axes", [0, 2, 3])
    if any(step.shape()[axis] < 0 for axis in axes):
        raise step.refuse("it is taken over the images of a batch")
    return {0: _standardised(step, step.x(), step.d.value, axes, 1e-9)}
