"""Convolutions: the cotangent through the flipped kernel.

A transposed convolution is exact everywhere, but slow in onnxruntime where channels are convolved one by one: there,
and for stride 1, it is written as a plain convolution, over a cotangent spaced out by zeros where the stride is larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent


@dataclass(frozen=True)
class KernelMotion:
    """How a kernel moves: per spatial axis its size, stride, dilation, first pad, input and output size."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    first: list[int]
    before: list[int]
    after: list[int]

    @property
    def reach(self) -> list[int]:
        """Cells from the first to the last of a kernel."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def last(self) -> list[int]:
        """The pads behind that are used: what is left over after the last step is not."""
        return [
            (out - 1) * stride + reach - size - first
            for out, stride, reach, size, first in zip(
                self.after, self.strides, self.reach, self.before, self.first, strict=True
            )
        ]


def window_of(step: BackwardStep, kernel: list[int]) -> KernelMotion:
    """How the kernel of a convolution or a pool moves, `auto_pad` worked out."""
    rank = len(kernel)
    before, after = list(step.shape()[2:]), list(step.shape_out()[2:])
    strides, dilations = step.attribute("strides", [1] * rank), step.attribute("dilations", [1] * rank)
    first = step.attribute("pads", [0] * 2 * rank)[:rank]
    auto = step.attribute("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        whole = [
            max(0, (out - 1) * stride + span - size)
            for out, stride, span, size in zip(after, strides, reach, before, strict=True)
        ]
        first = [pad // 2 if auto == "SAME_UPPER" else pad - pad // 2 for pad in whole]
    return KernelMotion(kernel, strides, dilations, first, before, after)


def _turned(step: BackwardStep, weight: str, shape: tuple[int, ...], group: int) -> str:
    """Weights (O, I / g, ...) with inputs and outputs changed over inside each group, and flipped along space."""
    spatial = [axis for axis, size in enumerate(shape) if axis > 1 and size > 1]
    if spatial:
        first = step.write.constant([-1] * len(spatial))
        last = step.write.constant([-(2**31)] * len(spatial))
        weight = step.op("Slice", weight, first, last, step.write.constant(spatial), first)
    if shape[1] == 1 and group == shape[0]:
        return weight
    axes = list(range(2, len(shape)))
    if group == 1:
        return step.op("Transpose", weight, perm=[1, 0, *axes])
    apart = step.write.constant([group, shape[0] // group, *shape[1:]])
    weight = step.op("Transpose", step.op("Reshape", weight, apart), perm=[0, 2, 1, *(axis + 1 for axis in axes)])
    return step.op("Reshape", weight, step.write.constant([group * shape[1], shape[0] // group, *shape[2:]]))


@gradient_rule("Conv", inputs=(0,), narrow=True, scaled=True)
def _conv(step: BackwardStep) -> dict[int, Cotangent | str]:
    return {0: convolved_back(step, step.x(1), step.shape(1))}


def convolved_back(step: BackwardStep, weight: str, shape: tuple[int, ...]) -> Cotangent | str:
    """The gradient of a convolution's input.

    Args:
        step: at a node with the attributes of Conv.
        weight: name of its weights.
        shape: their shape.
    """
    group, window, given = step.attribute("group", 1), window_of(step, list(shape[2:])), step.d
    if given.scale:
        shaped = step.op("Reshape", given.scale, step.write.constant([-1, *[1] * (len(shape) - 1)]))
        weight = step.mul(weight, shaped)
    given = Cotangent(given.value, given.narrow)
    single = all(size == 1 for size in shape[2:]) and set(window.strides) == {1} and not any(window.first + window.last)
    if single:
        spatial = given.narrow - {0, 1}
        value = step.full(given, step.shape_out()) if given.narrow & {0, 1} else given.value
        return Cotangent(step.op("Conv", value, _turned(step, weight, shape, group), group=group), spatial)
    value, alone = step.full(given, step.shape_out()), shape[1] == 1 and shape[0] == group
    left = [reach - 1 - first for reach, first in zip(window.reach, window.first, strict=True)]
    if set(window.strides) == {1} or alone:
        plain = _spaced_convolution(step, value, _turned(step, weight, shape, group), window, left, group)
        if plain:
            return plain
    return _transposed(step, value, weight, window, group)


def _spaced_convolution(
    step: BackwardStep, value: str, weight: str, window: KernelMotion, left: list[int], group: int
) -> str | None:
    """The flipped kernel over the cotangent, zeros between its cells; None where a pad would be negative."""
    strides = window.strides
    spread = [out * stride for out, stride in zip(window.after, strides, strict=True)]
    right = [
        size - wide - first + reach - 1
        for size, wide, first, reach in zip(window.before, spread, left, window.reach, strict=True)
    ]
    cut = [max(0, -pad) for pad in right]
    if min(left) < 0 or any(gone >= stride for gone, stride in zip(cut, strides, strict=True) if gone):
        return None
    if set(strides) != {1}:
        scales = step.write.constant(np.array([1, 1, *strides], np.float32))
        value = step.op(
            "Resize", value, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )  # fmt: skip
        mask = np.ones([1, 1, *spread])
        for axis, stride in enumerate(strides):
            mask *= (np.arange(spread[axis]) % stride == 0).reshape(
                [-1 if at == axis + 2 else 1 for at in range(mask.ndim)]
            )
        value = step.mul(value, step.numbers(mask))
    for axis, gone in enumerate(cut):
        if gone:
            value = step.write.slice(value, axis + 2, 0, spread[axis] - gone)
    pads = [*left, *(max(0, pad) for pad in right)]
    return step.op("Conv", value, weight, group=group, dilations=window.dilations, pads=pads)


def _transposed(step: BackwardStep, value: str, weight: str, window: KernelMotion, group: int) -> str:
    last = window.last
    return step.op(
        "ConvTranspose", value, weight, group=group, strides=window.strides, dilations=window.dilations,
        pads=[*window.first, *(max(0, pad) for pad in last)], output_padding=[max(0, -pad) for pad in last],
    )  # fmt: skip


@gradient_rule("ConvTranspose", inputs=(0,))
def _conv_transpose(step: BackwardStep) -> dict[int, str]:
    """A convolution with the same kernel, as its weights already lie (inputs, outputs / g, ...)."""
    shape = step.shape(1)
    kernel, rank = list(shape[2:]), len(shape) - 2
    strides, dilations = step.attribute("strides", [1] * rank), step.attribute("dilations", [1] * rank)
    first = step.attribute("pads", [0] * 2 * rank)[:rank]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    whole = [(size - 1) * stride + span for size, stride, span in zip(step.shape()[2:], strides, reach, strict=True)]
    auto = step.attribute("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        gone = [max(0, wide - size) for wide, size in zip(whole, step.shape_out()[2:], strict=True)]
        first = [pad // 2 if auto == "SAME_UPPER" else pad - pad // 2 for pad in gone]
    last = [wide - size - pad for wide, size, pad in zip(whole, step.shape_out()[2:], first, strict=True)]
    value = step.d.value
    for axis, pad in enumerate(last):
        if pad < 0:
            value = step.write.slice(value, axis + 2, 0, step.shape_out()[axis + 2] + pad)
    pads = [*first, *(max(0, pad) for pad in last)]
    group = step.attribute("group", 1)
    return {0: step.op("Conv", value, step.x(1), group=group, strides=strides, dilations=dilations, pads=pads)}
