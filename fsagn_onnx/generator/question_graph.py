"""The ONNX nodes of questions about classes, beside those of filters: see `questions` for the formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from ..errors import ExplainerError, GradientError
from ..gradient import Contributions, add_contributions
from ..gradient.backward import PREFIX as GRADIENT
from ..model.classifier import Classifier
from ..model.topology import Topology, node_inputs
from ..runtime.contract import (
    CLASS_IDS,
    CLASSES,
    CONTRIBUTIONS,
    DECISION,
    DIRECTION,
    DIRECTION_PHI,
    EVIDENCE_RANK,
    EVIDENCE_RETENTION,
    FILTERS,
    LEARNT,
    PREFIX,
    SUPPORT,
    WISHES,
)
from .graph_writer import GraphWriter
from .network import Generator
from .particular import NOTHING, SMALLEST_PEAK


def add_questions(proto: onnx.ModelProto, classifier: Classifier, layer: str, batch: str | int) -> Contributions:
    """Append the input ``classes`` and what the filters of a layer add to the decisions; outputs get their names.

    Args:
        proto: the model's graph at opset 18 or later; changed.
        classifier: which of its outputs classifies, and how.
        layer: the explained value.
        batch: of the input.

    Raises:
        ExplainerError: an op between the layer and the decision has no gradient.
    """
    graph = proto.graph
    graph.input.append(onnx.helper.make_tensor_value_info(CLASSES, onnx.TensorProto.INT64, [batch, "J"]))
    before = len(graph.node)
    try:
        found = add_contributions(proto, classifier, layer, CLASSES)
    except GradientError as error:
        raise ExplainerError(f"{error}; train with --questions filters") from error
    names = {found.class_ids: CLASS_IDS, found.decision: DECISION, found.support: SUPPORT}
    names |= {found.gradient: DIRECTION, found.phi: DIRECTION_PHI}
    for node in list(graph.node)[before:]:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return replace(
        found, class_ids=CLASS_IDS, decision=DECISION, support=SUPPORT, gradient=DIRECTION, phi=DIRECTION_PHI
    )


def drop_unused(graph: onnx.GraphProto) -> None:
    """Drop the gradient's nodes that nothing reads: every node costs time, whoever needs it."""
    needed = Topology(graph).ancestors([item.name for item in graph.output])
    kept = [
        onnx.NodeProto.FromString(node.SerializeToString())
        for number, node in enumerate(graph.node)
        if number in needed or not node.output[0].startswith(GRADIENT)
    ]
    read = {name for node in kept for name in node_inputs(node)}
    weights = [item for item in graph.initializer if item.name in read or not item.name.startswith(GRADIENT)]
    weights = [onnx.TensorProto.FromString(item.SerializeToString()) for item in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)


def question_outputs(batch: str | int, grid: tuple[int, int], areas: int) -> list[onnx.ValueInfoProto]:
    """The outputs about classes, in the order of the contract."""
    shapes: dict[str, list[str | int]] = {
        CLASS_IDS: [batch, "J"],
        DECISION: [batch, "J"],
        CONTRIBUTIONS: [batch, "J", "K"],
        SUPPORT: [batch, "J", 2],
        EVIDENCE_RANK: [batch, "J", *grid],
        EVIDENCE_RETENTION: [batch, "J", areas],
    }
    kinds = {CLASS_IDS: onnx.TensorProto.INT64}
    return [
        onnx.helper.make_tensor_value_info(name, kinds.get(name, onnx.TensorProto.FLOAT), shape)
        for name, shape in shapes.items()
    ]


class QuestionNodes:
    """Writes what questions about classes add to a generator's graph.

    Args:
        writer: collects the nodes.
        generator: the trained network.
        found: contributions and gradients, by value name.
    """

    def __init__(self, writer: GraphWriter, generator: Generator, found: Contributions) -> None:
        self.writer, self.net, self.found = writer, generator, found
        self.config, self._counts = generator.config, ""

    def lists(self, strongest: str) -> tuple[str, str]:
        """Keys of the three lists that slots are filled from, (N, 3, C) double, and which slot asks for which.

        Args:
            strongest: key of the first list, (N, C) double.

        Returns:
            The keys; and bool (N, 3, K).
        """
        write = self.writer
        phi = write.op("Gather", self.found.phi, write.constant([0]), axis=1)  # (N, 1, C)
        phi = write.op("Cast", phi, to=onnx.TensorProto.DOUBLE)
        parts = [write.op("Unsqueeze", strongest, write.constant([1])), phi, write.op("Neg", phi)]
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
        write, net = self.writer, self.net
        own, floor, name, alpha = filters
        product = write.op("Max", self._product(feature_map, size), write.constant(0.0))
        highest = write.op("ReduceMax", product, write.constant([2]))
        highest = write.op("Max", highest, write.constant(SMALLEST_PEAK))
        maps = write.op("Max", write.op("Div", product, highest), write.constant(NOTHING))
        positive = write.op("Max", self.found.phi, write.constant(0.0))
        total = write.op("Max", write.op("ReduceSum", positive, write.constant([2])), write.constant(1e-12))
        weights = write.op("Div", positive, total)
        direction = write.op("MatMul", weights, write.constant(net.embedding.weight))
        direction = write.op("Add", direction, self._learnt(0, net.class_embedding))
        steep = write.op("MatMul", weights, write.constant(net.alpha.weight))
        steep = write.op("Add", steep, self._learnt(1, net.class_alpha))
        names = write.op("Unsqueeze", write.op("Concat", name, direction, axis=1), write.constant([3]))
        return (
            write.op("Concat", own, maps, axis=1),
            write.op("Concat", floor, highest, axis=1),
            names,
            write.op("Concat", alpha, steep, axis=1),
        )

    def _learnt(self, place: int, values: Tensor) -> str:
        """A constant of its own, which `direction_graph` finds."""
        self.writer.initializers.append(numpy_helper.from_array(values.detach().cpu().numpy(), LEARNT[place]))
        return LEARNT[place]

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
        node = onnx.helper.make_node(
            "Split", [values, self._counted()], [filters, classes], name=PREFIX + filters, axis=1
        )
        self.writer.nodes.append(node)

    def parted(self, values: str) -> tuple[str, str]:
        """Cut (N, K + J, ...) into what is about filters and what is about classes."""
        filters = self.writer.op("Split", values, self._counted(), outputs=2, axis=1)
        return filters, filters + ":1"

    def _counted(self) -> str:
        """K and J, counted once."""
        write = self.writer
        if not self._counts:
            counts = [write.op("Shape", name, start=1) for name in (FILTERS, CLASSES)]
            self._counts = write.op("Concat", *counts, axis=0)
        return self._counts
