"""The CNN's ONNX graph and the generator's nodes as one graph: an explainer without metadata, not yet proven."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import onnx
from onnx import helper

from .. import __version__
from ..model import Model
from ..model.batch import fixed_batch, free_batch, pin_batch
from ..runtime.classes import classes_of
from ..runtime.contract import FILTERS, PREFIX, RESULTS
from .config import GeneratorConfig
from .network import Generator
from .question_graph import add_questions, drop_unused, question_outputs
from .taken_names import free_names
from .variants import MIN_OPSET, SubsetGraph, at_opset

Said: TypeAlias = tuple[str | None, str | None]
"""``output`` and ``scores``, see `classes_of`."""

Batching: TypeAlias = Literal["free", "declared", "pinned"]
"""What becomes of the batch of the model's graph."""

FLOAT_IMAGE: Final = f"{PREFIX}image"
"""The image as float32, for an encoder of its own where the model takes another type."""


def _own_base(model: Model) -> onnx.ModelProto:
    """A graph with the model's image input and nothing else."""
    spec = model.input_spec
    inputs = [value for value in model.proto.graph.input if value.name == spec.name]
    graph = helper.make_graph([], "fsagn", inputs, [])
    opset = max(MIN_OPSET, model.opset)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _free_batch(value: onnx.ValueInfoProto) -> None:
    dims = value.type.tensor_type.shape.dim
    if dims and not dims[0].dim_value:
        dims[0].dim_param = "N"


def _base(model: Model, config: GeneratorConfig, batching: Batching) -> tuple[onnx.ModelProto, str]:
    """What the generator's nodes are added to, and its float32 image: the model, or just its image input."""
    spec, shared = model.input_spec, config.encoder == "shared"
    proto = at_opset(model.proto, max(model.opset, MIN_OPSET), str(model.path)) if shared else _own_base(model)
    free_names(proto.graph, [tap.value for tap in config.taps] if shared else [], str(model.path))
    batch = fixed_batch(proto, spec.name)
    if batching == "pinned" and not batch:
        proto = pin_batch(proto, spec.name, 1)
    if batching == "free" and batch:
        proto = free_batch(proto, spec.name, (batch, *spec.sample_shape))
    value = next(item for item in proto.graph.input if item.name == spec.name)
    if shared or value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
        return proto, spec.name
    proto.graph.node.append(helper.make_node("Cast", [spec.name], [FLOAT_IMAGE], to=onnx.TensorProto.FLOAT))
    return proto, FLOAT_IMAGE


def build_graph(
    model: Model,
    generator: Generator,
    filters: tuple[int, ...] = (),
    *,
    batching: Batching = "free",
    said: Said = (None, None),
) -> tuple[onnx.ModelProto, str]:
    """The explainer's graph, float32, with the input ``filters`` and perhaps ``classes``; without metadata.

    Args:
        model: the CNN.
        generator: the trained network, in eval mode.
        filters: ids of the filters that ``generator`` knows (see `subset`); empty: all. The graph counts them from 0.
        batching: ``free`` frees the batch of a model that was exported for a fixed one (whether that works has to be
            tried), ``declared`` leaves it, ``pinned`` makes one that is free in the file one image at a time.
        said: ``output`` and ``scores`` that the user says the model's outputs are read by.

    Returns:
        The graph, and the value name of the explained layer's feature map in it.

    Raises:
        ExplainerError: if the model's opset cannot be raised, a name is taken, or a decision has no gradient.
    """
    proto, image = _base(model, generator.config, batching)
    batch = fixed_batch(proto, model.input_spec.name) or "N"
    graph, questions = proto.graph, None
    if generator.config.classes:
        questions = add_questions(proto, classes_of(model, *said).classifier, generator.config.layer, batch)
    sizes = {tap.value: model.shapes[tap.value][-2:] for tap in generator.config.taps}
    taps = {name: (rows, columns) for name, (rows, columns) in sizes.items()}
    nodes = SubsetGraph(generator, taps, image, filters, batch, questions)
    writer = nodes.write()
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.initializers)
    graph.value_info.extend(writer.values)
    graph.input.append(helper.make_tensor_value_info(FILTERS, onnx.TensorProto.INT64, [batch, "K"]))
    divided = {item.name for item in classes_of(model).classifier.outputs if item.axis == 0}
    for value in (*graph.input, *graph.output):
        if value.name == model.input_spec.name or value.name in divided:
            _free_batch(value)
    rows, columns = generator.config.grid
    areas = len(generator.config.areas)
    kinds = (onnx.TensorProto.INT64, *[onnx.TensorProto.FLOAT] * 3)
    shapes: tuple[list[str | int], ...] = (
        [batch, "K"],
        [batch, "K"],
        [batch, "K", rows, columns],
        [batch, "K", areas],
    )
    for name, kind, shape in zip(RESULTS, kinds, shapes, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    if questions is not None:
        graph.output.extend(question_outputs(batch, (rows, columns), areas))
        drop_unused(graph)
    proto.ir_version = max(proto.ir_version, 8)
    proto.producer_name, proto.producer_version = "fsagn-onnx", __version__
    del proto.metadata_props[:]
    return proto, nodes.feature_map
