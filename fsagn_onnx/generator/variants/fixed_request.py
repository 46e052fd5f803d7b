"""A request fixed inside the file: some filters only (smaller tables), or the K strongest; no second input."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from ...errors import UsageError
from ...gradient import Contributions
from ...runtime.contract import (
    ASKED,
    ASKED_CLASSES,
    CLASSES,
    CONTRIBUTIONS,
    DECISION_RESULTS,
    FILTER_IDS,
    FILTERS,
    PREFIX,
    REQUEST,
    RESULTS,
    STRONGEST,
)
from ...runtime.variant import Variant
from ..config import GeneratorConfig
from ..encoder import Encoded, OwnEncoder, SharedEncoder
from ..graph import GeneratorGraph
from ..network import Generator

LOCAL_IDS = f"{PREFIX}local_ids"
"""Filter ids counted within the subset."""


class SubsetEncoder(SharedEncoder):
    """The CNN's taps, of the explained layer some filters only as feature map."""

    def __init__(self, config: GeneratorConfig, filters: tuple[int, ...]) -> None:
        super().__init__(config)
        self._filters = list(filters)

    def forward(self, inputs: dict[str, Tensor]) -> Encoded:
        """As for all filters; the trunk still sees every channel."""
        encoded = super().forward(inputs)
        return encoded._replace(feature_map=encoded.feature_map[:, self._filters])


def subset(generator: Generator, filters: tuple[int, ...]) -> Generator:
    """A generator of some filters only, numbered 0.. in the order given; its tables hold nothing else.

    It cannot be asked about classes: these need the embeddings of all filters.

    Args:
        generator: of all C filters, in eval mode; not changed.
        filters: their ids, each in 0..C-1.

    Raises:
        UsageError: an id that the layer does not have.
    """
    count = generator.config.filters
    if wrong := [k for k in filters if not 0 <= k < count]:
        raise UsageError(f"no filter {wrong[0]}: layer '{generator.config.layer}' has {count} filters, 0..{count - 1}")
    chosen = torch.tensor(filters)
    small = copy.deepcopy(generator)
    small.config = replace(small.config, filters=len(filters), classes=False)
    small.voice = generator.picture_voice()
    small.embedding = _rows(small.embedding, chosen)
    small.alpha = _rows(small.alpha, chosen)
    if isinstance(small.encoder, SharedEncoder):
        encoder = SubsetEncoder(small.config, filters)
        encoder.load_state_dict(small.encoder.state_dict())
        small.encoder = encoder
    if isinstance(small.encoder, OwnEncoder):
        head = small.encoder.to_feature_map
        head.weight = nn.Parameter(head.weight.detach()[chosen])
        if head.bias is not None:
            head.bias = nn.Parameter(head.bias.detach()[chosen])
        small.encoder.register_buffer("unit", small.encoder.get_buffer("unit")[:, chosen])
    return small.eval()


def _rows(table: nn.Embedding, chosen: Tensor) -> nn.Embedding:
    return nn.Embedding(len(chosen), table.embedding_dim, _weight=table.weight.detach()[chosen])


class SubsetGraph(GeneratorGraph):
    """The generator's nodes, which read some channels of the explained layer only.

    Args:
        generator: what `subset` gave, or one of all filters.
        taps: see `GeneratorGraph`.
        image: see `GeneratorGraph`.
        filters: ids of the filters that ``generator`` knows; empty: all.
        batch: see `GeneratorGraph`.
        questions: see `GeneratorGraph`.
    """

    def __init__(
        self,
        generator: Generator,
        taps: dict[str, tuple[int, int]],
        image: str,
        filters: tuple[int, ...],
        batch: str | int,
        questions: Contributions | None = None,
    ) -> None:
        super().__init__(generator, taps, image, batch, questions)
        self._filters = filters

    def _encode(self) -> tuple[str, tuple[int, int]]:
        _, size = super()._encode()
        if self._filters and self.config.encoder == "shared":
            ids = self.writer.constant(list(self._filters))
            return self.writer.op("Gather", self.feature_map, ids, axis=1), size
        return self.feature_map, size


def fix_request(proto: onnx.ModelProto, variant: Variant, image: str) -> None:
    """Replace the input ``filters`` by the variant's request, and let ``filter_ids`` count over the whole layer.

    The input ``classes``, where there is one, by the class with the highest score.

    Args:
        proto: the explainer of a subset (where the variant names filters), or of all filters; changed in place.
        variant: with ``filters`` or ``top``.
        image: name of the image input, which gives the batch size N.
    """
    graph = proto.graph
    about_classes = any(value.name == CLASSES for value in graph.input)
    inputs = [value for value in graph.input if value.name not in (FILTERS, CLASSES)]
    del graph.input[:]
    graph.input.extend(inputs)
    asked = np.full((1, variant.top), -1) if variant.top is not None else np.arange(len(variant.filters))[None]
    for name, array in ((ASKED, asked), (f"{PREFIX}one", np.ones(1)), (f"{PREFIX}ids", np.array(variant.filters))):
        graph.initializer.append(numpy_helper.from_array(array.astype(np.int64), name))
    nodes = [
        helper.make_node("Shape", [image], [f"{PREFIX}batch"], start=0, end=1),
        helper.make_node("Concat", [f"{PREFIX}batch", f"{PREFIX}one"], [f"{PREFIX}batch_one"], axis=0),
        helper.make_node("Expand", [ASKED, f"{PREFIX}batch_one"], [FILTERS]),
    ]
    if about_classes:  # the one with the highest score
        graph.initializer.append(numpy_helper.from_array(np.full((1, 1), STRONGEST, dtype=np.int64), ASKED_CLASSES))
        nodes.append(helper.make_node("Expand", [ASKED_CLASSES, f"{PREFIX}batch_one"], [CLASSES]))
    rest = list(graph.node)
    if variant.filters:
        for node in rest:
            for names in (node.input, node.output):
                names[:] = [LOCAL_IDS if name == FILTER_IDS else name for name in names]
        rest.append(helper.make_node("Gather", [f"{PREFIX}ids", LOCAL_IDS], [FILTER_IDS]))
    else:
        graph.initializer.remove(next(item for item in graph.initializer if item.name == f"{PREFIX}ids"))
    for number, node in enumerate(nodes):
        node.name = f"{REQUEST}{number}"
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    slots = len(variant.slots or ())
    for value in graph.output:
        dims = value.type.tensor_type.shape.dim
        if value.name in RESULTS:
            dims[1].dim_value = slots
        if value.name in DECISION_RESULTS:
            dims[1].dim_value = 1
        if value.name == CONTRIBUTIONS:
            dims[2].dim_value = slots
