"""Resize and Upsample, as ONNX defines them. onnx2torch computes something near them and warns.

Every output cell of an axis is a weighted sum of its input cells: 1 for nearest, 2 for linear, 4 for cubic.
Where torch's own interpolation is the same, it is used, as it is faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted, dims_of, given, known_constant

__all__ = ["Resize", "ResizeAsComputed", "Sampling"]

_COORDINATES = (
    "align_corners",
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
)
_MODES = ("nearest", "linear", "cubic")
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Sampling:
    """How output cells of an axis relate to input cells; attributes as of the ONNX op."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool

    def positions(self, length: int, out: int, scale: float) -> Tensor:
        """Input coordinate of every output cell (out,), float64; a cell's own coordinate is its index."""
        cells = torch.arange(out, dtype=torch.float64)
        if self.coordinates == "asymmetric":
            return cells / scale
        if self.coordinates == "align_corners":
            return cells * ((length - 1) / (out - 1) if out > 1 else 0.0)
        if self.coordinates == "tf_half_pixel_for_nn":
            return (cells + 0.5) / scale
        if self.coordinates == "pytorch_half_pixel" and out == 1:
            return torch.zeros(1, dtype=torch.float64)
        found = (cells + 0.5) / scale - 0.5
        if self.coordinates == "half_pixel_symmetric":
            found = found + length / 2 * (1 - out / (scale * length))
        return found

    def taps(self, length: int, out: int, scale: float) -> tuple[Tensor, Tensor]:
        """Indices (out, k) of input cells, clipped to the axis, and their weights (out, k), float64."""
        x = self.positions(length, out, scale)
        if self.mode == "nearest":
            index = _rounded(x, self.nearest)[:, None]
            return index.clamp(0, length - 1), torch.ones_like(x)[:, None]
        base = x.floor()
        t = (x - base)[:, None]
        if self.mode == "linear":
            offsets, weights = torch.tensor([0, 1]), torch.cat([1 - t, t], 1)
        else:
            offsets, weights = torch.tensor([-1, 0, 1, 2]), _cubic(t, self.cubic_a)
        index = base.long()[:, None] + offsets
        if self.exclude_outside:
            weights = weights * ((index >= 0) & (index < length))
            weights = weights / weights.sum(1, keepdim=True)
        return index.clamp(0, length - 1), weights


def _rounded(x: Tensor, how: str) -> Tensor:
    if how == "floor":
        return x.floor().long()
    if how == "ceil":
        return x.ceil().long()
    return ((x - 0.5).ceil() if how == "round_prefer_floor" else (x + 0.5).floor()).long()


def _cubic(t: Tensor, a: float) -> Tensor:
    """Weights (out, 4) of the cells -1, 0, 1, 2 for points t in [0, 1] between cells 0 and 1 (Keys 1981)."""
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (t, 1 - t)]
    far = [((a * d - 5 * a) * d + 8 * a) * d - 4 * a for d in (1 + t, 2 - t)]
    return torch.cat([far[0], near[0], near[1], far[1]], 1)


class Resize(nn.Module):
    """x -> x resized along its axes.

    Attributes:
        sampling: the weights.
        scales: out / in, per axis of x; or None, and
        sizes: out, per axis of x, None for axes that stay.
    """

    def __init__(
        self, sampling: Sampling, scales: tuple[float, ...] | None, sizes: tuple[int | None, ...] | None
    ) -> None:
        super().__init__()
        self.sampling, self.scales, self.sizes = sampling, scales, sizes

    def forward(self, x: Tensor) -> Tensor:
        """Resize."""
        return _resized(x, self.sampling, self.scales, self.sizes)


