"""Pooling."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent
from .convolution import window_of


@gradient_rule("GlobalAveragePool", narrow=True)
def _global_average(step: BackwardStep) -> dict[int, Cotangent]:
    """The same share everywhere, kept once."""
    shape = step.shape()
    cells = math.prod(shape[2:])
    value = step.mul(step.d.value, step.number(1 / cells))
    return {0: Cotangent(value, frozenset(axis for axis in range(2, len(shape)) if shape[axis] != 1))}


@gradient_rule("AveragePool")
def _average(step: BackwardStep) -> dict[int, str]:
    """A mean is a matrix along each axis."""
    kernel = step.attribute("kernel_shape", [1])
    window = window_of(step, kernel)
    end = step.attribute("pads", [0] * 2 * len(kernel))[len(kernel) :]
    matrices = {}
    for axis, size in enumerate(window.before):
        padded = step.attribute("count_include_pad", 0), window.first[axis], end[axis]
        if step.attribute("auto_pad", "NOTSET").startswith("SAME"):
            padded = padded[0], padded[1], max(0, window.last[axis])
        places = range(0, window.after[axis] * window.strides[axis], window.strides[axis])
        matrices[axis + 2] = _means(size, kernel[axis], window.dilations[axis], places, padded)
    return {0: step.along(step.d.value, step.shape_out(), matrices)}


def _means(size: int, kernel: int, dilation: int, places: range, padded: tuple[int, int, int]) -> NDArray[np.float64]:
    """(outputs, inputs): what each input adds to each mean. Cells beyond the end pads never count."""
    counted, first, last = padded
    matrix = np.zeros((len(places), size))
    for row, place in enumerate(places):
        cells = [place + dilation * step - first for step in range(kernel)]
        inside = [cell for cell in cells if 0 <= cell < size]
        count = sum(cell < size + last for cell in cells) if counted else len(inside)
        matrix[row, inside] = 1 / max(1, count)
    return matrix


@gradient_rule("MaxPool")
def _max(step: BackwardStep) -> dict[int, str]:
    """To the place that the forward pass says it took."""
    node, shape = step.node, step.shape()
    if len(node.output) < 2 or not node.output[1]:
        if len(node.output) < 2:
            node.output.append("")
        node.output[1] = step.write.fresh("MaxPool_places")
        step.facts.add(node.output[1], node.output[0])
    if step.attribute("storage_order", 0):
        raise step.refuse("indices in column-major order")
    cells = math.prod(shape[1:])
    flat = (shape[0], cells)
    places = step.op("Mod", step.y(1), step.write.constant([cells]))
    places = step.forward.reshaped(places, (shape[0], math.prod(step.shape_out()[1:])))
    given = step.forward.reshaped(step.d.value, (shape[0], math.prod(step.shape_out()[1:])))
    zeros = step.op("Expand", step.number(0), step.forward.sizes(flat))
    return {0: step.forward.reshaped(_added(step, zeros, places, given), shape)}


def _added(step: BackwardStep, zeros: str, places: str, given: str) -> str:
    if step.opset >= 16:
        return step.op("ScatterElements", zeros, places, given, axis=1, reduction="add")
    kernel = step.attribute("kernel_shape", [1])
    if any(size > stride for size, stride in zip(kernel, step.attribute("strides", [1] * len(kernel)), strict=True)):
        raise step.refuse("windows that overlap need opset 16")
    return step.op("ScatterElements", zeros, places, given, axis=1)


@gradient_rule("GlobalMaxPool")
def _global_max(step: BackwardStep) -> dict[int, str]:
    """To the first place of the maximum."""
    shape = step.shape()
    cells = math.prod(shape[2:])
    flat = step.forward.reshaped(step.x(), (*shape[:2], cells))
    place = step.op("ArgMax", flat, axis=2, keepdims=1)
    chosen = step.as_number(step.op("Equal", place, step.write.constant(list(range(cells)))))
    given = step.forward.reshaped(step.d.value, (*shape[:2], 1))
    return {0: step.forward.reshaped(step.mul(chosen, given), shape)}


@gradient_rule("GlobalLpPool", "LpPool")
def _lp(step: BackwardStep) -> dict[int, str]:
    """X |x|^(p-2) y^(1-p) d."""
    if step.node.op_type == "LpPool":
        raise step.refuse("only the global form has a rule")
    power = step.attribute("p", 2)
    x, given = step.x(), step.d.value
    if power == 1:
        return {0: step.mul(step.op("Sign", x), given)}
    lower = x if power == 2 else step.mul(x, step.op("Pow", step.op("Abs", x), step.number(power - 2)))
    share = step.op("Div", given, step.op("Pow", step.y(), step.number(power - 1)) if power != 2 else step.y())
    return {0: step.mul(lower, share)}
