"""Writes the generator as ONNX nodes: static sizes are constants, so there are no Shape and Gather chains.

Written by hand rather than traced: it stays small, has any N and K, and its ties are ordered as the contract says.
`export` compares every file with the torch generator in onnxruntime before it gets its name.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor

from ..gradient import Contributions
from ..runtime.contract import (
    AREA_RANK,
    EVIDENCE_RANK,
    EVIDENCE_RETENTION,
    FILTER_IDS,
    FILTER_PEAKS,
    FILTERS,
    PREFIX,
    RETENTION,
)
from .encoder import OwnEncoder, SharedEncoder
from .graph_constants import folded, smoothing_matrix
from .graph_writer import GraphWriter
from .network import FLOOR, TIE, Generator, kept_cells, resize
from .particular import NOTHING, SMALLEST_PEAK
from .particular_graph import PictureNodes
from .question_graph import QuestionNodes

FEW = 64
"""Up to so many filters of a layer, more slots than filters may be asked for: -1 and peak 0 where none is left."""

SORTED_UNIT = 2.0**32
"""Saliency times this is sorted as whole numbers: quicker than floats by a seventh, and no NaN upsets the order."""

LARGEST_MATRIX = 2**16
"""Elements of the largest matrix that takes a map to the grid; larger ones would weigh more than they save."""


def _shape_after(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


class GeneratorGraph:
    """The generator's nodes for one config; see `Generator` for the formulas.

    Args:
        generator: the trained network, in eval mode.
        taps: sizes ``(h, w)`` of the tapped values at the model's input size, by value name (shared encoder).
        image: name of the graph's image input.
        batch: of the taps and the image: a number, or a name where it is free.
        questions: about classes, whose contributions and gradients the graph has already; None: filters alone.

    Attributes:
        feature_map: value name of the explained layer's feature map, once it is written.
        apart: name of the shape that takes (N K, ...) to (N, K, -1); with questions, K + J of them, and one more for
            the picture until its map has been read.
    """

    def __init__(
        self,
        generator: Generator,
        taps: dict[str, tuple[int, int]],
        image: str,
        batch: str | int = "N",
        questions: Contributions | None = None,
    ) -> None:
        self.net, self.config, self.image = generator, generator.config, image
        self.tap_sizes = taps
        self.writer, self.batch = GraphWriter(), batch
        self.levels: list[tuple[str, tuple[int, int]]] = []
        self.feature_map = ""
        self.questions = None if questions is None else QuestionNodes(self.writer, generator, questions)
        self.picture = None
        if generator.config.particular:
            self.picture = PictureNodes(self.writer, generator, SORTED_UNIT, self.questions)
        self.apart = "" if self.questions or self.picture else self._shape_of(FILTERS)

    def write(self) -> GraphWriter:
        """All nodes, from the taps (or the image) and ``filters`` to the outputs."""
        write = self.writer
        feature_map, size = self._encode()
        ids, peaks = self._choose(feature_map)
        shared, coarse = self._trunk()
        own, floor = self._own_map(feature_map, size, ids, peaks)
        name, alpha = self._named(ids)
        if self.picture is not None:
            own = self.picture.behind_picture(own, self.feature_map, size[0] * size[1])
        if self.questions is not None:
            own, floor, name, alpha = self.questions.join(self.feature_map, size, (own, floor, name, alpha))
        self.apart = self.apart or self._shape_of(own)
        hidden = self._head(own, size, coarse, name)
        pooled, total = self._pool(own, hidden)
        fine = self._to_grid(own, size)
        shift = write.op("MatMul", write.constant(self.net.shift.weight), hidden)
        shift = self._to_grid(write.op("Reshape", shift, self.apart), size)
        saliency = self._saliency(fine, self._learnt(pooled, shared), shift, alpha)
        if self.picture is not None:
            saliency = self.picture.told_apart(saliency)
            pooled, total, fine = (self.picture.without(values) for values in (pooled, total, fine))
            self.apart = self._shape_of(saliency)
        order = self._rank(saliency)
        self._retention(pooled, total, floor, self._energy_share(fine, order))
        return write

    def _shape_of(self, rows: str) -> str:
        """The shape that takes (N K, ...) to (N, K, -1), by a value (N, K, ...)."""
        write = self.writer
        return write.op("Concat", write.op("Shape", rows, end=2), write.constant([-1]), axis=0)

    def _named(self, ids: str) -> tuple[str, str]:
        """Embeddings of the filters, (N, K, hidden, 1), and alphas, (N, K, 1); the picture's before them."""
        write, table, steepness = self.writer, self.net.embedding.weight, self.net.alpha.weight
        if self.picture is not None:
            ids, table, steepness = self.picture.ids_and_tables(ids)
        alpha = write.op("Gather", write.constant(steepness), ids)
        if self.questions is None:
            return write.op("Gather", write.constant(table[:, :, None]), ids), alpha
        return write.op("Gather", write.constant(table), ids), alpha

    def _encode(self) -> tuple[str, tuple[int, int]]:
        encoder = self.net.encoder
        if isinstance(encoder, SharedEncoder):
            self.levels = [(tap.value, self.tap_sizes[tap.value]) for tap in self.config.taps]
            self.feature_map = self.levels[0][0]
            return self.levels[0]
        self.feature_map, size = self._own_encoder(encoder)
        return self.feature_map, size

    def _own_encoder(self, encoder: OwnEncoder) -> tuple[str, tuple[int, int]]:
        write, level, size, stride = self.writer, self.image, self.config.size, 1
        if self.config.layout == "NHWC":
            level = write.op("Transpose", level, perm=[0, 3, 1, 2])
        for block in encoder.blocks:
            for part in (0, 3, 6):
                conv, norm = block[part], block[part + 1]  # type: ignore[index]
                weight, bias = folded(conv, norm)
                pad = [int(conv.padding[0])] * 4
                level = write.conv(level, weight, bias, pads=pad, strides=list(conv.stride), group=conv.groups)
                level = write.op("Relu", level)
            size, stride = _shape_after(size), stride * 2
            if stride >= encoder.kept[0][0]:
                self.levels.insert(0, (level, size))
        predicted = write.op("Relu", write.layer(level, encoder.to_feature_map))
        return write.op("Mul", predicted, write.constant(encoder.get_buffer("unit"))), size

    def _choose(self, feature_map: str) -> tuple[str, str]:
        """-1 becomes the strongest not asked for: highest peak, then highest mean, then lowest id.

        With questions, -2 becomes the one that adds most to the first class, -3 the one that speaks most against it.
        """
        write, count = self.writer, self.config.filters
        never, double = write.constant(np.float64(-np.inf)), onnx.TensorProto.DOUBLE
        peaks = write.op("Flatten", write.op("GlobalMaxPool", feature_map), axis=1)
        means = write.op("Flatten", write.op("GlobalAveragePool", feature_map), axis=1)
        ties = write.op("Mul", means, write.constant(TIE))  # exact: a power of 2
        key = write.op("Add", write.op("Cast", peaks, to=double), write.op("Cast", ties, to=double))
        free = write.op("Less", FILTERS, write.constant(0))
        asked = write.op("Max", FILTERS, write.constant(0))
        strike = write.op("Where", free, write.constant(np.float64(0)), never)
        wishes = free
        if self.questions is not None:  # three lists, one after the other, on an axis of their own
            key, wishes = self.questions.lists(key)
            lists = write.op("Shape", key, end=2)
            spread = write.op("Concat", lists, write.op("Shape", FILTERS, start=1), axis=0)
            asked = write.op("Expand", write.op("Unsqueeze", asked, write.constant([1])), spread)
            strike = write.op("Unsqueeze", strike, write.constant([1]))
            strike = write.op("Expand", strike, spread)
        key = write.op("ScatterElements", key, asked, strike, axis=-1, reduction="add")
        most, few = write.op("Shape", FILTERS, start=1), count <= FEW
        length = write.op("Min", most, write.constant([count])) if few else most
        best = write.op("TopK", key, length, outputs=2, axis=-1)
        ranked = best + ":1"
        along = write.constant(1 if self.questions is None else 2)
        slot = write.op("CumSum", write.op("Cast", wishes, to=onnx.TensorProto.INT64), along, exclusive=1)
        place = slot
        if few:  # -1 in ranks that only filters asked for by id take
            ranked = write.op("Where", write.op("Greater", best, never), ranked, write.constant(-1))
            place = write.op("Min", slot, write.constant(count - 1))
        strongest = write.op("GatherElements", ranked, place, axis=-1)
        if few:  # and behind the last
            strongest = write.op("Where", write.op("Less", slot, write.constant(count)), strongest, write.constant(-1))
        if self.questions is not None:
            strongest = write.op("Where", wishes, strongest, write.constant(-1))
            strongest = write.op("ReduceMax", strongest, write.constant([1]), keepdims=0)
        ids = write.op("Where", free, strongest, FILTERS, name=FILTER_IDS)
        if not few:
            self._contribute(ids, None)
            return ids, write.op("GatherElements", peaks, ids, axis=1, name=FILTER_PEAKS)
        none, ids = write.op("Less", ids, write.constant(0)), write.op("Max", ids, write.constant(0))
        self._contribute(ids, none)
        chosen = write.op("GatherElements", peaks, ids, axis=1)
        return ids, write.op("Where", none, write.constant(0.0), chosen, name=FILTER_PEAKS)

    def _contribute(self, ids: str, none: str | None) -> None:
        if self.questions is not None:
            self.questions.contribute(ids, none)

    def _trunk(self) -> tuple[str, str]:
        """Shared maps (N, width, h, w) on the grid, and coarse features (N, width, hc, wc)."""
        write, net, encoder, width = self.writer, self.net, self.net.encoder, self.config.width
        carried, coarse = "", ""
        for index, (level, size) in enumerate(self.levels):
            scale = encoder.get_buffer(f"scale{index}") if isinstance(encoder, SharedEncoder) else None
            fused = write.layer(level, net.lateral[index], scale)  # type: ignore[arg-type]
            if carried:
                upsampled = write.resize(carried, self.levels[index - 1][1], size)
                for part in (fused, upsampled):
                    write.known(part, self.batch, width, *size)
                fused = write.op("Add", fused, upsampled)
            fused = write.op("Relu", fused)
            mixed = write.layer(write.layer(fused, net.spatial[index]), net.mix[index])  # type: ignore[arg-type]
            carried = write.op("Relu", write.op("Add", mixed, fused))
            coarse = coarse or carried
        return write.resize(carried, self.levels[-1][1], self.config.grid), coarse

    def _own_map(self, feature_map: str, size: tuple[int, int], ids: str, peaks: str) -> tuple[str, str]:
        """The filters' feature maps over their peaks, (N, K, cells), and the peaks but for a floor, (N, K, 1)."""
        write = self.writer
        own = write.op("GatherND", feature_map, write.op("Unsqueeze", ids, write.constant([2])), batch_dims=1)
        own = write.op("Reshape", own, write.constant([0, 0, size[0] * size[1]]))
        floor = write.op("Max", write.op("Unsqueeze", peaks, write.constant([2])), write.constant(SMALLEST_PEAK))
        return write.op("Max", write.op("Div", own, floor), write.constant(NOTHING)), floor

    def _to_grid(self, values: str, size: tuple[int, int]) -> str:
        """(N, K, cells) of a map of that size -> (N, K, h w) on the grid, bilinear: by a matrix, or Resize."""
        write, grid = self.writer, self.config.grid
        cells, fine = size[0] * size[1], grid[0] * grid[1]
        if size == grid:
            return values
        if cells * fine <= LARGEST_MATRIX:
            matrix = resize(torch.eye(cells).view(cells, 1, *size), grid).view(cells, fine)
            return write.op("MatMul", values, write.constant(matrix))
        maps = write.resize(write.op("Reshape", values, write.constant([0, 0, *size])), size, grid)
        return write.op("Reshape", maps, write.constant([0, 0, fine]))

    def _log(self, values: str) -> str:
        write = self.writer
        return write.op("Log", write.op("Add", values, write.constant(FLOOR)))

    def _head(self, own: str, size: tuple[int, int], coarse: str, name: str) -> str:
        """Hidden features, (N K, hidden, cells). Both sums are of a convolution's output, into which they are fused."""
        write, net, width, cells = self.writer, self.net, self.config.hidden, size[0] * size[1]
        shared = write.op("Reshape", write.layer(coarse, net.from_coarse), write.constant([0, 1, width, cells]))
        both = write.op("Reshape", write.op("Add", shared, name), write.constant([-1, width, *size]))
        both = write.conv(both, torch.ones(width, 1, 1, 1), None, group=width)
        seen = write.op("Reshape", self._log(own), write.constant([-1, 1, *size]))
        seen = write.layer(seen, net.from_own)
        for part in (both, seen):
            write.known(part, f"{PREFIX}NK", width, *size)
        hidden = write.op("Relu", write.op("Add", both, seen))
        mixed = write.layer(write.layer(hidden, net.head_spatial), net.head_mix)
        hidden = write.op("Relu", write.op("Add", mixed, hidden))
        return write.op("Reshape", hidden, write.constant([-1, width, cells]))

    def _pool(self, own: str, hidden: str) -> tuple[str, str]:
        """Hidden features where the filter fires: sum of share_k h_k over the cells, (N, K, hidden).

        And the sum of the feature map, (N, K, 1).
        """
        write = self.writer
        cells = self.levels[0][1][0] * self.levels[0][1][1]
        total = write.op("ReduceSum", own, write.constant([2]))
        pooled = write.op("MatMul", hidden, write.op("Reshape", own, write.constant([-1, cells, 1])))
        pooled = write.op("Reshape", pooled, self.apart)
        return write.op("Div", pooled, total), total

    def _learnt(self, pooled: str, shared: str) -> str:
        """The query's answer in the shared maps, (N, K, h w), up to a constant.

        A constant changes no rank, so the maps' biases are left out; their weights are multiplied into the query's.
        """
        write, net, (rows, columns) = self.writer, self.net, self.config.grid
        to_maps = net.to_maps.weight[:, :, 0, 0] * self.config.maps**-0.5
        query = write.op("MatMul", pooled, write.constant((net.query.weight.T @ to_maps).contiguous()))
        query = write.op("Add", query, write.constant(net.query.bias @ to_maps))
        fine = write.op("Reshape", shared, write.constant([0, self.config.width, rows * columns]))
        return write.op("MatMul", query, fine)

    def _saliency(self, fine: str, learnt: str, shift: str, alpha: str) -> str:
        """Feature map on the grid and learnt parts, smoothed by one matrix per axis, by `SORTED_UNIT`, (N, K, h w)."""
        write, grid = self.writer, self.config.grid
        base = write.op("Mul", self._log(fine), alpha)
        saliency = write.op("Sum", base, shift, learnt)
        saliency = write.op("Reshape", saliency, write.constant([0, 0, *grid]))
        rows, columns = (smoothing_matrix(edge, self.config.sigma) for edge in grid)
        saliency = write.op("MatMul", saliency, write.constant(columns.T.contiguous()))
        saliency = write.op("MatMul", write.constant(rows * SORTED_UNIT), saliency)
        return write.op("Reshape", saliency, write.constant([0, 0, grid[0] * grid[1]]))

    def _rank(self, saliency: str) -> str:
        """Writes the ranks; returns the cells in their order, (N, K, h w)."""
        write, (rows, columns) = self.writer, self.config.grid
        cells = rows * columns
        key = write.op("Cast", saliency, to=onnx.TensorProto.INT64)
        order = write.op("TopK", key, write.constant([cells]), outputs=2, axis=2) + ":1"
        steps = write.constant((np.arange(1, cells + 1) / cells).astype(np.float32))
        steps = write.op("Expand", steps, write.op("Shape", saliency))
        ranks = write.op("ScatterElements", saliency, order, steps, axis=2)
        self._answer(ranks, write.constant([0, 0, rows, columns]), AREA_RANK, EVIDENCE_RANK)
        return order

    def _answer(self, values: str, shape: str, filters: str, classes: str) -> None:
        """Write an output about filters, and with questions the one about classes."""
        if self.questions is None:
            self.writer.op("Reshape", values, shape, name=filters)
        else:
            self.questions.part(self.writer.op("Reshape", values, shape), filters, classes)

    def _energy_share(self, fine: str, order: str) -> str:
        """The share of the squared feature map under the mask of each area, (N, K, A)."""
        write, areas = self.writer, self.config.areas
        cells = self.config.grid[0] * self.config.grid[1]
        energy = write.op("Mul", fine, fine)
        inside = torch.zeros(cells, len(areas))
        for column, last in enumerate(kept_cells(areas, cells)):
            inside[: last + 1, column] = 1
        kept = write.op("MatMul", write.op("GatherElements", energy, order, axis=2), write.constant(inside))
        return write.op("Div", kept, write.op("ReduceSum", energy, write.constant([2])))

    def _retention(self, pooled: str, total: str, floor: str, kept: str) -> None:
        write, net, (rows, columns) = self.writer, self.net, self.levels[0][1]
        level = write.op("Log", write.op("Add", floor, write.constant(1.0)))
        weight = net.retention_hidden.weight.detach().clone()
        weight[:, self.config.hidden] /= rows * columns  # the sum over the cells instead of their mean
        seen = write.op("Concat", pooled, total, level, kept, axis=2)
        seen = write.op("Reshape", seen, write.constant([-1, weight.shape[1]]))
        units = write.op("Relu", self._linear(seen, weight, net.retention_hidden.bias))
        growth = write.op("Softplus", self._linear(units, net.retention_out.weight, net.retention_out.bias))
        minus = torch.triu(torch.full((len(self.config.areas),) * 2, -1.0))  # the negative running sum
        lost = write.op("MatMul", growth, write.constant(minus))
        kept = write.op("Elu", lost, alpha=-1.0)  # 1 - exp(x) where x < 0
        self._answer(kept, self.apart, RETENTION, EVIDENCE_RETENTION)

    def _linear(self, values: str, weight: Tensor, bias: Tensor) -> str:
        write = self.writer
        return write.op("Gemm", values, write.constant(weight.T.contiguous()), write.constant(bias))
