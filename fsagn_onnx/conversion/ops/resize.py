"""Resize and Upsample, as ONNX defines them. onnx2torch computes something near them and warns.

Every output cell of an axis is a weighted sum of its input cells: 1 for nearest, 2 for linear, 4 for cubic.
Where torch's own interpolation is the same, it is used, as it is faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult
from torch import Tensor, nn

from ..registry import register
from .nodes import constant, converted, dims_of, given, known_constant
from .quantise import Truncating, holds_integers

__all__ = ["Resize", "ResizeAsComputed", "Sampling", "Target", "UpsampleAsComputed"]

_COORDINATES = (
    "align_corners",
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)
_POLICIES = ("stretch", "not_larger", "not_smaller")
_MODES = ("nearest", "linear", "cubic")
_OLD = "floor, but ceil where it shrinks"
"""Rounding of onnxruntime's Resize of opset 10, along each axis."""
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Sampling:
    """How output cells of an axis relate to input cells; attributes as of the ONNX op.

    Attributes:
        roi: (start, end) of each axis of the input as shares of it, for tf_crop_and_resize; empty otherwise.
        extrapolation: what is read outside of the input, then.
    """

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool = False
    roi: tuple[tuple[float, float], ...] = ()
    extrapolation: float = 0.0

    def positions(self, axis: int, length: int, out: int, scale: float) -> Tensor:
        """Input coordinate of every output cell (out,), a cell's own coordinate being its index.

        float32 for nearest, as in onnxruntime: the next float decides which cell is taken. Else float64.
        """
        cells = torch.arange(out, dtype=torch.float32 if self.mode == "nearest" else torch.float64)
        if self.coordinates == "tf_crop_and_resize":
            start, end = (share * (length - 1) for share in self.roi[axis])
            return start + cells * ((end - start) / (out - 1)) if out > 1 else cells + (start + end) / 2
        if self.coordinates == "asymmetric":
            return cells / scale
        if self.coordinates == "align_corners":
            return cells * ((length - 1) / (out - 1) if out > 1 else 0.0)
        if self.coordinates == "tf_half_pixel_for_nn":
            return (cells + 0.5) / scale
        if self.coordinates == "pytorch_half_pixel" and out == 1:
            return torch.zeros_like(cells)
        found = (cells + 0.5) / scale - 0.5
        if self.coordinates == "half_pixel_symmetric":
            found = found + length / 2 * (1 - out / (scale * length))
        return found

    def outside(self, axis: int, length: int, out: int, scale: float) -> Tensor | None:
        """Which output cells (out,) are extrapolated; None: none."""
        if not self.roi:
            return None
        x = self.positions(axis, length, out, scale)
        return (x < 0) | (x > length - 1)

    def taps(self, axis: int, length: int, out: int, scale: float) -> tuple[Tensor, Tensor]:
        """Indices (out, k) of input cells, clipped to the axis, and their weights (out, k), float64."""
        x = self.positions(axis, length, out, scale)
        if self.mode == "nearest":
            index = _rounded(x, _direction(scale) if self.nearest == _OLD else self.nearest)[:, None]
            return index.clamp(0, length - 1), torch.ones_like(x, dtype=torch.float64)[:, None]
        stretch = max(1 / scale, 1.0) if self.antialias else 1.0
        reach = math.ceil((1 if self.mode == "linear" else 2) * stretch)
        index = x.floor().long()[:, None] + torch.arange(1 - reach, 1 + reach)  # (out, 2 reach)
        weights = self._kernel((index - x[:, None]).abs() / stretch)
        if self.exclude_outside:
            weights = weights * ((index >= 0) & (index < length))
        if self.exclude_outside or self.antialias:
            weights = weights / weights.sum(1, keepdim=True)
        return index.clamp(0, length - 1), weights

    def _kernel(self, distance: Tensor) -> Tensor:
        """The weight of a cell at a distance: a triangle, or the cubic of Keys 1981."""
        if self.mode == "linear":
            return (1 - distance).clamp(min=0)
        a, d = self.cubic_a, distance
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def _direction(scale: float) -> str:
    return "ceil" if scale < 1 else "floor"


def _rounded(x: Tensor, how: str) -> Tensor:
    if how == "floor":
        return x.floor().long()
    if how == "ceil":
        return x.ceil().long()
    return ((x - 0.5).ceil() if how == "round_prefer_floor" else (x + 0.5).floor()).long()