class ResizeAsComputed(nn.Module):
    """x, roi, scales, sizes -> x resized; scales or sizes are computed at run time."""

    def __init__(self, sampling: Sampling, axes: tuple[int, ...] | None) -> None:
        super().__init__()
        self.sampling, self.axes = sampling, axes

    def forward(
        self, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        """Resize."""
        del roi
        axes = range(x.dim()) if self.axes is None else [axis % x.dim() for axis in self.axes]
        if sizes is not None and sizes.numel():
            found = dict(zip(axes, sizes.tolist(), strict=True))
            # axis 0 is the batch, which is as large as x's, whatever size the exporter saw
            wanted = tuple(found.get(axis) if axis else None for axis in range(x.dim()))
            return _resized(x, self.sampling, None, wanted)
        factors = dict(zip(axes, [] if scales is None else scales.tolist(), strict=True))
        return _resized(x, self.sampling, tuple(factors.get(axis, 1.0) for axis in range(x.dim())), None)


def _resized(
    x: Tensor, sampling: Sampling, scales: tuple[float, ...] | None, sizes: tuple[int | None, ...] | None
) -> Tensor:
    shape = tuple(x.shape)
    if sizes is not None:
        out = tuple(n if size is None else size for n, size in zip(shape, sizes, strict=True))
        factors = tuple(o / n for o, n in zip(out, shape, strict=True))
    else:
        factors = scales or (1.0,) * x.dim()
        out = tuple(math.floor(n * f) for n, f in zip(shape, factors, strict=True))
    if out[:2] == shape[:2] and 3 <= x.dim() <= 5 and factors[:2] == (1, 1):
        exact = all(o == n * f for o, n, f in zip(out, shape, factors, strict=True))
        if exact and sampling.mode == "linear" and _as_torch(sampling, out[2:]):
            corners = sampling.coordinates == "align_corners"
            return F.interpolate(x, out[2:], mode=_LINEAR[x.dim() - 2], align_corners=corners)
        if exact and sampling.mode == "nearest" and _repeats(sampling, shape[2:], out[2:], factors[2:]):
            return F.interpolate(x, out[2:], mode="nearest")
    for axis, (n, o, f) in enumerate(zip(shape, out, factors, strict=True)):
        if o != n or f != 1:
            x = _along(x, axis, *sampling.taps(n, o, f))
    return x


def _as_torch(sampling: Sampling, out: tuple[int, ...]) -> bool:
    """Whether torch's linear interpolation has the same coordinates."""
    half = sampling.coordinates == "half_pixel" or (sampling.coordinates == "pytorch_half_pixel" and min(out) > 1)
    return not sampling.exclude_outside and (half or sampling.coordinates == "align_corners")


def _repeats(sampling: Sampling, shape: tuple[int, ...], out: tuple[int, ...], factors: tuple[float, ...]) -> bool:
    """Whether nearest means what torch's nearest does: input cell floor(output cell in / out)."""
    for n, o, f in zip(shape, out, factors, strict=True):
        index, _ = sampling.taps(n, o, f)
        if not torch.equal(index[:, 0], torch.arange(o) * n // o):
            return False
    return True


def _along(x: Tensor, axis: int, index: Tensor, weights: Tensor) -> Tensor:
    """Sum over k of weights[:, k] x[index[:, k]] along one axis."""
    index, weights = index.to(x.device), weights.to(x.device, x.dtype)
    if index.shape[1] == 1:
        return x.index_select(axis, index[:, 0])
    shape = [1] * x.dim()
    shape[axis] = -1
    parts = [x.index_select(axis, index[:, k]) * weights[:, k].reshape(shape) for k in range(index.shape[1])]
    return torch.stack(parts).sum(0)


def _sampling(node: OnnxNode, coordinates: str, nearest: str) -> Sampling:
    given_ = node.attributes
    mode = given_.get("mode", "nearest")
    sampling = Sampling(
        "linear" if mode == "bilinear" else mode,
        given_.get("coordinate_transformation_mode", coordinates),
        given_.get("nearest_mode", nearest),
        given_.get("cubic_coeff_a", -0.75),
        bool(given_.get("exclude_outside", 0)),
    )
    if sampling.mode not in _MODES:
        raise NotImplementedError(f"mode must be one of {', '.join(_MODES)}, but is '{mode}'")
    if sampling.coordinates not in _COORDINATES:
        raise NotImplementedError(f"coordinate_transformation_mode '{sampling.coordinates}'")
    if given_.get("antialias", 0):
        raise NotImplementedError("antialias=1")
    if given_.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotImplementedError(f"keep_aspect_ratio_policy '{given_['keep_aspect_ratio_policy']}'")
    return sampling


@register("Resize", 11, 13, 18, 19)
def _resize(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    sampling = _sampling(node, "half_pixel", "round_prefer_floor")
    axes = node.attributes.get("axes")
    chosen = None if axes is None else tuple(axes)
    dims = dims_of(node, graph)
    if dims is None or not (known_constant(node, graph, 2) and known_constant(node, graph, 3)):
        return converted(ResizeAsComputed(sampling, chosen), node)
    where = range(len(dims)) if chosen is None else [axis % len(dims) for axis in chosen]
    sizes = constant(node, graph, 3) if given(node, 3) else None
    if sizes is None or not sizes.numel():
        scales = constant(node, graph, 2)
        factors = dict(zip(where, [] if scales is None else scales.tolist(), strict=True))
        made = Resize(sampling, tuple(factors.get(axis, 1.0) for axis in range(len(dims))), None)
        return converted(made, node, 1)
    wanted = dict(zip(where, sizes.tolist(), strict=True))
    return converted(_of_sizes(sampling, dims, wanted), node, 1)


def _of_sizes(sampling: Sampling, dims: tuple[int | None, ...], wanted: dict[int, int]) -> Resize:
    """Sizes that are whole multiples of the input's hold, as scales, at other input sizes too."""
    sizes = tuple(None if wanted.get(axis, n) == n else wanted[axis] for axis, n in enumerate(dims))
    factors = [1.0 if s is None else s / n if n and s % n == 0 else None for s, n in zip(sizes, dims, strict=True)]
    whole = tuple(f for f in factors if f is not None)
    return Resize(sampling, whole, None) if len(whole) == len(dims) else Resize(sampling, None, sizes)


@register("Resize", 10)
@register("Upsample", 7, 9)
def _upsample(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    sampling = _sampling(node, "asymmetric", "floor")
    scales = node.attributes.get("scales")
    if scales is None:
        tensor = constant(node, graph, 1)
        scales = [] if tensor is None else tensor.tolist()
    return converted(Resize(sampling, tuple(scales), None), node, 1)
