"""The ONNX nodes that bring out what is particular to a filter: see `particular` for the formula."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from .area import EPSILON
from .graph_writer import GraphWriter
from .network import Generator
from .particular import NOTHING, OWN_ABOVE, SMALLEST_PEAK, behind
from .question_graph import QuestionNodes


class PictureNodes:
    """Writes one question more, about the picture, in front of all others, and takes it away again.

    Args:
        writer: collects the nodes.
        generator: the trained network.
        unit: by which saliency is multiplied in the graph.
        questions: about classes, which follow the filters; None: there are none.
    """

    def __init__(self, writer: GraphWriter, generator: Generator, unit: float, questions: QuestionNodes | None) -> None:
        self.writer, self.net, self.unit, self.questions = writer, generator, unit, questions
        self.cells = generator.config.grid[0] * generator.config.grid[1]

    def ids_and_tables(self, ids: str) -> tuple[str, Tensor, Tensor]:
        """Numbers ``(N, 1 + K)`` of rows, and the tables with one row more for the picture, ``(C + 1, ...)``."""
        write, net = self.writer, self.net
        tables = zip((net.embedding.weight, net.alpha.weight), net.picture_voice(), strict=True)
        embedding, alpha = (torch.cat((table, voice[None])) for table, voice in tables)
        row = write.constant(net.config.filters)
        return write.op("Pad", ids, write.constant([0, 1, 0, 0]), row), embedding, alpha

    def behind_picture(self, own: str, feature_map: str, cells: int) -> str:
        """Own maps ``(N, K, cells)`` behind that of the picture, by the feature map of the whole layer."""
        write = self.writer
        total = write.op("ReduceSum", feature_map, write.constant([1]), keepdims=1)
        total = write.op("Reshape", total, write.constant([0, 1, cells]))
        highest = write.op("Max", write.op("ReduceMax", total, write.constant([2])), write.constant(SMALLEST_PEAK))
        total = write.op("Max", write.op("Div", total, highest), write.constant(NOTHING))
        return write.op("Concat", total, own, axis=1)

    def without(self, values: str) -> str:
        """The rows behind the picture's."""
        return self._rows(values, 1, sys.maxsize)

    def told_apart(self, saliency: str) -> str:
        """``(N, 1 + K + J, h w)`` -> ``(N, K + J, h w)``: the filters' maps changed, those of classes as they are."""
        write = self.writer
        if self.questions is None:
            flat = self._standardised(saliency)
            return self._changed(self.without(flat), self._rows(flat, 0, 1))
        filters, classes = self.questions.parted(self.without(saliency))
        picture = self._standardised(self._rows(saliency, 0, 1))
        return write.op("Concat", self._changed(self._standardised(filters), picture), classes, axis=1)

    def _changed(self, filters: str, picture: str) -> str:
        write, weight = self.writer, self.net.config.particular
        down = write.constant(np.full(self.cells, -behind(weight, self.cells) * self.unit, dtype=np.float32))
        later = self._scaled(write.op("Sub", filters, picture), weight, down)
        first = write.op("Greater", filters, write.constant(OWN_ABOVE * self.unit))
        return write.op("Add", filters, write.op("Where", first, write.constant(0.0), later))

    def _standardised(self, maps: str) -> str:
        """Mean 0 and deviation ``unit``; centred first, since onnxruntime takes the variance as a difference."""
        write = self.writer
        return self._scaled(write.op("Sub", maps, write.op("ReduceMean", maps, write.constant([2]))), 1.0)

    def _scaled(self, centred: str, deviation: float, *shift: str) -> str:
        scale = self.writer.constant(np.full(self.cells, deviation * self.unit, dtype=np.float32))
        epsilon = EPSILON * self.unit**2
        return self.writer.op("LayerNormalization", centred, scale, *shift, axis=-1, epsilon=epsilon)

    def _rows(self, values: str, first: int, last: int) -> str:
        write = self.writer
        return write.op("Slice", values, *(write.constant([bound]) for bound in (first, last, 1)))