@dataclass(frozen=True)
class Target:
    """What to resize to, per axis of x: factors, or sizes (None: as x), perhaps with the aspect ratio kept.

    Attributes:
        scales: out / in; or None, and
        sizes: out.
        policy: `keep_aspect_ratio_policy` of the sizes.
    """

    scales: tuple[float, ...] | None
    sizes: tuple[int | None, ...] | None = None
    policy: str = "stretch"

    def of(self, shape: tuple[int, ...]) -> tuple[list[int], list[float]]:
        """Output size and factor of every axis; a crop makes it no smaller (onnxruntime's reading of the standard)."""
        if self.sizes is None:
            factors = list(self.scales or (1.0,) * len(shape))
            return [math.floor(n * f) for n, f in zip(shape, factors, strict=True)], factors
        if self.policy == "stretch":
            out = [n if size is None else size for n, size in zip(shape, self.sizes, strict=True)]
            return out, [o / n for o, n in zip(out, shape, strict=True)]
        ratios = [size / n for n, size in zip(shape, self.sizes, strict=True) if size is not None]
        factor = min(ratios) if self.policy == "not_larger" else max(ratios)
        factors = [1.0 if size is None else factor for size in self.sizes]
        return [math.floor(n * f + 0.5) for n, f in zip(shape, factors, strict=True)], factors


class Resize(nn.Module):
    """x -> x resized along its axes to a target that is known."""

    def __init__(self, sampling: Sampling, target: Target) -> None:
        super().__init__()
        self.sampling, self.target = sampling, target

    def forward(self, x: Tensor) -> Tensor:
        """Resize."""
        return _resized(x, self.sampling, self.target)


class ResizeAsComputed(nn.Module):
    """x, roi, scales, sizes -> x resized; scales or sizes are computed at run time."""

    def __init__(self, sampling: Sampling, axes: tuple[int, ...] | None, policy: str) -> None:
        super().__init__()
        self.sampling, self.axes, self.policy = sampling, axes, policy

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
            return _resized(x, self.sampling, Target(None, wanted, self.policy))
        factors = dict(zip(axes, [] if scales is None else scales.tolist(), strict=True))
        return _resized(x, self.sampling, Target(tuple(factors.get(axis, 1.0) for axis in range(x.dim()))))


class UpsampleAsComputed(ResizeAsComputed):
    """x, scales -> x resized; the scales are computed at run time."""

    def forward(self, x: Tensor, scales: Tensor) -> Tensor:  # type: ignore[override]
        """Resize."""
        return super().forward(x, None, scales)


def _resized(x: Tensor, sampling: Sampling, target: Target) -> Tensor:
    shape = tuple(x.shape)
    out, factors = target.of(shape)
    if out[:2] == list(shape[:2]) and 3 <= x.dim() <= 5 and factors[:2] == [1, 1] and not sampling.roi:
        exact = all(o == n * f for o, n, f in zip(out, shape, factors, strict=True))
        if exact and sampling.mode == "linear" and _as_torch(sampling, out[2:]):
            corners = sampling.coordinates == "align_corners"
            return F.interpolate(x, out[2:], mode=_LINEAR[x.dim() - 2], align_corners=corners)
        if exact and sampling.mode == "nearest" and _repeats(sampling, shape[2:], out[2:], factors[2:]):
            return F.interpolate(x, out[2:], mode="nearest")
    beyond = torch.zeros((), dtype=torch.bool, device=x.device)
    for axis, (n, o, f) in enumerate(zip(shape, out, factors, strict=True)):
        if o != n or f != 1 or (sampling.roi and sampling.roi[axis] != (0, 1)):
            x = _along(x, axis, *sampling.taps(axis, n, o, f))
            outside = sampling.outside(axis, n, o, f)
            if outside is not None:
                beyond = beyond | outside.to(x.device).reshape([-1 if a == axis else 1 for a in range(x.dim())])
    return x.masked_fill(beyond, sampling.extrapolation) if sampling.roi else x


def _as_torch(sampling: Sampling, out: Sequence[int]) -> bool:
    """Whether torch's linear interpolation has the same coordinates."""
    half = sampling.coordinates == "half_pixel" or (sampling.coordinates == "pytorch_half_pixel" and min(out) > 1)
    return not (sampling.exclude_outside or sampling.antialias) and (half or sampling.coordinates == "align_corners")


