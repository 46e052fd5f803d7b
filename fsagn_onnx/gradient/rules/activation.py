"""Functions of one number: the cotangent times the derivative, told from the output where that is possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ..facts import FLOATS
from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent

Derivative = Callable[[BackwardStep], str]


def _function(*ops: str) -> Callable[[Derivative], Derivative]:
    def add(derivative: Derivative) -> Derivative:
        @gradient_rule(*ops, inputs=(0,), narrow=True)
        def _write(step: BackwardStep) -> Mapping[int, Cotangent | str]:
            return {0: step.mul(step.d.value, derivative(step))}

        return derivative

    return add


def _positive(step: BackwardStep, value: str) -> str:
    return step.as_number(step.op("Greater", value, step.number(0)))


def _square(step: BackwardStep, value: str) -> str:
    return step.mul(value, value)


def _less_from_one(step: BackwardStep, value: str) -> str:
    return step.op("Sub", step.number(1), value)


def _either(step: BackwardStep, above: str, below: str) -> str:
    """One derivative where the input is above 0, another elsewhere."""
    return step.op("Where", step.op("Greater", step.x(), step.number(0)), above, below)


@_function("Relu")
def _relu(step: BackwardStep) -> str:
    return _positive(step, step.y())


@_function("LeakyRelu")
def _leaky(step: BackwardStep) -> str:
    slope = step.number(step.attribute("alpha", 0.01))
    return step.op("Where", step.op("Greater", step.x(), step.number(0)), step.number(1), slope)


@_function("ThresholdedRelu")
def _thresholded(step: BackwardStep) -> str:
    return step.as_number(step.op("Greater", step.x(), step.number(step.attribute("alpha", 1.0))))


@_function("Clip")
def _clip(step: BackwardStep) -> str:
    """1 strictly inside: where clipping a little more changes nothing."""
    kind, infinite = step.dtype.type, step.dtype.type(np.inf)
    bounds = []
    for name, index, side in (("min", 1, 1), ("max", 2, -1)):
        found = step.array(index)
        if found is None and step.has(index):
            return _inside(step)
        value = step.attribute(name, -side * math.inf) if found is None else float(found.ravel()[0])
        bound = np.nextafter(kind(value), side * infinite) if math.isfinite(value) else kind(value)
        if value == 0:
            bound = kind(side * np.finfo(kind).tiny)
        bounds.append(step.write.constant(np.asarray(bound, step.dtype)))
    return step.as_number(step.op("Equal", step.op("Clip", step.y(), *bounds), step.y()))


def _inside(step: BackwardStep) -> str:
    """As for `Clip`, where a bound is computed."""
    sides = [(op, index) for op, index in (("Greater", 1), ("Less", 2)) if step.has(index)]
    inside = [step.op(op, step.y(), step.x(index)) for op, index in sides]
    return step.as_number(inside[0] if len(inside) == 1 else step.op("And", *inside))


@_function("Sigmoid")
def _sigmoid(step: BackwardStep) -> str:
    return step.mul(step.y(), _less_from_one(step, step.y()))


@_function("HardSigmoid")
def _hard_sigmoid(step: BackwardStep) -> str:
    y = step.y()
    inside = step.op("And", step.op("Greater", y, step.number(0)), step.op("Less", y, step.number(1)))
    return step.mul(step.as_number(inside), step.number(step.attribute("alpha", 0.2)))


@_function("HardSwish")
def _hard_swish(step: BackwardStep) -> str:
    """0 up to -3, (2 x + 3) / 6 up to 3, then 1."""
    x = step.x()
    rising = step.op("Add", step.mul(x, step.number(1 / 3)), step.number(0.5))
    inside = step.op("Less", step.op("Abs", x), step.number(3))
    return step.op("Where", inside, rising, _positive(step, x))


@_function("Swish")
def _swish(step: BackwardStep) -> str:
    """S + a x s (1 - s), s = sigmoid(a x)."""
    alpha = step.attribute("alpha", 1.0)
    scaled = step.x() if alpha == 1 else step.mul(step.x(), step.number(alpha))
    gate = step.op("Sigmoid", scaled)
    return step.mul(gate, step.op("Add", step.mul(scaled, _less_from_one(step, gate)), step.number(1)))


@_function("Mish")
def _mish(step: BackwardStep) -> str:
    """T + x (1 - t^2) sigmoid(x), t = tanh(softplus(x))."""
    x = step.x()
    t = step.op("Tanh", step.op("Softplus", x))
    slope = step.mul(_less_from_one(step, _square(step, t)), step.op("Sigmoid", x))
    return step.op("Add", t, step.mul(x, slope))


@_function("Gelu")
def _gelu(step: BackwardStep) -> str:
    x = step.x()
    if step.attribute("approximate", "none") == "tanh":
        # x (1 + tanh(u)) / 2 with u = c (x + .044715 x^3)
        square = _square(step, x)
        root = math.sqrt(2 / math.pi)
        inner = step.op("Add", step.mul(square, step.number(0.044715 * root)), step.number(root))
        t = step.op("Tanh", step.mul(x, inner))
        rise = step.op("Add", step.mul(square, step.number(3 * 0.044715 * root)), step.number(root))
        rest = step.mul(step.mul(x, rise), _less_from_one(step, _square(step, t)))
        return step.mul(step.op("Add", step.op("Add", t, step.number(1)), rest), step.number(0.5))
    below = step.op("Add", step.op("Erf", step.mul(x, step.number(math.sqrt(0.5)))), step.number(1))
    bell = step.op("Exp", step.mul(_square(step, x), step.number(-0.5)))
    rest = step.mul(step.mul(x, bell), step.number(1 / math.sqrt(2 * math.pi)))
    return step.op("Add", step.mul(below, step.number(0.5)), rest)


@_function("Elu")
def _elu(step: BackwardStep) -> str:
    alpha = step.attribute("alpha", 1.0)
    return _either(step, step.number(1), step.op("Add", step.y(), step.number(alpha)))


@_function("Celu")
def _celu(step: BackwardStep) -> str:
    alpha = step.attribute("alpha", 1.0)
    return _either(step, step.number(1), step.op("Exp", step.op("Div", step.x(), step.number(alpha))))


@_function("Selu")
def _selu(step: BackwardStep) -> str:
    alpha, gamma = (
        step.attribute("alpha", 1.67326319217681884765625),
        step.attribute("gamma", 1.05070102214813232421875),
    )
    return _either(step, step.number(gamma), step.op("Add", step.y(), step.number(alpha * gamma)))


@_function("Softplus")
def _softplus(step: BackwardStep) -> str:
    return step.op("Sigmoid", step.x())


@_function("Softsign")
def _softsign(step: BackwardStep) -> str:
    return step.op("Reciprocal", _square(step, step.op("Add", step.op("Abs", step.x()), step.number(1))))


@_function("Tanh")
def _tanh(step: BackwardStep) -> str:
    return _less_from_one(step, _square(step, step.y()))


@_function("Erf")
def _erf(step: BackwardStep) -> str:
    bell = step.op("Exp", step.op("Neg", _square(step, step.x())))
    return step.mul(bell, step.number(2 / math.sqrt(math.pi)))


@_function("Exp")
def _exp(step: BackwardStep) -> str:
    return step.y()


@_function("Log")
def _log(step: BackwardStep) -> str:
    return step.op("Reciprocal", step.x())


@_function("Sqrt")
def _sqrt(step: BackwardStep) -> str:
    return step.op("Div", step.number(0.5), step.y())


@_function("Reciprocal")
def _reciprocal(step: BackwardStep) -> str:
    return step.op("Neg", _square(step, step.y()))


@_function("Abs")
def _abs(step: BackwardStep) -> str:
    return step.op("Sign", step.x())


@_function("Sin")
def _sin(step: BackwardStep) -> str:
    return step.op("Cos", step.x())


@_function("Cos")
def _cos(step: BackwardStep) -> str:
    return step.op("Neg", step.op("Sin", step.x()))


@_function("Tan")
def _tan(step: BackwardStep) -> str:
    return step.op("Add", _square(step, step.y()), step.number(1))


@_function("Asin")
def _asin(step: BackwardStep) -> str:
    return step.op("Reciprocal", step.op("Sqrt", _less_from_one(step, _square(step, step.x()))))


@_function("Acos")
def _acos(step: BackwardStep) -> str:
    return step.op("Neg", _asin(step))


@_function("Sinh")
def _sinh(step: BackwardStep) -> str:
    return step.op("Cosh", step.x())


@_function("Cosh")
def _cosh(step: BackwardStep) -> str:
    return step.op("Sinh", step.x())


@_function("Atan")
def _atan(step: BackwardStep) -> str:
    return step.op("Reciprocal", step.op("Add", _square(step, step.x()), step.number(1)))


@gradient_rule("Neg", narrow=True, scaled=True)
def _neg(step: BackwardStep) -> dict[int, Cotangent]:
    return {0: Cotangent(step.op("Neg", step.d.value), step.d.narrow, step.d.scale)}


@gradient_rule("Identity", "Dropout", inputs=(0,), narrow=True, scaled=True)
def _identity(step: BackwardStep) -> dict[int, Cotangent]:
    return {0: step.d}


@gradient_rule("Cast", "CastLike", inputs=(0,), narrow=True, scaled=True)
def _cast(step: BackwardStep) -> dict[int, Cotangent]:
    before, after = step.facts.type(step.node.input[0]), step.facts.type(step.node.output[0])
    if before == after or not {before, after} <= FLOATS:  # gradients of whole numbers are kept as floats
        return {0: step.d}
    given = step.plain(step.d)
    return {0: Cotangent(step.op("Cast", given.value, to=before), given.narrow)}


@gradient_rule("PRelu", inputs=(0,), narrow=True)
def _prelu(step: BackwardStep) -> dict[int, str]:
    return {0: step.mul(step.d.value, _either(step, step.number(1), step.x(1)))}
