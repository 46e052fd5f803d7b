"""Writing a contributed operator out: the standard nodes and constants that take its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class ExpansionWriter:
    """Collects the nodes and constants that one contributed node becomes."""

    def __init__(self, node: onnx.NodeProto, opset: int, taken: set[str]) -> None:
        self.node, self.opset, self._taken = node, opset, taken
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}

    def input(self, index: int) -> str:
        """Input number `index`, "" where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else str(found)

    def constant(self, array: Any) -> str:
        """A new constant."""
        name = self.fresh("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def number(self, value: float) -> str:
        """A new float32 scalar."""
        return self.constant(np.float32(value))

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A node; returns the value that it makes."""
        output = output or self.fresh(op)
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}.{op}", **attributes))
        return output

    def fresh(self, like: str) -> str:
        """A new value name."""
        number, stem = 0, f"{self.node.output[0]}.{like}"
        name = stem
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name

    def dequantised(self, first: int, axis: int | None = None) -> str:
        """(value - zero) scale of the inputs value, scale, zero from number `first` on; scales along `axis`."""
        given = [self.input(index) for index in range(first, first + 3)]
        attributes = {} if axis is None else {"axis": axis}
        return self.add("DequantizeLinear", [name for name in given if name], "", **attributes)

    def quantised(self, value: str, scale: str, zero: str, output: str) -> None:
        """round(value / scale) + zero, as `output`."""
        self.add("QuantizeLinear", [value, scale, zero] if zero else [value, scale], output)