def _repeats(sampling: Sampling, shape: Sequence[int], out: Sequence[int], factors: Sequence[float]) -> bool:
    """Whether nearest means what torch's nearest does: input cell floor(output cell in / out)."""
    for n, o, f in zip(shape, out, factors, strict=True):
        index, _ = sampling.taps(0, n, o, f)
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
        bool(given_.get("antialias", 0)),
        extrapolation=given_.get("extrapolation_value", 0.0),
    )
    if sampling.mode not in _MODES:
        raise NotImplementedError(f"mode must be one of {', '.join(_MODES)}, but is '{mode}'")
    if sampling.coordinates not in _COORDINATES:
        raise NotImplementedError(f"coordinate_transformation_mode '{sampling.coordinates}'")
    if given_.get("keep_aspect_ratio_policy", "stretch") not in _POLICIES:
        raise NotImplementedError(f"keep_aspect_ratio_policy '{given_['keep_aspect_ratio_policy']}'")
    return sampling


def _roi(node: OnnxNode, graph: OnnxGraph, where: Sequence[int], rank: int) -> tuple[tuple[float, float], ...]:
    """(start, end) per axis of x: the starts of the axes `where` come first, then their ends."""
    roi = constant(node, graph, 1)
    if roi is None or len(roi) != 2 * len(where):
        raise NotImplementedError("tf_crop_and_resize without a roi of two numbers per axis")
    numbers = roi.tolist()
    known = dict(zip(where, zip(numbers[: len(where)], numbers[len(where) :], strict=True), strict=True))
    return tuple(known.get(axis, (0.0, 1.0)) for axis in range(rank))


@register("Resize", 11, 13, 18, 19)
def _resize(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    sampling = _sampling(node, "half_pixel", "round_prefer_floor")
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    axes = node.attributes.get("axes")
    chosen = None if axes is None else tuple(axes)
    dims = dims_of(node, graph)
    crops = sampling.coordinates == "tf_crop_and_resize"
    if dims is None or not (known_constant(node, graph, 2) and known_constant(node, graph, 3)):
        if crops:
            raise NotImplementedError("tf_crop_and_resize to a size that is computed at run time")
        return converted(_typed(ResizeAsComputed(sampling, chosen, policy), node, graph), node)
    where = list(range(len(dims))) if chosen is None else [axis % len(dims) for axis in chosen]
    if crops:
        sampling = replace(sampling, roi=_roi(node, graph, where, len(dims)))
    sizes = constant(node, graph, 3) if given(node, 3) else None
    if sizes is None or not sizes.numel():
        scales = constant(node, graph, 2)
        factors = dict(zip(where, [] if scales is None else scales.tolist(), strict=True))
        target = Target(tuple(factors.get(axis, 1.0) for axis in range(len(dims))))
        return converted(_typed(Resize(sampling, target), node, graph), node, 1)
    wanted = dict(zip(where, sizes.tolist(), strict=True))
    if crops or policy != "stretch":
        target = Target(None, tuple(wanted.get(axis) for axis in range(len(dims))), policy)
    else:
        target = _of_sizes(dims, wanted)
    return converted(_typed(Resize(sampling, target), node, graph), node, 1)


def _typed(module: Resize | ResizeAsComputed, node: OnnxNode, graph: OnnxGraph) -> nn.Module:
    """Interpolated integers are cut to integers."""
    return Truncating(module) if module.sampling.mode != "nearest" and holds_integers(node, graph) else module


def _of_sizes(dims: tuple[int | None, ...], wanted: dict[int, int]) -> Target:
    """Sizes that are whole multiples of the input's hold, as scales, at other input sizes too."""
    sizes = tuple(None if wanted.get(axis, n) == n else wanted[axis] for axis, n in enumerate(dims))
    factors = [1.0 if s is None else s / n if n and s % n == 0 else None for s, n in zip(sizes, dims, strict=True)]
    whole = tuple(f for f in factors if f is not None)
    return Target(whole) if len(whole) == len(dims) else Target(None, sizes)


@register("Resize", 10)
@register("Upsample", 7, 9)
def _upsample(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    sampling = _sampling(node, "asymmetric", _OLD)
    scales = node.attributes.get("scales")
    if scales is None and not known_constant(node, graph, 1):
        return converted(_typed(UpsampleAsComputed(sampling, None, "stretch"), node, graph), node)
    if scales is None:
        tensor = constant(node, graph, 1)
        scales = [] if tensor is None else tensor.tolist()
    return converted(Resize(sampling, Target(tuple(scales))), node, 1)
