"""Collecting ONNX nodes and constants, with the few operators that the generator's graph is written in."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ..runtime.contract import PREFIX


class GraphWriter:
    """Collects nodes and initializers under one name prefix."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.values: list[onnx.ValueInfoProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def constant(self, values: NDArray[Any] | Tensor | list[int] | list[float] | int | float) -> str:
        """An initializer; equal ones are shared. Python ints become int64, floats float32."""
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if not isinstance(values, np.ndarray | np.generic | Tensor):
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"{PREFIX}c{len(self._known)}"
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), self._known[key]))
        return self._known[key]

    def op(self, kind: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> str:
        """One node; returns its (first) output's name, the others being that name + ``:1`` and so on."""
        first = name or f"{PREFIX}{kind}_{len(self.nodes)}"
        names = [first, *(f"{first}:{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=PREFIX + first, **attributes))
        return first

    def known(self, value: str, *shape: str | int) -> str:
        """State a shape that onnxruntime cannot infer: it fuses a sum only into a convolution that has its shape."""
        self.values.append(helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, list(shape)))
        return value

    def conv(self, values: str, weight: Tensor, bias: Tensor | None, **attributes: Any) -> str:
        """A convolution."""
        inputs = [values, self.constant(weight)]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.op("Conv", *inputs, kernel_shape=list(weight.shape[2:]), **attributes)

    def layer(self, values: str, layer: nn.Conv2d, scale: Tensor | None = None) -> str:
        """A torch convolution; ``scale`` multiplies its input channels and is folded into the weight."""
        weight = layer.weight if scale is None else layer.weight * scale
        pad = layer.padding[0] if isinstance(layer.padding, tuple) else 0
        return self.conv(
            values,
            weight,
            layer.bias,
            pads=[int(pad)] * 4,
            strides=list(layer.stride),
            group=layer.groups,
        )

    def resize(self, values: str, before: tuple[int, int], after: tuple[int, int]) -> str:
        """Bilinear with half-pixel centres over the last two of four axes; nothing where the size stays.

        Whole multiples are given as scales: onnxruntime then resizes inside its blocked layout.
        """
        if before == after:
            return values
        if all(large % small == 0 for small, large in zip(before, after, strict=True)):
            scales = [1.0, 1.0, after[0] / before[0], after[1] / before[1]]
            return self.op(
                "Resize",
                values,
                "",
                self.constant(scales),
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        return self.op(
            "Resize",
            values,
            "",
            "",
            self.constant(list(after)),
            axes=[2, 3],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
