"""Quantised operators: rounding is taken for no change, so gradients pass straight through.

A cotangent of a quantised value is kept as a float: in units of the real numbers that it stands for, or, around
ConvInteger and MatMulInteger, whose scales are multiplied elsewhere, in its own.
"""

from __future__ import annotations

from onnx import TensorProto

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent
from .convolution import convolved_back


@gradient_rule("QuantizeLinear", "DequantizeLinear", inputs=(0,), narrow=True, scaled=True)
def _quantised(step: BackwardStep) -> dict[int, Cotangent]:
    return {0: step.d}


@gradient_rule("DynamicQuantizeLinear", inputs=(0,), outputs=(0,))
def _dynamic(step: BackwardStep) -> dict[int, str]:
    """X / scale; how the scale hangs on the image is left out."""
    return {0: step.op("Div", step.d.value, step.y(1))}


@gradient_rule("QLinearConv", inputs=(0,), ignored=(1, 2, 3, 4, 5, 6, 7, 8), narrow=True, scaled=True)
def _conv(step: BackwardStep) -> dict[int, Cotangent | str]:
    return {0: convolved_back(step, _real(step, 3, 0), step.shape(3))}


@gradient_rule("QLinearMatMul", inputs=(0,), ignored=(1, 2, 3, 4, 5, 6, 7))
def _matmul(step: BackwardStep) -> dict[int, Cotangent]:
    return {0: _product(step, _real(step, 3, 1), 3)}


@gradient_rule("ConvInteger", inputs=(0,), ignored=(1, 2, 3), narrow=True, scaled=True)
def _conv_integer(step: BackwardStep) -> dict[int, Cotangent | str]:
    return {0: convolved_back(step, _shifted(step), step.shape(1))}


@gradient_rule("MatMulInteger", inputs=(0,), ignored=(1, 2, 3))
def _matmul_integer(step: BackwardStep) -> dict[int, Cotangent]:
    return {0: _product(step, _shifted(step), 1)}


def _real(step: BackwardStep, index: int, axis: int) -> str:
    """Weights as the numbers that they stand for; value, scale and zero point are three inputs in a row."""
    given = [step.x(place) for place in range(index, index + 3) if step.has(place)]
    return step.op("DequantizeLinear", *given, **({"axis": axis} if len(step.shape(index + 1)) else {}))


def _shifted(step: BackwardStep) -> str:
    """Weights of whole numbers, less their zero point."""
    weight = step.op("Cast", step.x(1), to=TensorProto.FLOAT)
    if not step.has(3):
        return weight
    zero = step.op("Cast", step.x(3), to=TensorProto.FLOAT)
    if step.node.op_type == "ConvInteger" and len(step.shape(3)) == 1:
        zero = step.op("Reshape", zero, step.write.constant([-1, *[1] * (len(step.shape(1)) - 1)]))
    return step.op("Sub", weight, zero)


def _product(step: BackwardStep, weight: str, index: int) -> Cotangent:
    axes = list(range(len(step.shape(index))))
    axes[-2:] = axes[:-3:-1]
    back = Cotangent(step.op("MatMul", step.d.value, step.op("Transpose", weight, perm=axes)))
    return step.unbroadcast(back, (*step.shape_out()[:-1], step.shape()[-1]), step.shape())
