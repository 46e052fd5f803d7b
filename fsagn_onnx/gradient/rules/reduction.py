"""Reductions, and softmax."""

from __future__ import annotations

import math

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent


def _axes(step: BackwardStep) -> list[int]:
    rank = len(step.shape())
    found = step.whole(1, "axes", [])
    if not found:
        return [] if step.attribute("noop_with_empty_axes", 0) else list(range(rank))
    return sorted(axis % rank for axis in found)


def _kept(step: BackwardStep, axes: list[int], value: str = "") -> str:
    """The cotangent, or a value of the output's shape, with the reduced axes of length 1."""
    value = value or step.d.value
    if step.attribute("keepdims", 1) or not axes:
        return value
    return step.write.unsqueeze(value, *axes)


def _widened(step: BackwardStep, axes: list[int]) -> frozenset[int]:
    """Axes of the input along which the cotangent is narrow."""
    rank = len(step.shape())
    left = list(range(rank)) if step.attribute("keepdims", 1) else [axis for axis in range(rank) if axis not in axes]
    before = {left[axis] for axis in step.d.narrow}
    return frozenset(before | {axis for axis in axes if step.shape()[axis] != 1})


def _guarded(step: BackwardStep, axes: list[int]) -> None:
    if any(step.shape()[axis] < 0 for axis in axes):
        raise step.refuse("it reduces over the images of a batch")


@gradient_rule("ReduceSum", "ReduceMean", inputs=(0,), narrow=True)
def _sum(step: BackwardStep) -> dict[int, Cotangent]:
    axes = _axes(step)
    _guarded(step, axes)
    value = _kept(step, axes)
    if step.node.op_type == "ReduceMean":
        value = step.mul(value, step.number(1 / math.prod(step.shape()[axis] for axis in axes)))
    return {0: Cotangent(value, _widened(step, axes))}


@gradient_rule("ReduceMax", "ReduceMin", inputs=(0,))
def _extreme(step: BackwardStep) -> dict[int, str]:
    """In equal parts to the places of the extreme."""
    axes = _axes(step)
    _guarded(step, axes)
    held = step.as_number(step.op("Equal", step.x(), _kept(step, axes, step.y())))
    share = step.op("Div", _kept(step, axes), step.write.sum(held, axes))
    return {0: step.mul(held, share)}


@gradient_rule("ReduceProd", inputs=(0,))
def _product(step: BackwardStep) -> dict[int, str]:
    """The product over x: not where it is 0."""
    axes = _axes(step)
    _guarded(step, axes)
    return {0: step.op("Div", step.mul(_kept(step, axes), _kept(step, axes, step.y())), step.x())}


@gradient_rule("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", inputs=(0,))
def _norms(step: BackwardStep) -> dict[int, str]:
    axes, kind, x = _axes(step), step.node.op_type, step.x()
    _guarded(step, axes)
    d, y = _kept(step, axes), _kept(step, axes, step.y())
    if kind == "ReduceL1":
        return {0: step.mul(step.op("Sign", x), d)}
    if kind == "ReduceSumSquare":
        return {0: step.mul(x, step.mul(d, step.number(2)))}
    if kind == "ReduceLogSum":
        return {0: step.op("Expand", step.op("Div", d, step.op("Exp", y)), step.forward.sizes(step.shape()))}
    if kind == "ReduceLogSumExp":
        return {0: step.mul(step.op("Exp", step.op("Sub", x, y)), d)}
    length = step.op("Max", y, step.number(1e-30))  # 0 / 0 is no gradient: torch gives 0
    return {0: step.mul(x, step.op("Div", d, length))}


def _over(step: BackwardStep) -> list[int]:
    """The axes of a softmax: one, or all from one on before opset 13."""
    rank = len(step.shape())
    if step.opset >= 13:
        return [step.attribute("axis", -1) % rank]
    return list(range(step.attribute("axis", 1) % rank, rank))


@gradient_rule("Softmax")
def _softmax(step: BackwardStep) -> dict[int, str]:
    y = step.y()
    given = step.mul(step.d.value, y)
    return {0: step.op("Sub", given, step.mul(y, step.write.sum(given, _over(step))))}


@gradient_rule("LogSoftmax")
def _log_softmax(step: BackwardStep) -> dict[int, str]:
    total = step.write.sum(step.d.value, _over(step))
    return {0: step.op("Sub", step.d.value, step.mul(step.op("Exp", step.y()), total))}
