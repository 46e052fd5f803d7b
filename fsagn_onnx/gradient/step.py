"""One node on the way back: what a rule may ask for, and the few operators that rules share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ..errors import GradientError
from .facts import GraphFacts, Shape
from .writer import NodeWriter

__all__ = ["BackwardStep", "Cotangent", "Forward"]

T = TypeVar("T")


@dataclass(frozen=True)
class Cotangent:
    """A gradient on its way back.

    Attributes:
        value: name of the value that holds it.
        narrow: axes along which it is kept once, as it is the same everywhere.
        scale: name of a factor per channel, (C, 1, ...) without the batch, still to be multiplied; "" for none.
    """

    value: str
    narrow: frozenset[int] = frozenset()
    scale: str = ""


@dataclass(frozen=True, eq=False)
class Forward:
    """The values of the graph itself, as the rows of the cotangents need them.

    Attributes:
        facts: of the graph.
        write: appends to it.
        owners: name of the image of each row, or None where rows are images.
        anchor: name of a value whose first axis counts the rows.
    """

    facts: GraphFacts
    write: NodeWriter
    owners: str | None
    anchor: str

    def value(self, name: str) -> str:
        """A value for every row: gathered at its image where there are owners.

        Raises:
            GradientError: two of its axes grow with the batch.
        """
        if self.owners is None or not self.facts.knows(name):
            return name
        shape = self.facts.shape(name)
        held = [axis for axis, size in enumerate(shape) if size < 0]
        if not held:
            return name
        if len(held) > 1:
            raise GradientError(f"the value '{name}' has two axes that grow with the batch: ask for one class only")
        axis, times = held[0], -shape[held[0]]
        if times == 1:
            return self.write.op("Gather", name, self.owners, axis=axis)
        apart = [*shape[:axis], -1, times, *shape[axis + 1 :]]
        split = self.write.op("Reshape", name, self.write.constant(apart))
        taken = self.write.op("Gather", split, self.owners, axis=axis)
        return self.reshaped(taken, shape)

    def rows(self, times: int = 1) -> str:
        """How many rows there are, times a number, as a value (1,)."""
        shape = self.write.op("Shape", self.anchor)
        count = self.write.op("Slice", shape, *(self.write.constant([number]) for number in (0, 1, 0)))
        return count if times == 1 else self.write.op("Mul", count, self.write.constant([times]))

    def sizes(self, shape: Shape) -> str:
        """A shape as a value, rows for the batch."""
        if all(size >= 0 for size in shape):
            return self.write.constant(list(shape))
        parts = [self.rows(-size) if size < 0 else self.write.constant([size]) for size in shape]
        return self.write.op("Concat", *parts, axis=0)

    def reshaped(self, value: str, shape: Shape) -> str:
        """A value in another shape.

        Raises:
            GradientError: the shape is empty.
        """
        if sum(size < 0 for size in shape) == 1 and 0 not in shape:
            return self.write.op("Reshape", value, self.write.constant([-1 if size < 0 else size for size in shape]))
        if 0 in shape:
            raise GradientError(f"the gradient '{value}' is empty")
        return self.write.op("Reshape", value, self.sizes(shape))

    def expanded(self, value: str, shape: Shape, narrow: Sequence[int] = ()) -> str:
        """A value spread along axes on which it has the length 1; all others keep theirs."""
        if not narrow:
            return self.write.op("Expand", value, self.sizes(shape))
        target = tuple(size if axis in narrow else 1 for axis, size in enumerate(shape))
        return self.write.op("Expand", value, self.sizes(target))


class BackwardStep:
    """One node, the cotangents of its outputs, and which of its inputs' gradients are wanted.

    Attributes:
        node: the node.
        write: appends nodes.
        cotangents: of the outputs; None for an output that nothing asks about.
        wanted: numbers of the inputs whose gradients are wanted.
    """

    def __init__(
        self, node: onnx.NodeProto, forward: Forward, cotangents: Sequence[Cotangent | None], wanted: frozenset[int]
    ) -> None:
        self.node, self.forward, self.write = node, forward, forward.write
        self.facts, self.opset = forward.facts, forward.write.opset
        self.cotangents, self.wanted = tuple(cotangents), wanted
        self._attributes = {item.name: item for item in node.attribute}

    def refuse(self, why: str) -> GradientError:
        """An error that names the node."""
        node = self.node
        return GradientError(f"no gradient of {node.op_type} '{node.name or node.output[0]}': {why}")

    def attribute(self, name: str, default: T) -> T:
        """An attribute of the node, texts as str."""
        if name not in self._attributes:
            return default
        found: Any = helper.get_attribute_value(self._attributes[name])
        if isinstance(found, bytes):
            found = found.decode()
        return list(found) if isinstance(default, list) else found  # type: ignore[return-value]

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    @property
    def d(self) -> Cotangent:
        """The cotangent of the first output.

        Raises:
            GradientError: only another output is asked about.
        """
        found = self.cotangents[0]
        if found is None:
            raise self.refuse("only its further outputs lead to the decision")
        return found

    def x(self, index: int = 0) -> str:
        """An input for every row."""
        return self.forward.value(self.node.input[index])

    def y(self, index: int = 0) -> str:
        """An output for every row."""
        return self.forward.value(self.node.output[index])

    def shape(self, index: int = 0) -> Shape:
        """Shape of an input."""
        return self.facts.shape(self.node.input[index])

    def shape_out(self, index: int = 0) -> Shape:
        """Shape of an output."""
        return self.facts.shape(self.node.output[index])

    def array(self, index: int) -> NDArray[Any] | None:
        """A constant input, or None."""
        return self.facts.array(self.node.input[index]) if self.has(index) else None

    def whole(self, index: int, name: str = "", default: list[int] | None = None) -> list[int] | None:
        """Whole numbers from an attribute or, in later opsets, a constant input.

        Raises:
            GradientError: the input hangs on the image.
        """
        if name and name in self._attributes:
            return self.attribute(name, [0])
        if not self.has(index):
            return default
        found = self.facts.whole(self.node.input[index])
        if found is None:
            raise self.refuse(f"its input '{self.node.input[index]}' is no constant")
        return found

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(self.facts.type(self.node.output[0])))
        return kind if kind.kind == "f" else np.dtype(np.float32)

    def number(self, value: float) -> str:
        """A scalar constant."""
        return self.write.constant(np.asarray(value, dtype=self.dtype))

    def numbers(self, values: NDArray[Any]) -> str:
        """A constant of the node's own type."""
        return self.write.constant(np.asarray(values).astype(self.dtype))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node."""
        return self.write.op(kind, *inputs, **attributes)

    def mul(self, first: str, second: str) -> str:
        """A product."""
        return self.write.op("Mul", first, second)

    def as_number(self, truth: str) -> str:
        """1 where a truth value holds, else 0."""
        return self.write.op("Cast", truth, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    def plain(self, given: Cotangent) -> Cotangent:
        """Without a factor that is still to be multiplied."""
        return Cotangent(self.mul(given.value, given.scale), given.narrow) if given.scale else given

    def full(self, given: Cotangent, shape: Shape) -> str:
        """All its numbers, written out."""
        given = self.plain(given)
        return self.forward.expanded(given.value, shape, sorted(given.narrow)) if given.narrow else given.value

    def unbroadcast(self, given: Cotangent, shape: Shape, target: Shape) -> Cotangent:
        """The cotangent of an input of shape `target` that was spread to `shape`: summed over what was spread.

        Raises:
            GradientError: it was spread over the images.
        """
        if shape == target:
            return given
        lead = len(shape) - len(target)
        spread = [axis for axis, size in enumerate(shape) if axis < lead or (target[axis - lead] == 1 and size != 1)]
        if any(shape[axis] < 0 for axis in spread):
            raise self.refuse("an input that all images share hangs on the layer")
        once = [axis for axis in spread if axis in given.narrow]
        value = self.write.sum(given.value, [axis for axis in spread if axis not in given.narrow])
        if once:
            value = self.mul(value, self.number(math.prod(shape[axis] for axis in once)))
        kept = frozenset(axis - lead for axis in given.narrow if axis not in spread)
        if lead:
            value = self.op("Squeeze", value, self.write.constant(list(range(lead))))
        return Cotangent(value, kept)

    def along(self, value: str, shape: Shape, matrices: Mapping[int, NDArray[Any]]) -> str:
        """A linear map along some axes.

        Args:
            value: of the given shape.
            shape: its sizes.
            matrices: axis -> (size, new size): the new numbers are row vectors times this.

        Returns:
            The value whose axes have the new sizes.
        """
        sizes = list(shape)
        for axis in sorted(matrices, reverse=True):
            matrix = matrices[axis]
            if axis == len(sizes) - 1:
                value = self.op("MatMul", value, self.numbers(matrix))
            else:
                rest = sizes[axis + 1 :]
                if len(rest) > 1:
                    value = self.forward.reshaped(value, (*sizes[: axis + 1], math.prod(rest)))
                value = self.op("MatMul", self.numbers(matrix.T), value)
                if len(rest) > 1:
                    value = self.forward.reshaped(value, (*sizes[:axis], matrix.shape[1], *rest))
            sizes[axis] = matrix.shape[1]
        return value
