"""An explainer's graph without what its variant fixes inside: preprocessing, and a request for the strongest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..model.input_spec import InputSpec
from ..model.shapes import value_types
from .contract import (
    ASKED,
    ASKED_CLASSES,
    BEFORE,
    CLASSES,
    CONTRIBUTIONS,
    DECISION_RESULTS,
    FILTERS,
    PREFIX,
    PREPROCESSED,
    REQUEST,
    RESULTS,
)
from .metadata import ExplainerMetadata


def plain_graph(proto: onnx.ModelProto, metadata: ExplainerMetadata) -> tuple[onnx.ModelProto, ExplainerMetadata]:
    """Undo what an export has put around the graph; a fixed set of filters stays.

    Args:
        proto: the graph of an explainer file; changed in place.
        metadata: what the file says.

    Returns:
        A graph that takes the model's own input and answers any request for its filters, and what it says.
    """
    variant = metadata.variant
    if variant.preprocessing:
        _take_model_input(proto, metadata.input)
    if variant.top is not None:
        _take_requests(proto.graph, len(variant.filters), classes=metadata.answers_classes)
    return proto, replace(metadata, variant=replace(variant, preprocessing=False, top=None))


def _take_model_input(proto: onnx.ModelProto, spec: InputSpec) -> None:
    graph, kind = proto.graph, value_types(proto, [PREPROCESSED])[PREPROCESSED].tensor_type.elem_type
    kept = [node for node in graph.node if not any(name.startswith(BEFORE) for name in node.output)]
    for node in kept:
        node.input[:] = [spec.name if name == PREPROCESSED else name for name in node.input]
    tensors = [tensor for tensor in graph.initializer if not tensor.name.startswith(BEFORE)]
    image = helper.make_tensor_value_info(spec.name, kind, ["N", *spec.sample_shape])
    inputs = [image if value.name == spec.name else value for value in graph.input]
    _replace(graph, node=kept, initializer=tensors, input=inputs)


def _take_requests(graph: onnx.GraphProto, fixed: int, *, classes: bool) -> None:
    """Ask for every filter of a fixed set; where there is none, by the inputs `FILTERS` and `CLASSES`."""
    inside = (ASKED, ASKED_CLASSES, f"{PREFIX}one")
    tensors = [tensor for tensor in graph.initializer if tensor.name not in inside]
    if fixed:
        tensors = list(graph.initializer)
        asked = next(tensor for tensor in tensors if tensor.name == ASKED)
        asked.CopyFrom(numpy_helper.from_array(np.arange(fixed, dtype=np.int64)[None], ASKED))
    else:
        kept = [node for node in graph.node if not node.name.startswith(REQUEST)]
        asked = [helper.make_tensor_value_info(FILTERS, TensorProto.INT64, ["N", "K"])]
        if classes:
            asked.append(helper.make_tensor_value_info(CLASSES, TensorProto.INT64, ["N", "J"]))
        _replace(graph, node=kept, initializer=tensors, input=[*graph.input, *asked])
    for value in graph.output:
        if value.name in DECISION_RESULTS:
            value.type.tensor_type.shape.dim[1].dim_param = "J"
        if value.name == CONTRIBUTIONS:
            value.type.tensor_type.shape.dim[2].dim_param = "K"
        if value.name in RESULTS:
            slots = value.type.tensor_type.shape.dim[1]
            slots.Clear()
            if fixed:
                slots.dim_value = fixed
            else:
                slots.dim_param = "K"


def _replace(graph: onnx.GraphProto, **fields: Sequence[Any]) -> None:
    for name, items in fields.items():
        del getattr(graph, name)[:]
        getattr(graph, name).extend(items)
