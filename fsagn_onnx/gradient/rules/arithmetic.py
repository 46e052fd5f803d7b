"""Functions of several numbers, with broadcasting."""

from __future__ import annotations

import math

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent


def _spread(step: BackwardStep, parts: dict[int, Cotangent]) -> dict[int, Cotangent]:
    """Each part summed over the axes along which its input was spread."""
    shape = step.shape_out()
    return {index: step.unbroadcast(part, shape, step.shape(index)) for index, part in parts.items()}


def _times(step: BackwardStep, factor: str, index: int) -> Cotangent:
    """The cotangent times a value of the shape of input `index`: narrow only where that has the length 1."""
    shape, lead = step.shape(index), len(step.shape_out()) - len(step.shape(index))
    kept = (axis for axis in step.d.narrow if axis < lead or shape[axis - lead] == 1)
    return Cotangent(step.mul(step.d.value, factor), frozenset(kept))


def _whole(step: BackwardStep, value: str) -> Cotangent:
    """The cotangent times a value of the output's shape."""
    return Cotangent(step.mul(step.d.value, value))


@gradient_rule("Add", "Sum", narrow=True, scaled=True)
def _add(step: BackwardStep) -> dict[int, Cotangent]:
    same = [index for index in step.wanted if step.shape(index) == step.shape_out()]
    plain = step.plain(step.d) if len(same) < len(step.wanted) else step.d
    rest = _spread(step, {index: plain for index in step.wanted if index not in same})
    return {**dict.fromkeys(same, step.d), **rest}


@gradient_rule("Sub", narrow=True)
def _sub(step: BackwardStep) -> dict[int, Cotangent]:
    parts = {0: step.d, 1: Cotangent(step.op("Neg", step.d.value), step.d.narrow)}
    return _spread(step, {index: parts[index] for index in step.wanted})


@gradient_rule("Mul", narrow=True)
def _mul(step: BackwardStep) -> dict[int, Cotangent]:
    return _spread(step, {index: _times(step, step.x(1 - index), 1 - index) for index in step.wanted})


@gradient_rule("Div", narrow=True)
def _div(step: BackwardStep) -> dict[int, Cotangent]:
    parts = {}
    if 0 in step.wanted:
        parts[0] = _times(step, step.op("Reciprocal", step.x(1)), 1)
    if 1 in step.wanted:
        parts[1] = _whole(step, step.op("Neg", step.op("Div", step.y(), step.x(1))))
    return _spread(step, parts)


@gradient_rule("Pow")
def _pow(step: BackwardStep) -> dict[int, Cotangent]:
    parts = {}
    if 0 in step.wanted:
        exponent = step.array(1)
        power = float(exponent.ravel()[0]) if exponent is not None and exponent.size == 1 else math.nan
        if power == 2:
            factor = step.mul(step.x(), step.number(2))
        elif power == power:
            lower = step.x() if power == 2 else step.op("Pow", step.x(), step.number(power - 1))
            factor = step.mul(lower, step.number(power))
        else:
            lower = step.op("Pow", step.x(), step.op("Sub", step.x(1), step.number(1)))
            factor = step.mul(lower, step.x(1))
        parts[0] = _whole(step, factor)
    if 1 in step.wanted:
        parts[1] = _whole(step, step.mul(step.y(), step.op("Log", step.x())))
    return _spread(step, parts)


@gradient_rule("Min", "Max")
def _extreme(step: BackwardStep) -> dict[int, Cotangent]:
    """To the inputs that are the extreme one; where several are, in equal parts."""
    held = [step.as_number(step.op("Equal", step.x(index), step.y())) for index in range(len(step.node.input))]
    if len(held) == 1:
        return {0: step.d}
    count = held[0]
    for one in held[1:]:
        count = step.op("Add", count, one)
    share = step.op("Div", step.d.value, count)
    return _spread(step, {index: Cotangent(step.mul(share, held[index])) for index in step.wanted})


@gradient_rule("Where", inputs=(1, 2), ignored=(0,))
def _where(step: BackwardStep) -> dict[int, Cotangent]:
    zero, truth, given = step.number(0), step.x(0), step.d.value
    parts = {1: ("Where", truth, given, zero), 2: ("Where", truth, zero, given)}
    return _spread(step, {index: Cotangent(step.op(*parts[index])) for index in step.wanted})


@gradient_rule("Mean")
def _mean(step: BackwardStep) -> dict[int, Cotangent]:
    part = Cotangent(step.mul(step.d.value, step.number(1 / len(step.node.input))))
    return _spread(step, dict.fromkeys(step.wanted, part))
