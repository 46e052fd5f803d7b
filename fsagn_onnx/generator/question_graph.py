"""The ONNX nodes of questions about classes, beside those of filters: see `questions` for the formulas."""

from __future__ import annotations

import numpy as np
import onnx

from ..gradient import Contributions
from ..runtime.contract import CLASSES, CONTRIBUTIONS, FILTERS, PREFIX, WISHES
from .graph_writer import GraphWriter
from .network import NOTHING, Generator

DIRECTION = f"{PREFIX}direction"
"""The gradient that questions are made of, (N J, C, h, w), or (N J, C, 1, 1) where it is the same at every place."""

LEARNT = f"{PREFIX}learnt_of_classes"
"""What is learnt about decisions, added to embedding and alpha: an initializer (hidden + 1,)."""


class QuestionNodes:
    """Writes what questions about classes add to a generator's graph.

    Args:
        writer: collects the nodes.
        generator: the trained network.
        found: contributions and gradients, by value name.
    """

    def __init__(self, writer: GraphWriter, generator: Generator, found: Contributions) -> None:
        self.writer, self.net, self.found = writer, generator, found
        self.config = generator.config

    def lists(self, strongest: str) -> tuple[str, str]:
        """Keys of the three lists that slots are filled from, (N, 3, C) double, and which slot asks for which.

        Args:
            strongest: key of the first list, (N, C) double.

        Returns:
            The keys; and bool (N, 3, K).
        """
        write = self.writer
        phi = write.op("Gather", self.found.phi, write.constant(0), axis=1)  # (N, C)
        phi = write.op("Cast", phi, to=onnx.TensorProto.DOUBLE)
        parts = [write.op("Unsqueeze", key, write.constant([1])) for key in (strongest, phi, write.op("Neg", phi))]
        wished = write.op("Unsqueeze", FILTERS, write.constant([1]))
        same = write.op("Equal", wished, write.constant(np.array(WISHES, dtype=np.int64)[None, :, None]))
        return write.op("Concat", *parts, axis=1), same

    def contribute(self, ids: str, none: str | None) -> None:
        """Writes the contributions of the chosen filters (N, K), 0 where none was left."""
        write = self.writer
        axis = write.constant([1])
        shape = write.op("Concat", write.op("Shape", CLASSES), write.op("Shape", FILTERS, start=1), axis=0)
        spread = write.op("Expand", write.op("Unsqueeze", ids, axis), shape)
        if none is None:
            write.op("GatherElements", self.found.phi, spread, axis=2, name=CONTRIBUTIONS)
            return
        chosen = write.op("GatherElements", self.found.phi, spread, axis=2)
        write.op("Where", write.op("Unsqueeze", none, axis), write.constant(0.0), chosen, name=CONTRIBUTIONS)

    def join(
        self, feature_map: str, size: tuple[int, int], filters: tuple[str, str, str, str]
    ) -> tuple[str, str, str, str]:
        """Own maps, peaks, embeddings and alphas of filters, and behind them those of the questions.

        Args:
            feature_map: value of the explained layer.
            size: of it.
            filters: ``(N, K, cells)``, ``(N, K, 1)``, ``(N, K, hidden)``, ``(N, K, 1)``.
        """
        write, net, width = self.writer, self.net, self.config.hidden
        own, floor, name, alpha = filters
        product = write.op("Max", self._product(feature_map, size), write.constant(0.0))
        highest = write.op("ReduceMax", product, write.constant([2]))
        highest = write.op("Max", highest, write.constant(1e-6))
        maps = write.op("Max", write.op("Div", product, highest), write.constant(NOTHING))
        positive = write.op("Max", self.found.phi, write.constant(0.0))
        total = write.op("Max", write.op("ReduceSum", positive, write.constant([2])), write.constant(1e-12))
        weights = write.op("Div", positive, total)
        direction = write.op("MatMul", weights, write.constant(net.embedding.weight))
        direction = write.op("Add", direction, write.constant(net.class_embedding))
        steep = write.op("MatMul", weights, write.constant(net.alpha.weight))
        steep = write.op("Add", steep, write.constant(net.class_alpha))
        names = write.op("Unsqueeze", write.op("Concat", name, direction, axis=1), write.constant([3]))
        del width
        return (
            write.op("Concat", own, maps, axis=1),
            write.op("Concat", floor, highest, axis=1),
            names,
            write.op("Concat", alpha, steep, axis=1),
        )

    def _product(self, feature_map: str, size: tuple[int, int]) -> str:
        """Gradient x activation, (N, J, cells)."""
        write, cells, count = self.writer, size[0] * size[1], self.config.filters
        if self.found.uniform:
            shape = write.op("Concat", write.op("Shape", CLASSES), write.constant([count]), axis=0)
            slopes = write.op("Reshape", self.found.gradient, shape)
            return write.op("MatMul", slopes, write.op("Reshape", feature_map, write.constant([0, count, cells])))
        maps = feature_map
        if self.found.owners is not None:
            maps = write.op("Gather", feature_map, self.found.owners, axis=0)
        product = write.op("ReduceSum", write.op("Mul", maps, self.found.gradient), write.constant([1]), keepdims=0)
        shape = write.op("Concat", write.op("Shape", CLASSES), write.constant([cells]), axis=0)
        return write.op("Reshape", product, shape)

    def part(self, values: str, filters: str, classes: str) -> None:
        """Cut (N, K + J, ...) into two outputs."""
        write = self.writer
        counts = [write.op("Shape", name, start=1) for name in (FILTERS, CLASSES)]
        sizes = write.op("Concat", *counts, axis=0)
        node = onnx.helper.make_node("Split", [values, sizes], [filters, classes], name=PREFIX + filters, axis=1)
        write.nodes.append(node)
