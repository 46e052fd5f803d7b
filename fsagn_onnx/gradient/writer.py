"""Appending nodes and constants to a graph, in the spelling of the graph's own opset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..errors import GradientError
from ..model.fresh_names import FreshNames
from ..model.opset import opset_of

__all__ = ["LEAST_OPSET", "NodeWriter"]

LEAST_OPSET: Final = 13
"""The first opset that gradients are written in: axes are inputs from there on."""


class NodeWriter:
    """Appends to a graph under one name prefix; equal constants and equal nodes exist once.

    Args:
        proto: the graph; changed.
        prefix: what names of new values and nodes begin with.

    Raises:
        GradientError: the graph's opset is older than `LEAST_OPSET`.
    """

    def __init__(self, proto: onnx.ModelProto, prefix: str) -> None:
        self.graph, self.prefix, self.opset = proto.graph, prefix, opset_of(proto)
        if self.opset < LEAST_OPSET:
            raise GradientError(
                f"gradients are written at opset {LEAST_OPSET} or later, but the graph has {self.opset}; convert it "
                "with onnx.version_converter"
            )
        taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
        self._names = FreshNames(taken.union(item.name for item in (*proto.graph.input, *proto.graph.initializer)))
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._made: dict[tuple[Any, ...], str] = {}

    def fresh(self, stem: str) -> str:
        """A value name that nothing has."""
        return self._names.like(f"{self.prefix}{stem}")

    def constant(self, values: NDArray[Any] | Sequence[int] | int) -> str:
        """An initializer; Python ints become int64."""
        array = np.asarray(values)
        if not isinstance(values, np.ndarray | np.generic):
            array = array.astype(np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.fresh("constant")
            self.graph.initializer.append(
                numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            )
            self._constants[key] = name
        return self._constants[key]

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node of one output; where the same one exists already, its output."""
        key = (kind, inputs, tuple(sorted((item, str(value)) for item, value in attributes.items())))
        if key in self._made and not name:
            return self._made[key]
        output = name or self.fresh(kind)
        self.graph.node.append(helper.make_node(kind, list(inputs), [output], name=f"{output}.node", **attributes))
        self._made.setdefault(key, output)
        return output

    def several(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """A node of several outputs."""
        names = [self.fresh(kind) for _ in range(outputs)]
        self.graph.node.append(helper.make_node(kind, list(inputs), names, name=f"{names[0]}.node", **attributes))
        return names

    def sum(self, value: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """The sum along axes; the value itself where there are none."""
        if not axes:
            return value
        return self.op("ReduceSum", value, self.constant(list(axes)), keepdims=int(keep))

    def reduce(self, kind: str, value: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """Another reduction along axes: its axes became an input at opset 18."""
        if self.opset >= 18:
            return self.op(kind, value, self.constant(list(axes)), keepdims=int(keep))
        return self.op(kind, value, axes=list(axes), keepdims=int(keep))

    def unsqueeze(self, value: str, *axes: int) -> str:
        """The value with further axes of length 1."""
        return self.op("Unsqueeze", value, self.constant(list(axes)))

    def slice(self, value: str, axis: int, start: int, end: int) -> str:
        """A contiguous part along one axis."""
        return self.op("Slice", value, *(self.constant([number]) for number in (start, end, axis)))
