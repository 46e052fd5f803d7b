"""Writes the generator as ONNX nodes: static sizes are constants, so there are no Shape and Gather chains.

Written by hand rather than traced: it stays small, has any N and K, and its ties are ordered as the contract says.
`export` compares every file with the torch generator in onnxruntime before it gets its name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from .encoder import OwnEncoder, SharedEncoder
from .network import FLOOR, TIE, Generator, gaussian_kernel, kept_cells

PREFIX = "fsagn/"
OUTPUTS = ("filter_ids", "filter_peaks", "area_rank", "retention")
FILTERS = "filters"


class GraphWriter:
    """Collects nodes and initializers under one name prefix."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
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


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    if norm.running_var is None or norm.running_mean is None:
        raise AssertionError("batch norm without statistics")
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return conv.weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor


def _smoothing(edge: int, sigma: float) -> Tensor:
    """The Gaussian of `network.gaussian_kernel` along one axis as a matrix, (edge, edge); the border is replicated."""
    row = gaussian_kernel(sigma)[0, 0].sum(dim=0)
    matrix = torch.zeros(edge, edge)
    for cell in range(edge):
        for offset, weight in enumerate(row, start=-2):
            matrix[cell, min(max(cell + offset, 0), edge - 1)] += weight
    return matrix


def _shape_after(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


class GeneratorGraph:
    """The generator's nodes for one config; see `Generator` for the formulas.

    Args:
        generator: the trained network, in eval mode.
        taps: sizes ``(h, w)`` of the tapped values at the model's input size, by value name (shared encoder).
        image: name of the graph's image input.
    """

    def __init__(self, generator: Generator, taps: dict[str, tuple[int, int]], image: str) -> None:
        self.net, self.config, self.image = generator, generator.config, image
        self.tap_sizes = taps
        self.writer = GraphWriter()
        self.levels: list[tuple[str, tuple[int, int]]] = []

    def write(self) -> GraphWriter:
        """All nodes, from the taps (or the image) and ``filters`` to the four outputs."""
        feature_map, size = self._encode()
        ids, peaks = self._choose(feature_map)
        shared, coarse, coarse_size = self._trunk()
        own = self._own_map(feature_map, ids, peaks)
        hidden = self._head(own, size, coarse, coarse_size, ids)
        pooled, total = self._pool(own, size, hidden, coarse_size)
        learnt = self._learnt(pooled, shared, hidden, coarse_size)
        upsampled = self.writer.resize(own, size, self.config.grid)
        order = self._rank(self._saliency(upsampled, learnt, ids))
        kept = self._energy_share(upsampled, order)
        self._retention(pooled, total, peaks, kept)
        return self.writer

    def _encode(self) -> tuple[str, tuple[int, int]]:
        encoder = self.net.encoder
        if isinstance(encoder, SharedEncoder):
            self.levels = [(tap.value, self.tap_sizes[tap.value]) for tap in self.config.taps]
            return self.levels[0]
        return self._own_encoder(encoder)

    def _own_encoder(self, encoder: OwnEncoder) -> tuple[str, tuple[int, int]]:
        write, level, size, stride = self.writer, self.image, self.config.size, 1
        if self.config.layout == "NHWC":
            level = write.op("Transpose", level, perm=[0, 3, 1, 2])
        for block in encoder.blocks:
            for part in (0, 3, 6):
                conv, norm = block[part], block[part + 1]  # type: ignore[index]
                weight, bias = _folded(conv, norm)
                pad = [int(conv.padding[0])] * 4
                level = write.conv(level, weight, bias, pads=pad, strides=list(conv.stride), group=conv.groups)
                level = write.op("Relu", level)
            size, stride = _shape_after(size), stride * 2
            if stride >= encoder.kept[0][0]:
                self.levels.insert(0, (level, size))
        predicted = write.op("Relu", write.layer(level, encoder.to_feature_map))
        return write.op("Mul", predicted, write.constant(encoder.get_buffer("unit"))), size

    def _choose(self, feature_map: str) -> tuple[str, str]:
        """-1 becomes the strongest not asked for: highest peak, then highest mean, then lowest id."""
        write, count = self.writer, self.config.filters
        spatial, never = write.constant([2, 3]), write.constant(np.float64(-np.inf))
        peaks, double = write.op("ReduceMax", feature_map, spatial, keepdims=0), onnx.TensorProto.DOUBLE
        means = write.op("Squeeze", write.op("GlobalAveragePool", feature_map), spatial)
        ties = write.op("Mul", means, write.constant(TIE))  # exact: a power of 2
        key = write.op("Add", write.op("Cast", peaks, to=double), write.op("Cast", ties, to=double))
        free = write.op("Less", FILTERS, write.constant(0))
        asked = write.op("Max", FILTERS, write.constant(0))
        strike = write.op("Where", free, write.constant(np.float64(0)), never)
        key = write.op("ScatterElements", key, asked, strike, axis=1, reduction="add")
        most = write.op("Min", write.op("Shape", FILTERS, start=1), write.constant([count]))
        best = write.op("TopK", key, most, outputs=2, axis=1)
        alive = write.op("Greater", best, never)
        ranked = write.op("Where", alive, best + ":1", write.constant(-1))
        slots = write.op("CumSum", write.op("Cast", free, to=onnx.TensorProto.INT64), write.constant(1))
        slot = write.op("Sub", write.op("Min", slots, write.constant(count)), write.constant(1))
        strongest = write.op("GatherElements", ranked, slot, axis=1)
        filled = write.op("And", free, write.op("Less", slots, write.constant(count + 1)))  # others: nothing left
        ids = write.op("Where", filled, strongest, FILTERS, name=OUTPUTS[0])
        safe = write.op("Max", ids, write.constant(0))
        chosen = write.op("GatherElements", peaks, safe, axis=1)
        none = write.op("Less", ids, write.constant(0))
        return safe, write.op("Where", none, write.constant(0.0), chosen, name=OUTPUTS[1])

    def _trunk(self) -> tuple[str, str, tuple[int, int]]:
        write, net, encoder = self.writer, self.net, self.net.encoder
        carried, coarse = "", ""
        for index, (level, size) in enumerate(self.levels):
            scale = encoder.get_buffer(f"scale{index}") if isinstance(encoder, SharedEncoder) else None
            fused = write.layer(level, net.lateral[index], scale)  # type: ignore[arg-type]
            if carried:
                fused = write.op("Add", fused, write.resize(carried, self.levels[index - 1][1], size))
            fused = write.op("Relu", fused)
            mixed = write.layer(write.layer(fused, net.spatial[index]), net.mix[index])  # type: ignore[arg-type]
            carried = write.op("Relu", write.op("Add", mixed, fused))
            coarse = coarse or carried
        return write.resize(carried, self.levels[-1][1], self.config.grid), coarse, self.levels[0][1]

    def _own_map(self, feature_map: str, ids: str, peaks: str) -> str:
        write = self.writer
        index = write.op("Unsqueeze", ids, write.constant([2]))
        own = write.op("GatherND", feature_map, index, batch_dims=1)
        floor = write.op("Max", peaks, write.constant(1e-6))
        return write.op("Relu", write.op("Div", own, write.op("Unsqueeze", floor, write.constant([2, 3]))))

    def _log(self, values: str) -> str:
        write = self.writer
        return write.op("Log", write.op("Add", values, write.constant(FLOOR)))

    def _head(self, own: str, size: tuple[int, int], coarse: str, coarse_size: tuple[int, int], ids: str) -> str:
        """Hidden features, (N K, hidden, hc wc)."""
        write, net, width = self.writer, self.net, self.config.hidden
        seen = write.op("Unsqueeze", self._log(write.resize(own, size, coarse_size)), write.constant([2]))
        seen = write.op("Mul", seen, write.constant(net.from_own.weight[:, 0]))  # (N, K, hidden, hc, wc)
        shared = write.op("Unsqueeze", write.layer(coarse, net.from_coarse), write.constant([1]))
        name = write.op("Gather", write.constant(net.embedding.weight[:, :, None, None]), ids)
        hidden = write.op("Relu", write.op("Add", seen, write.op("Add", shared, name)))
        hidden = write.op("Reshape", hidden, write.constant([-1, width, *coarse_size]))
        mixed = write.layer(write.layer(hidden, net.head_spatial), net.head_mix)
        hidden = write.op("Relu", write.op("Add", mixed, hidden))
        return write.op("Reshape", hidden, write.constant([-1, width, coarse_size[0] * coarse_size[1]]))

    def _pool(self, own: str, size: tuple[int, int], hidden: str, coarse_size: tuple[int, int]) -> tuple[str, str]:
        """Hidden features where the filter fires: sum of share_k h_k over the cells, (N K, hidden).

        And the mean of the feature map times the number of coarse cells, (N K, 1).
        """
        write, cells = self.writer, coarse_size[0] * coarse_size[1]
        column = write.op("Reshape", write.resize(own, size, coarse_size), write.constant([-1, cells, 1]))
        total = write.op("ReduceSum", column, write.constant([1]), keepdims=0)
        pooled = write.op("Squeeze", write.op("MatMul", hidden, column), write.constant([2]))
        pooled = write.op("Div", pooled, write.op("Max", total, write.constant(1e-6)))
        if size != coarse_size:
            mean = write.op("ReduceMean", own, write.constant([2, 3]), keepdims=0)
            total = write.op("Mul", write.op("Reshape", mean, write.constant([-1, 1])), write.constant(float(cells)))
        return pooled, total

    def _learnt(self, pooled: str, shared: str, hidden: str, coarse_size: tuple[int, int]) -> str:
        """The query's answer in the shared maps, and the shift of the coarse map, (N, K, h, w), up to a constant each.

        A constant changes no rank, so biases of the maps and of the shift are left out; the maps' weights are
        multiplied into the query's.
        """
        write, net, (rows, columns) = self.writer, self.net, self.config.grid
        batch, to_maps = write.op("Shape", FILTERS), net.to_maps.weight[:, :, 0, 0] * self.config.maps**-0.5
        weight, bias = net.query.weight.T @ to_maps, net.query.bias @ to_maps
        query = write.op("Gemm", pooled, write.constant(weight.contiguous()), write.constant(bias))
        query = write.op("Reshape", query, self._shape(batch, self.config.width))
        fine = write.op("Reshape", shared, write.constant([0, self.config.width, rows * columns]))
        learnt = write.op("Reshape", write.op("MatMul", query, fine), write.constant([0, 0, rows, columns]))
        shift = write.op("MatMul", write.constant(net.shift.weight), hidden)
        shift = write.op("Reshape", shift, self._shape(batch, *coarse_size))
        return write.op("Add", learnt, write.resize(shift, coarse_size, (rows, columns)))

    def _shape(self, batch: str, *last: int) -> str:
        """The shape (N, K, *last)."""
        return self.writer.op("Concat", batch, self.writer.constant(list(last)), axis=0)

    def _saliency(self, upsampled: str, learnt: str, ids: str) -> str:
        """Feature map on the grid and learnt part, smoothed by one matrix per axis, (N, K, h, w)."""
        write, net, grid = self.writer, self.net, self.config.grid
        alpha = write.op("Gather", write.constant(net.alpha.weight[:, :, None]), ids)
        base = write.op("Mul", self._log(upsampled), alpha)
        rows, columns = (_smoothing(edge, self.config.sigma) for edge in grid)
        across = write.op("MatMul", write.op("Add", base, learnt), write.constant(columns.T.contiguous()))
        return write.op("MatMul", write.constant(rows), across)

    def _rank(self, smooth: str) -> str:
        """Writes the ranks; returns the cells in their order, (N, K, h w)."""
        write, (rows, columns) = self.writer, self.config.grid
        cells = rows * columns
        flat = write.op("Reshape", smooth, write.constant([0, 0, cells]))
        order = write.op("TopK", flat, write.constant([cells]), outputs=2, axis=2) + ":1"
        steps = write.constant((np.arange(1, cells + 1) / cells).astype(np.float32))
        ranks = write.op("ScatterElements", flat, order, write.op("Expand", steps, write.op("Shape", flat)), axis=2)
        write.op("Reshape", ranks, write.constant([0, 0, rows, columns]), name=OUTPUTS[2])
        return order

    def _energy_share(self, upsampled: str, order: str) -> str:
        """The share of the squared feature map under the mask of each area, (N K, A)."""
        write, (rows, columns) = self.writer, self.config.grid
        areas, cells = self.config.areas, rows * columns
        flat = write.op("Reshape", upsampled, write.constant([0, 0, cells]))
        ranked = write.op("GatherElements", write.op("Mul", flat, flat), order, axis=2)
        summed = write.op("CumSum", ranked, write.constant(2))
        last = kept_cells(areas, cells)
        kept = write.op("Gather", summed, write.constant(last), axis=2)
        whole = write.op("Max", write.op("Gather", summed, write.constant([cells - 1]), axis=2), write.constant(1e-6))
        return write.op("Reshape", write.op("Div", kept, whole), write.constant([-1, len(areas)]))

    def _retention(self, pooled: str, total: str, peaks: str, kept: str) -> None:
        write, net, (rows, columns) = self.writer, self.net, self.levels[0][1]
        level = write.op("Log", write.op("Add", write.op("Relu", peaks), write.constant(1.0)))
        level = write.op("Reshape", level, write.constant([-1, 1]))
        weight = net.retention_hidden.weight.detach().clone()
        weight[:, self.config.hidden] /= rows * columns  # the sum over the cells instead of their mean
        seen = write.op("Concat", pooled, total, level, kept, axis=1)
        units = write.op("Relu", self._linear(seen, weight, net.retention_hidden.bias))
        growth = write.op("Softplus", self._linear(units, net.retention_out.weight, net.retention_out.bias))
        minus = torch.triu(torch.full((len(self.config.areas),) * 2, -1.0))  # the negative running sum
        kept = write.op("Exp", write.op("MatMul", growth, write.constant(minus)))
        kept = write.op("Sub", write.constant(1.0), kept)
        write.op("Reshape", kept, self._shape(write.op("Shape", FILTERS), len(self.config.areas)), name=OUTPUTS[3])

    def _linear(self, values: str, weight: Tensor, bias: Tensor) -> str:
        write = self.writer
        return write.op("Gemm", values, write.constant(weight.T.contiguous()), write.constant(bias))
