"""Padding of sliding windows (conv, pooling): ONNX's `pads` and `auto_pad` as numbers for one input size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from onnx2torch.onnx_node import OnnxNode
from torch import Tensor

__all__ = ["Windows", "pad_spatial"]

Pairs = tuple[tuple[int, int], ...]


def pad_spatial(x: Tensor, pads: Pairs, value: float = 0.0) -> Tensor:
    """Pad the last `len(pads)` axes by (begin, end) each; negative numbers crop."""
    flat = [side for pair in reversed(pads) for side in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


@dataclass(frozen=True)
class Windows:
    """Sliding windows over the spatial axes.

    Attributes:
        kernel, strides, dilations: one entry per spatial axis.
        pads: (begin, end) per spatial axis; only with `auto` NOTSET.
        auto: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
        ceil: round the number of windows up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pairs
    auto: str
    ceil: bool

    @classmethod
    def of(cls, node: OnnxNode, kernel: Sequence[int]) -> Windows:
        """The windows of a Conv or pooling node."""
        rank = len(kernel)
        given = node.attributes
        flat = given.get("pads", [0] * (2 * rank))
        auto = given.get("auto_pad", "NOTSET")
        if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise NotImplementedError(f"auto_pad must be NOTSET, VALID, SAME_UPPER or SAME_LOWER, but is '{auto}'")
        if auto != "NOTSET" or len(flat) != 2 * rank:
            flat = [0] * (2 * rank)
        return cls(
            tuple(kernel),
            tuple(given.get("strides", [1] * rank)),
            tuple(given.get("dilations", [1] * rank)),
            tuple(zip(flat[:rank], flat[rank:], strict=True)),
            auto,
            bool(given.get("ceil_mode", 0)),
        )

    @property
    def extents(self) -> tuple[int, ...]:
        """Input cells that one window spans, per axis: (kernel - 1) dilation + 1."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def same(self) -> bool:
        """Whether the padding follows from the input size."""
        return self.auto.startswith("SAME")

    def symmetric(self) -> tuple[int, ...] | None:
        """The padding per axis where it is the same on both sides at every input size, else None."""
        if self.same or any(begin != end for begin, end in self.pads):
            return None
        return tuple(begin for begin, _ in self.pads)

    def padding(self, size: Sequence[int]) -> Pairs:
        """(begin, end) per axis at input size `size`. SAME: ceil(size / stride) windows."""
        if not self.same:
            return self.pads
        pairs = []
        for length, extent, stride in zip(size, self.extents, self.strides, strict=True):
            total = max((-(-length // stride) - 1) * stride + extent - length, 0)
            less, more = total // 2, total - total // 2
            pairs.append((less, more) if self.auto == "SAME_UPPER" else (more, less))
        return tuple(pairs)

    def counts(self, size: Sequence[int]) -> tuple[int, ...]:
        """Windows per axis. With `ceil`, one that would start in the padding at the end does not count."""
        found = []
        for length, extent, stride, (begin, end) in zip(
            size, self.extents, self.strides, self.padding(size), strict=True
        ):
            room = length + begin + end - extent
            count = (-(-room // stride) if self.ceil else room // stride) + 1
            if self.ceil and (count - 1) * stride >= length + begin:
                count -= 1
            found.append(count)
        return tuple(found)
