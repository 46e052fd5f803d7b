"""Reshape, Expand, Squeeze, Unsqueeze. onnx2torch lacks `allowzero` and several negative axes at once.

A constant Reshape target holds the batch size, and often the image size, that the exporter happened to see.
Where it repeats an axis of the input at the same place, from the left or from the right, it means that axis.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import converted, dims_of, integers, known_constant

__all__ = ["Expand", "Reshape", "ReshapeAsComputed", "Squeeze", "Unsqueeze", "general_target"]

Target = tuple[tuple[str, int], ...]
"""Per output axis: ("size", n), ("copy", input axis) or ("rest", -1)."""


def general_target(target: Sequence[int], dims: Sequence[int | None] | None, *, allowzero: bool) -> Target:
    """A constant Reshape target in a form that also holds at other batch and image sizes.

    At the input shape `dims` it gives exactly `target`.

    Args:
        target: the constant.
        dims: input shape at the file's own size; None for unknown sizes.
        allowzero: whether 0 means the size 0, and not "as the input".
    """
    made = [
        ("rest", -1) if size == -1 else ("copy", axis) if size == 0 and not allowzero else ("size", size)
        for axis, size in enumerate(target)
    ]
    known = list(dims or ())
    if 0 in known or (0 in target and allowzero):
        return tuple(made)
    left, most = 0, min(len(made), len(known))
    while left < most and made[left] in (("size", known[left]), ("copy", left)):
        made[left] = ("copy", left)
        left += 1
    right = 1
    # from the right, the batch axis is none to repeat: (N, 64) to (-1, 1, 64) has a new axis of size 1
    while right <= min(most - left, len(known) - 1) and made[-right] == ("size", known[-right]):
        made[-right] = ("copy", -right)
        right += 1
    sizes = [axis for axis, (kind, _) in enumerate(made) if kind == "size"]
    if known and sizes and ("rest", -1) not in made and (sizes[0] == 0 or len(sizes) == 1):
        made[sizes[0]] = ("rest", -1)
    return tuple(made)


class Reshape(nn.Module):
    """x -> x with the same elements in the shape `target`."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target

    def forward(self, x: Tensor) -> Tensor:
        """Reshape."""
        return x.reshape([x.shape[n] if kind == "copy" else n for kind, n in self.target])


class ReshapeAsComputed(nn.Module):
    """x, shape (int64) -> x in that shape."""

    def __init__(self, *, allowzero: bool) -> None:
        super().__init__()
        self.allowzero = allowzero

    def forward(self, x: Tensor, shape: Tensor) -> Tensor:
        """Reshape."""
        sizes: list[int] = shape.tolist()
        if not self.allowzero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)


@register("Reshape", 5, 13, 14, 19, 21, 23, 24, 25)
def _reshape(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    allowzero = bool(node.attributes.get("allowzero", 0))
    if not known_constant(node, graph, 1):
        return converted(ReshapeAsComputed(allowzero=allowzero), node)
    target = integers(node, graph, "shape", 1) or ()
    return converted(Reshape(general_target(target, dims_of(node, graph), allowzero=allowzero)), node, 1)


def _together(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of two shapes broadcast together."""
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    return tuple(n if m == 1 else m for n, m in pairs)


class Expand(nn.Module):
    """x broadcast together with `shape`, a constant or the second input."""

    def __init__(self, shape: tuple[int, ...] | None) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor, shape: Tensor | None = None) -> Tensor:
        """Expand."""
        wanted = self.shape if shape is None else tuple(shape.tolist())
        return x.expand(_together(tuple(x.shape), wanted or ()))


@register("Expand", 8, 13)
def _expand(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    if not known_constant(node, graph, 1):
        return converted(Expand(None), node)
    return converted(Expand(integers(node, graph, "shape", 1)), node, 1)


class Squeeze(nn.Module):
    """x without its axes `axes`; without all axes of size 1 where None."""

    def __init__(self, axes: tuple[int, ...] | None) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Squeeze."""
        return x.squeeze() if self.axes is None else x.squeeze(self.axes)


class Unsqueeze(nn.Module):
    """x with new axes of size 1 at `axes` of the output."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Unsqueeze."""
        rank = x.dim() + len(self.axes)
        for axis in sorted(axis % rank for axis in self.axes):
            x = x.unsqueeze(axis)
        return x


@register("Squeeze", 1, 11, 13, 21, 23, 24, 25)
def _squeeze(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    return converted(Squeeze(integers(node, graph, "axes", 1)), node, 1)


@register("Unsqueeze", 1, 11, 13, 21, 23, 24, 25)
def _unsqueeze(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    return converted(Unsqueeze(integers(node, graph, "axes", 1) or ()), node, 1)
