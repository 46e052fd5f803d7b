"""What a model's graph says about its outputs, kept without its weights: classes, boxes and maps are found in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from .class_map import SEGMENTATION, ClassMap, find_class_map
from .detections import find_detector
from .detector import Detector
from .outputs import DENSE, Output, OutputReader
from .topology import Topology
from .value_trace import ValueTrace

__all__ = ["GraphReading", "read_graph"]

LARGEST = 2**16
"""Constants of at most so many numbers are kept: anchors, grids, strides."""


@dataclass(frozen=True, eq=False)
class GraphReading:
    """The outputs of a model, and the graph before them.

    Attributes:
        outputs: of the model.
        trace: follows its values back.
        size: (H, W) of its input.
    """

    outputs: tuple[Output, ...]
    trace: ValueTrace
    size: tuple[int, int]

    def boxes(self, labels: Sequence[str] | None, layout: str | None = None) -> Detector | None:
        """The layout of a detector's boxes, see `find_detector`; none where the user says that there is a map.

        Raises:
            UsageError: no such layout, or the outputs cannot be read so.
        """
        return (
            None
            if layout == SEGMENTATION
            else find_detector(self.outputs, self.trace, self.size, labels, layout=layout)
        )

    def map(self, labels: Sequence[str] | None, layout: str | None = None) -> ClassMap | None:
        """The map of a segmentation network, see `find_class_map`; none where the user says that there are boxes.

        Raises:
            UsageError: the user says that there is a map, but no output can be one.
        """
        if layout not in (None, SEGMENTATION):
            return None
        return find_class_map(self.outputs, self.trace, self.size, labels, forced=layout == SEGMENTATION)


def read_graph(
    proto: onnx.ModelProto, image: str, sample: Sequence[int], size: tuple[int, int], names: Sequence[str] | None = None
) -> GraphReading:
    """Read a graph's outputs; weights are neither read nor kept.

    Args:
        proto: a graph in topological order.
        image: name of the image input.
        sample: shape of one image of it.
        size: (H, W) of the model's input.
        names: the outputs to describe; None: all.
    """
    reader = OutputReader(proto, image, sample, names)
    trace = ValueTrace(Topology(_light(proto.graph)), reader.shapes, reader.varying)
    return GraphReading(reader.outputs, trace, size)


def _light(graph: onnx.GraphProto) -> onnx.GraphProto:
    """A copy of a graph without the weights of its convolutions and dense layers, and without other large constants."""
    light = onnx.GraphProto(name=graph.name)
    light.output.extend(graph.output)
    weights = {name for node in graph.node if node.op_type in DENSE for name in node.input[1:]}
    for node in graph.node:
        if node.op_type == "Constant" and any(math.prod(item.t.dims) > LARGEST for item in node.attribute):
            light.node.add(op_type="Constant", name=node.name, output=node.output)
        else:
            light.node.append(node)
    light.initializer.extend(
        item for item in graph.initializer if item.name not in weights and math.prod(item.dims) <= LARGEST
    )
    return light
