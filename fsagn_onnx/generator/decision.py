"""The decision value d_c of a class, in torch: where it is read in the graph, its value, its gradient.

    several classes that exclude each other   d_c = z_c - logsumexp of the other logits
    one logit                                 d_1 = z, d_0 = -z
    several labels                            d_c = z_c
    probabilities                             the same of log p, or of log p - log(1 - p)

Source: the project's method page, "The decision".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch
from onnx import TensorProto
from torch import Tensor

from ..model import Model
from ..model.classifier import SINGLE
from ..model.outputs import PASSING
from ..model.topology import Topology
from ..runtime.classes import Classes

TINY: Final = 1e-30
"""Probabilities under this count as this: their logarithm stays finite."""


@dataclass(frozen=True)
class DecisionValue:
    """Where a model's decision is read, and how.

    Attributes:
        value: ONNX value name, ``(N, classes)`` after flattening.
        kind: ``exclusive`` classes, one number for two classes (``single``), or ``several`` labels.
        scale: what the numbers are; logarithms of probabilities are logits.
        width: numbers per image, where that is known.
    """

    value: str
    kind: Literal["exclusive", "single", "several"]
    scale: Literal["logit", "probability"]
    width: int | None

    @property
    def count(self) -> int | None:
        """How many classes there are, where that is known."""
        return 2 if self.kind == "single" else self.width

    def __call__(self, values: Tensor) -> Tensor:
        """d_c of every class: ``(N, ...)`` numbers of the value -> ``(N, classes)``."""
        z = values.flatten(1).float()
        if self.scale == "probability":
            low = torch.log(z.clamp_min(TINY))
            z = low if self.kind == "exclusive" else low - torch.log((1 - z).clamp_min(TINY))
        if self.kind == "single":
            return torch.cat((-z[:, :1], z[:, :1]), dim=1)
        if self.kind == "several" or z.shape[1] == 1:
            return z
        own = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
        return z - torch.logsumexp(z[:, None].masked_fill(own, -torch.inf), dim=2)

    def of(self, values: Tensor, classes: Tensor) -> Tensor:
        """d_c of the class asked for in each row: ``(P, ...)``, ``(P,)`` int64 -> ``(P,)``."""
        z = values.flatten(1).float()
        if self.kind != "exclusive" or z.shape[1] == 1:
            return self(values).gather(1, classes[:, None])[:, 0]
        if self.scale == "probability":
            z = torch.log(z.clamp_min(TINY))
        others = z.scatter(1, classes[:, None], -torch.inf)
        return z.gather(1, classes[:, None])[:, 0] - torch.logsumexp(others, dim=1)


def decision_value(model: Model, classes: Classes, layer: str) -> DecisionValue | None:
    """Where a model's decision is read: at the logits behind a last Softmax or Sigmoid, where there is one.

    Args:
        model: the CNN.
        classes: how its outputs are read.
        layer: value name of the explained layer.

    Returns:
        None where the model does not classify, or where the decision does not hang on the layer.
    """
    output, scores = classes.classifier.output, classes.classifier.scores
    if output is None:
        return None
    topology = Topology(model.proto.graph)
    value, end = _behind(topology, output)
    kind: Literal["exclusive", "single", "several"] = (
        "single" if scores in SINGLE else "several" if scores == "labels" else "exclusive"
    )
    soft = {"exclusive": ("Softmax", "LogSoftmax"), "single": ("Sigmoid",), "several": ("Sigmoid",)}[kind]
    scale: Literal["logit", "probability"] = "logit"
    if scores in ("probabilities", "sigmoid", "labels", "log-probabilities"):
        if end in soft:
            output = value
        elif scores != "log-probabilities":
            scale = "probability"
    if scale == "logit":
        output = _unrounded(topology, output)
    if topology.producer.get(layer) not in topology.ancestors([output]):
        return None
    return DecisionValue(output, kind, scale, classes.classifier.width)


def _unrounded(topology: Topology, name: str) -> str:
    """Logits before a last Cast to float16, as `gradient` takes them."""
    while (index := topology.producer.get(name)) is not None:
        node = topology.nodes[index]
        if node.op_type != "Cast" or node.attribute[0].i != TensorProto.FLOAT16:
            return name
        name = node.input[0]
    return name


def _behind(topology: Topology, name: str) -> tuple[str, str]:
    """What the last op that does more than pass numbers on reads, and that op."""
    while (index := topology.producer.get(name)) is not None:
        node = topology.nodes[index]
        if node.op_type not in PASSING or not node.input:
            return (node.input[0] if node.input else name), node.op_type
        name = node.input[0]
    return name, ""
