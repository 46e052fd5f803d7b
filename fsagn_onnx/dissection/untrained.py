"""The other null hypothesis: a filter follows a part no more closely than filters of the same network untrained.

Random convolutions answer to edges, contrast and colours too, and so do lie on some parts more often than on others:
a permutation test alone names parts for many of them. Here the network's weights are drawn anew as before any
training (Adebayo et al. 2018 ask the same of saliency maps), and a filter must beat the filters of these networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ..model import Model, cut
from ..runtime.feature_maps import FeatureMaps
from ..runtime.masks import to_grid
from .sample import ImageSample
from .scores import ACTIVE_SHARE, STRONG, Floats

Floats32 = NDArray[np.float32]

WANTED: Final = 384
"""Untrained filters that make up the null distribution, about."""
MAX_NETWORKS: Final = 48

_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul"})


def reinitialised(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto | None:
    """A copy with the weights of an untrained network.

    Weights of convolutions and matrix products: normal with variance 2 / fan-in (He et al. 2015); biases 0; batch norms
    the identity. None where the graph keeps its weights in another form (a quantised model).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    rng = np.random.default_rng(seed)
    drawn = 0
    for node in copy.graph.node:
        if node.op_type in _WEIGHTED:
            weight = tensors.get(node.input[1])
            if weight is None:
                continue
            shape = tuple(weight.dims)
            scale = np.sqrt(2 / max(_fan_in(node, shape), 1))
            _replace(weight, rng.standard_normal(shape) * scale)
            drawn += node.op_type != "Gemm" or len(shape) == 4
            if len(node.input) > 2 and node.input[2] in tensors:
                _replace(tensors[node.input[2]], np.zeros(tuple(tensors[node.input[2]].dims)))
        elif node.op_type == "BatchNormalization":
            for name, value in zip(node.input[1:5], (1.0, 0.0, 0.0, 1.0), strict=True):
                if name in tensors:
                    _replace(tensors[name], np.full(tuple(tensors[name].dims), value))
    return copy if drawn else None


def _fan_in(node: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    if node.op_type == "MatMul":
        return shape[-2] if len(shape) > 1 else shape[0]
    if node.op_type == "Gemm":
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        return shape[1] if transposed else shape[0]
    return int(np.prod(shape[1:], dtype=np.int64))


def _replace(tensor: onnx.TensorProto, values: NDArray[np.floating]) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), tensor.name))


def highest(saliency: NDArray[np.float32], area: float) -> NDArray[np.bool_]:
    """The masks that `mask_bits` cuts from `area_rank`, without ranking every cell: (K, h, w) -> (K, h w)."""
    flat = saliency.reshape(len(saliency), -1)
    kept = max(1, round(area * flat.shape[1]))
    least = np.partition(flat, -kept, axis=1)[:, -kept, None]
    above, level = flat > least, flat == least
    room = kept - np.count_nonzero(above, axis=1)
    return np.asarray(above | (level & (np.cumsum(level, axis=1) <= room[:, None])))


class _Follower:
    """Mean IoU of filters' feature-map masks with the parts of a sample, over the images where each is active."""

    def __init__(self, grid: tuple[int, int], area: float, cells: NDArray[np.float32]) -> None:
        self._grid, self._area, self._cells = grid, area, cells  # cells (n, P, h w)
        self._operators: tuple[Floats32, Floats32] | None = None

    def measure(self, maps: Iterable[NDArray[np.float32]]) -> Floats:
        """(K, P) of feature maps (K, fh, fw), one per image of the sample."""
        peaks, ious = [], []
        for feature_map, cells in zip(maps, self._cells, strict=True):
            peaks.append(feature_map.reshape(len(feature_map), -1).max(axis=1))
            down, across = self._to_grid(feature_map.shape[1:])
            coarse = np.asarray(down @ feature_map @ across.T, dtype=np.float32)
            masks = highest(coarse, self._area).astype(np.float32)
            inter = masks @ cells.T
            union = masks.sum(axis=1)[:, None] + cells.sum(axis=1)[None] - inter
            ious.append(inter / np.maximum(union, 1e-9))
        strength, iou = np.stack(peaks), np.stack(ious)  # (n, K), (n, K, P)
        strong = np.quantile(strength, STRONG, axis=0)
        active = (strength >= ACTIVE_SHARE * strong) & (strong > 0)
        there = np.asarray(self._cells.any(axis=2))
        weight = active[:, :, None] * there[:, None]
        total = weight.sum(axis=0)
        return np.asarray(np.where(total > 0, (iou * weight).sum(axis=0) / np.maximum(total, 1), np.nan))

    def _to_grid(self, shape: tuple[int, ...]) -> tuple[Floats32, Floats32]:
        """`to_grid` as a matrix per axis, (h, fh) and (w, fw): it is linear, and works on the axes one by one."""
        if self._operators is None:
            rows, columns = shape
            stripes = np.broadcast_to(np.eye(rows, dtype=np.float32)[:, :, None], (rows, rows, columns))
            bars = np.broadcast_to(np.eye(columns, dtype=np.float32)[:, None], (columns, rows, columns))
            self._operators = to_grid(stripes, self._grid)[:, :, 0].T, to_grid(bars, self._grid)[:, 0].T
        return self._operators


