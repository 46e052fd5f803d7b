"""What is known of a graph's values before it runs: shapes up to the batch, types, whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from ..errors import GradientError
from ..model.onnx_file import shape_of
from ..model.shape_arithmetic import fold_shapes
from ..model.shapes import infer, skeleton, static_shapes
from ..model.topology import Topology

__all__ = ["FLOATS", "QUANTISED", "GraphFacts", "Shape"]

FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16})
QUANTISED: Final = frozenset({TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16})
"""Types of numbers that stand for floating-point ones."""

PROBE: Final = 7919
"""A batch that divides no other size: an axis that it divides holds the images."""

Shape = tuple[int, ...]
"""Sizes; -k stands for k times the batch."""


class GraphFacts:
    """Shapes, types and constants of a graph.

    Args:
        proto: the graph; its own nodes, before any are appended.
        sizes: input name -> shape of one sample, without the batch, of those inputs that hold images; None: as the
            graph declares them, of all inputs.
    """

    def __init__(self, proto: onnx.ModelProto, sizes: Mapping[str, Sequence[int]] | None = None) -> None:
        self.proto, self.topology = proto, Topology(proto.graph)
        given: dict[str, tuple[int, ...]] = {}
        self.batch = PROBE
        for item in proto.graph.input:
            if item.name in self.topology.initializers or item.type.WhichOneof("value") != "tensor_type":
                continue
            declared = shape_of(item.type.tensor_type)
            sample = None if sizes is None else sizes.get(item.name)
            if sizes is None and declared and all(isinstance(dim, int) for dim in declared[1:]):
                sample = [int(dim) for dim in declared[1:] if isinstance(dim, int)]
            if sample is None or not declared:
                continue
            if isinstance(declared[0], int) and declared[0] > 0:
                self.batch = declared[0]
            given[item.name] = (declared[0] if isinstance(declared[0], int) and declared[0] > 0 else PROBE, *sample)
        self._inputs = given
        self._varying = self.topology.descendants(given)
        self._found = static_shapes(proto, given)

    @property
    def fixed(self) -> bool:
        """Whether the graph takes one batch size only."""
        return self.batch != PROBE

    def shape(self, value: str) -> Shape:
        """Sizes of a value.

        Raises:
            GradientError: they are not known.
        """
        found = self._found.get(value)
        if found is None:
            raise GradientError(
                f"the shape of the value '{value}' is not known before the graph runs, as its gradient needs"
            )
        if value not in self._varying:
            return found
        if self.fixed:
            held = found and self.batch and found[0] % self.batch == 0
            return (-(found[0] // self.batch), *found[1:]) if held else found
        return tuple(-(size // PROBE) if size and size % PROBE == 0 else size for size in found)

    @property
    def image(self) -> str:
        """The first input that has images along its first axis; "" where there is none."""
        return next(iter(self._inputs), "")

    def add(self, value: str, like: str) -> None:
        """Take up a value of whole numbers that a node makes besides another one, of its shape."""
        self._found[value] = self._found[like]
        self._types[value] = TensorProto.INT64
        self._varying.add(value)

    def knows(self, value: str) -> bool:
        """Whether the shape of a value is known."""
        return value in self._found

    @cached_property
    def _types(self) -> dict[str, int]:
        inferred = infer(skeleton(self.proto)).graph
        found = {item.name: item.data_type for item in inferred.initializer}
        for item in (*inferred.input, *inferred.value_info, *inferred.output):
            if item.type.WhichOneof("value") == "tensor_type":
                found[item.name] = item.type.tensor_type.elem_type
        return found

    def type(self, value: str) -> int:
        """Element type of a value; float32 where it is not known."""
        return self._types.get(value) or TensorProto.FLOAT

    @cached_property
    def _folded(self) -> dict[str, NDArray[Any]]:
        bare = skeleton(self.proto)
        while fold_shapes(bare, self._found):
            pass
        return {item.name: numpy_helper.to_array(item) for item in bare.graph.initializer}

    def array(self, value: str) -> NDArray[Any] | None:
        """The value of a constant, or of arithmetic on shapes; None where it is neither."""
        tensor = self.topology.tensors.get(value)
        if tensor is not None:
            return numpy_helper.to_array(tensor)
        return self._folded.get(value)

    def whole(self, value: str) -> list[int] | None:
        """The numbers of a small constant of whole numbers."""
        found = self.array(value)
        return None if found is None else [int(number) for number in np.ravel(found)]
