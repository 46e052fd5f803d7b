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
from .network import FLOOR, Generator

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
        if not isinstance(values, np.ndarray | Tensor):
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
        """Bilinear with half-pixel centres over the last two of four axes; nothing where the size stays."""
        if before == after:
            return values
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
        self._rank(own, size, shared, hidden, coarse_size, ids)
        self._retention(own, hidden, peaks)
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
        spatial = write.constant([2, 3])
        peaks = write.op("Squeeze", write.op("GlobalMaxPool", feature_map), spatial)
        means = write.op("Squeeze", write.op("GlobalAveragePool", feature_map), spatial)
        open_slot = write.op("Less", FILTERS, write.constant(0))
        place = write.op("Where", open_slot, write.constant(count), FILTERS)
        never = write.constant(float("-inf"))
        shape = write.op("Shape", FILTERS)
        padded = write.op("Pad", peaks, write.constant([0, 0, 0, 1]), never)
        struck = write.op("ScatterElements", padded, place, write.op("Expand", never, shape), axis=1)
        free = write.op("Slice", struck, write.constant([0]), write.constant([count]), write.constant([1]))
        by_mean = write.op("TopK", means, write.constant([count]), outputs=2, axis=1) + ":1"
        ordered = write.op("GatherElements", free, by_mean, axis=1)
        asked = write.op("Slice", shape, write.constant([1]), write.constant([2]))
        most = write.op("Min", asked, write.constant([count]))
        best = write.op("TopK", ordered, most, outputs=2, axis=1)
        ranked = write.op("GatherElements", by_mean, best + ":1", axis=1)
        slots = write.op("CumSum", write.op("Cast", open_slot, to=onnx.TensorProto.INT64), write.constant(1))
        slot = write.op("Sub", slots, write.constant(1))
        within = write.op("Min", write.op("Max", slot, write.constant(0)), write.op("Sub", most, write.constant(1)))
        strongest = write.op("GatherElements", ranked, within, axis=1)
        left = write.op(
            "And",
            write.op("Less", slot, most),
            write.op("Greater", write.op("GatherElements", best, within, axis=1), never),
        )
        filled = write.op("Where", left, strongest, write.constant(-1))
        ids = write.op("Where", open_slot, filled, FILTERS, name=OUTPUTS[0])
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
            carried = write.op("Add", fused, write.op("Relu", mixed))
            coarse = coarse or carried
        fine = write.resize(carried, self.levels[-1][1], self.config.grid)
        return write.layer(fine, net.to_maps), coarse, self.levels[0][1]

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
        write, net = self.writer, self.net
        flat = write.op("Reshape", write.resize(own, size, coarse_size), write.constant([-1, 1, *coarse_size]))
        seen = write.op("Concat", flat, self._log(flat), axis=1)
        shared = write.op("Unsqueeze", write.layer(coarse, net.from_coarse), write.constant([1]))
        name = write.op("Gather", write.constant(net.embedding.weight), ids)
        named = write.op("Add", shared, write.op("Unsqueeze", name, write.constant([3, 4])))
        named = write.op("Reshape", named, write.constant([-1, self.config.hidden, *coarse_size]))
        hidden = write.op("Relu", write.op("Add", named, write.layer(seen, net.from_own)))
        mixed = write.layer(write.layer(hidden, net.head_spatial), net.head_mix)
        return write.op("Add", hidden, write.op("Relu", mixed))

    def _rank(
        self,
        own: str,
        size: tuple[int, int],
        shared: str,
        hidden: str,
        coarse_size: tuple[int, int],
        ids: str,
    ) -> None:
        write, net, (rows, columns) = self.writer, self.net, self.config.grid
        batch = write.op("Shape", FILTERS)
        coefficients = write.resize(write.layer(hidden, net.coefficients), coarse_size, (rows, columns))
        split = write.op("Concat", batch, write.constant([self.config.maps, rows, columns]), axis=0)
        coefficients = write.op("Reshape", coefficients, split)
        products = write.op("Mul", coefficients, write.op("Unsqueeze", shared, write.constant([1])))
        learnt = write.op("ReduceSum", products, write.constant([2]), keepdims=0)
        learnt = write.op("Mul", learnt, write.constant(float(self.config.maps**-0.5)))
        alpha = write.op("Gather", write.constant(net.alpha.weight[:, 0]), ids)
        alpha = write.op("Unsqueeze", alpha, write.constant([2, 3]))
        base = write.op("Mul", alpha, self._log(write.op("Relu", write.resize(own, size, (rows, columns)))))
        saliency = write.op("Add", base, learnt)
        saliency = write.op("Reshape", saliency, write.constant([-1, 1, rows, columns]))
        padded = write.op("Pad", saliency, write.constant([0, 0, 2, 2, 0, 0, 2, 2]), mode="edge")
        smooth = write.conv(padded, net.get_buffer("kernel"), None)
        cells = rows * columns
        flat = write.op("Reshape", smooth, write.op("Concat", batch, write.constant([cells]), axis=0), name=SALIENCY)
        order = write.op("TopK", flat, write.constant([cells]), outputs=2, axis=2) + ":1"
        steps = write.constant((np.arange(1, cells + 1) / cells).astype(np.float32))
        ranks = write.op("ScatterElements", flat, order, write.op("Expand", steps, write.op("Shape", flat)), axis=2)
        grid = write.op("Concat", batch, write.constant([rows, columns]), axis=0)
        write.op("Reshape", ranks, grid, name=OUTPUTS[2])

    def _retention(self, own: str, hidden: str, peaks: str) -> None:
        write, net = self.writer, self.net
        split = write.op("Concat", write.op("Shape", FILTERS), write.constant([self.config.hidden]), axis=0)
        pooled = write.op("Reshape", write.op("GlobalAveragePool", hidden), split)
        spatial, last = write.constant([2, 3]), write.constant([2])
        mean = write.op("ReduceMean", own, spatial, keepdims=0)
        square = write.op("ReduceMean", write.op("Mul", own, own), spatial, keepdims=0)
        level = write.op("Log", write.op("Add", write.op("Relu", peaks), write.constant(1.0)))
        shape = [write.op("Unsqueeze", part, last) for part in (mean, square, level)]
        seen = write.op("Concat", pooled, *shape, axis=2)
        units = self._linear(seen, net.retention_hidden)
        growth = write.op("Softplus", self._linear(write.op("Relu", units), net.retention_out))
        total = write.op("CumSum", growth, write.constant(2))
        kept = write.op("Exp", write.op("Neg", total))
        write.op("Sub", write.constant(1.0), kept, name=OUTPUTS[3])

    def _linear(self, values: str, layer: nn.Linear) -> str:
        write = self.writer
        product = write.op("MatMul", values, write.constant(layer.weight.T.contiguous()))
        return write.op("Add", product, write.constant(layer.bias))


SALIENCY = f"{PREFIX}saliency"
"""Name of the smoothed saliency ``(N, K, h w)`` inside the file; not an output."""