@dataclass(frozen=True, eq=False)
class UntrainedTest:
    """Result for K filters and P parts.

    Attributes:
        observed: (K, P) mean IoU of the filters' feature-map masks.
        typical: (P,) mean over untrained filters.
        p: (K, P) share of untrained filters whose largest standardised IoU over all parts reaches the part's own.
        chosen_p: (K, P) the same for the part with the highest IoU of each untrained filter, chosen as a filter's part
            is: for that part alone.
        filters: untrained filters compared with; 0 where the network could not be drawn anew.
    """

    observed: Floats
    typical: Floats
    p: Floats
    chosen_p: Floats
    filters: int


def untrained_test(
    model: Model,
    layer: str,
    filters: tuple[int, ...],
    sample: ImageSample,
    maps: Sequence[NDArray[np.float32]],
    cells: NDArray[np.float32],
    grid: tuple[int, int],
    area: float,
    seed: int,
    **session: Any,
) -> UntrainedTest | None:
    """Compare filters with those of untrained networks on the same images.

    Both sides use the masks of the upsampled feature map (a generator belongs to one network).

    Args:
        model: the trained network.
        layer: the explained layer.
        filters: ids of the K filters.
        sample: annotated images.
        maps: the trained network's feature maps of them, all channels.
        cells: (n, P, h w), their parts.
        grid: (h, w) of the masks.
        area: of the masks.
        seed: of the weights.
        **session: ``providers`` and ``threads``.

    Returns:
        None where the graph has no weights that can be drawn anew.
    """
    piece = cut(model.proto, [layer])
    follower = _Follower(grid, area, cells)
    chosen = list(filters)
    observed = follower.measure(feature_map[chosen] for feature_map in maps)
    null: list[Floats] = []
    living = 0
    for number in range(MAX_NETWORKS):
        drawn = reinitialised(piece, seed + number)
        if drawn is None:
            return None
        with FeatureMaps(drawn, model.input_spec, layer, source=f"{model.path}, untrained", **session) as untrained:
            found = follower.measure(sample.feature_maps(untrained))
        null.append(found[np.isfinite(found).any(axis=1)])
        living += len(null[-1])
        if living >= WANTED:
            break
    distribution = np.concatenate(null)
    if not len(distribution):
        ones = np.ones_like(observed)
        return UntrainedTest(observed, np.full(cells.shape[1], np.nan), ones, ones, 0)
    known = np.isfinite(distribution)
    count, filled = np.maximum(known.sum(axis=0), 1), np.where(known, distribution, 0)
    typical = np.where(known.any(axis=0), filled.sum(axis=0) / count, np.nan)
    spread = np.sqrt(np.where(known, (filled - np.nan_to_num(typical)) ** 2, 0).sum(axis=0) / count)
    deviation = np.maximum(spread, 1e-9)
    standard = np.where(known, (filled - np.nan_to_num(typical)) / deviation, -np.inf)
    favourite = np.take_along_axis(standard, np.where(known, distribution, -1).argmax(axis=1)[:, None], axis=1)[:, 0]
    z = (observed - typical) / deviation
    p, chosen_p = (share_reaching(null, z) for null in (standard.max(axis=1), favourite))
    return UntrainedTest(observed, typical, p, chosen_p, len(distribution))


def share_reaching(null: Floats, z: Floats) -> Floats:
    """(1 + how many of the null reach z) / (1 + their number); 1 where z is not known."""
    reaching = len(null) - np.searchsorted(np.sort(null), z)
    return np.where(np.isfinite(z), (1 + reaching) / (len(null) + 1), 1.0)
