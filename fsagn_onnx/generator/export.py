"""Joins the CNN's ONNX graph and the generator's into one explainer file, and proves it before naming it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper

from .. import __version__
from ..data.files import make_folder, write_file
from ..data.images import list_images, read_image
from ..errors import CheckpointError, ExplainerError, UsageError
from ..model import Model, load_model
from ..model.batch import fixed_batch, free_batch, pin_batch
from ..runtime.classes import classes_of
from ..runtime.contract import FILTERS, PREFIX, RESULTS
from ..runtime.infill import HELD_OUT
from ..runtime.metadata import FORMAT, KEY, NO_CLASSES, ExplainerMetadata
from ..runtime.variant import Variant
from .checkpoint import Checkpoint, load_checkpoint
from .config import GeneratorConfig
from .network import Generator
from .proof import ExportReport, picture_like, prove_export, prove_same, run_graph
from .taken_names import free_names
from .variants import (
    MIN_OPSET,
    PlainExplainer,
    SubsetGraph,
    at_opset,
    check_preprocessing,
    fix_request,
    lower_precisions,
    measure_loss,
    preprocess_inside,
    subset,
)

Batching: TypeAlias = Literal["free", "declared", "pinned"]
"""What becomes of the batch of the model's graph."""

MOST_CALIBRATION: Final = 100
"""Images that calibrate a variant, at most; more are thinned out evenly."""

FLOAT_IMAGE: Final = f"{PREFIX}image"
"""The image as float32, for an encoder of its own where the model takes another type."""

UNTRAINED: Final = 20.0
"""By so much an untrained generator may differ more: its maps have no scale yet, so rounding shows."""

UNSEEN: Final = 16
"""Random fields on which half precision is compared where there are no images."""


def load_generator(checkpoint: Checkpoint) -> Generator:
    """The generator with the checkpoint's averaged weights, in eval mode.

    Raises:
        CheckpointError: if the weights do not fit their description.
    """
    try:
        config = GeneratorConfig.from_dict(checkpoint.description["generator"])
        with torch.random.fork_rng(devices=[]):
            generator = Generator(config)
        generator.load_state_dict(checkpoint.group("weights"))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint's weights do not fit its description: {error}".splitlines()[0]
        ) from error
    return generator.eval()


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
    model: Model, generator: Generator, filters: tuple[int, ...] = (), *, batching: Batching = "free"
) -> tuple[onnx.ModelProto, str]:
    """The explainer's graph, float32, with the input ``filters``; without metadata.

    Args:
        model: the CNN.
        generator: the trained network, in eval mode.
        filters: ids of the filters that ``generator`` knows (see `subset`); empty: all. The graph counts them from 0.
        batching: ``free`` frees the batch of a model that was exported for a fixed one (whether that works has to be
            tried), ``declared`` leaves it, ``pinned`` makes one that is free in the file one image at a time.

    Returns:
        The graph, and the value name of the explained layer's feature map in it.

    Raises:
        ExplainerError: if the model's opset cannot be raised, or a name is taken.
    """
    proto, image = _base(model, generator.config, batching)
    batch = fixed_batch(proto, model.input_spec.name) or "N"
    graph = proto.graph
    sizes = {tap.value: model.shapes[tap.value][-2:] for tap in generator.config.taps}
    taps = {name: (rows, columns) for name, (rows, columns) in sizes.items()}
    nodes = SubsetGraph(generator, taps, image, filters, batch)
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
    proto.ir_version = max(proto.ir_version, 8)
    proto.producer_name, proto.producer_version = "fsagn-onnx", __version__
    del proto.metadata_props[:]
    return proto, nodes.feature_map


def _proven(
    model: Model, generator: Generator, filters: tuple[int, ...], opset: int | None, slack: float = 1.0
) -> tuple[onnx.ModelProto, str, ExportReport]:
    """The graph, its feature map, and how it compares.

    Its batch is free; where the model holds on to a batch of its own, the file has that, and images go through it in
    groups of that size.
    """
    fixed = fixed_batch(model.proto, model.input_spec.name) is not None
    try:
        return _tried(model, generator, filters, opset, "free", slack)
    except ExplainerError as error:
        try:
            return _tried(model, generator, filters, opset, "declared" if fixed else "pinned", slack)
        except ExplainerError as second:
            raise (second if fixed else error) from second


def _tried(
    model: Model, generator: Generator, filters: tuple[int, ...], opset: int | None, batching: Batching, slack: float
) -> tuple[onnx.ModelProto, str, ExportReport]:
    proto, feature_map = build_graph(model, generator, filters, batching=batching)
    if opset is not None:
        proto = at_opset(proto, opset, str(model.path))
    try:
        onnx.checker.check_model(proto, full_check=model.shape_warning is None)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ExplainerError(f"export: the explainer's graph would not be valid: {reason}; no file written") from error
    return proto, feature_map, prove_export(proto.SerializeToString(), model, generator, slack)


def rehearse(model: Model, generator: Generator) -> None:
    """Build, check and run the explainer file that a training would end with, without writing it.

    Args:
        model: the CNN.
        generator: a generator of it, trained or not.

    Raises:
        ExplainerError: no explainer of this model and layer can be exported; the message says why.
    """
    training = generator.training
    try:
        _proven(model, generator.eval(), (), None, UNTRAINED)
    finally:
        generator.train(training)


def make_metadata(
    model: Model, checkpoint: Checkpoint, quality: Mapping[str, Any] | None = None, variant: Variant | None = None
) -> ExplainerMetadata:
    """What an explainer says about itself."""
    config = GeneratorConfig.from_dict(checkpoint.description["generator"])
    options = checkpoint.description["options"]
    said = checkpoint.description["training"].get("classes") or {}
    classes = classes_of(model, said.get("output"), said.get("scores"))
    guesses = {"guessed_input": list(model.input_spec.guessed)} if model.input_spec.guessed else {}
    return ExplainerMetadata(
        format=FORMAT,
        tool=f"fsagn-onnx {__version__}",
        content=model.content,
        layer=config.layer,
        filters=config.filters,
        encoder=config.encoder,
        input=model.input_spec,
        labels=model.labels,
        areas=config.areas,
        objective=options["objective"]["name"],
        infills=tuple(kind for kind, share in options["mix"].items() if share > 0),
        training={**checkpoint.description["training"], "held_out_infill": HELD_OUT, **guesses},
        quality=dict(quality or {}),
        variant=variant or Variant(),
        sha256=model.sha256 if model.path.is_file() else None,
        classes=NO_CLASSES if config.encoder == "own" else classes.described(),
    )


def export_explainer(
    model: Model | Path,
    checkpoint: Checkpoint | Path,
    out: Path,
    *,
    quality: Mapping[str, Any] | None = None,
    variant: Variant | None = None,
    opset: int | None = None,
    calibrate: Sequence[str | Path] = (),
) -> ExportReport:
    """Write the explainer file of a trained generator; it appears whole and proven, or not at all.

    Args:
        model: the CNN that the generator was trained for.
        checkpoint: the trained generator.
        out: where the file goes.
        quality: measured figures for the metadata.
        variant: precision, preprocessing inside, fixed request; the plain file unless told.
        opset: of the file, 18 or later; the model's own (at least 18) unless told.
        calibrate: images for lower precision; the checkpoint's training images unless told.

    Returns:
        How far onnxruntime on the float32 graph is from the torch generator, and what lower precision loses.

    Raises:
        CheckpointError: if the checkpoint is damaged or of another model.
        ExplainerError: if the file would not compute what the torch generator does.
        OutputError: if it cannot be written.
        UsageError: a filter or opset that does not exist, or no calibration images.
    """
    model = model if isinstance(model, Model) else load_model(model)
    source = checkpoint if isinstance(checkpoint, Path) else "the checkpoint"
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    if checkpoint.description.get("content") != model.content:
        raise CheckpointError(
            f"{source} was trained for another model than {model.path}: "
            f"expected content {str(checkpoint.description.get('content'))[:12]}..., "
            f"but got {model.content[:12]}...; give the model it was trained for"
        )
    variant = variant or Variant()
    generator = load_generator(checkpoint)
    if variant.filters:
        generator = subset(generator, variant.filters)
    proto, feature_map, report = _proven(model, generator, variant.filters, opset)
    if variant.precision != "fp32":
        batch = _calibration(model, checkpoint, calibrate, needed=lower_precisions()[variant.precision].calibrated)
        proto, loss = _lowered(proto, feature_map, model, generator, batch, variant.precision)
        variant, report = replace(variant, loss=loss), replace(report, loss=loss)
    proto = _fitted_out(proto, model, variant)
    helper.set_model_props(proto, {KEY: make_metadata(model, checkpoint, quality, variant).to_json()})
    onnx.checker.check_model(proto, full_check=model.shape_warning is None)
    make_folder(out.parent)
    write_file(out, [proto.SerializeToString()], durable=True)
    return report


def _lowered(
    proto: onnx.ModelProto, feature_map: str, model: Model, generator: Generator, batch: Any, precision: str
) -> tuple[onnx.ModelProto, dict[str, float]]:
    """The graph at a lower precision, and what is lost."""
    spec = model.input_spec
    shared = generator.config.encoder == "shared"
    own_outputs = [value.name for value in model.proto.graph.output] if shared else []
    low = lower_precisions()[precision].lower(PlainExplainer(proto, spec.name, feature_map, own_outputs, batch))
    return low, measure_loss(proto.SerializeToString(), low.SerializeToString(), batch, spec.name, run_graph)


def _fitted_out(proto: onnx.ModelProto, model: Model, variant: Variant) -> onnx.ModelProto:
    """The graph with its request and preprocessing inside, proven against the one without."""
    if variant.slots is None and not variant.preprocessing:
        return proto
    spec = model.input_spec
    final = onnx.ModelProto()
    final.CopyFrom(proto)
    slots = variant.slots
    if slots is not None:
        fix_request(final, variant, spec.name)
        slots = slots if variant.top else tuple(range(len(slots)))
    if variant.preprocessing:
        check_preprocessing(spec, final, lambda content, feeds: list(run_graph(content, feeds).values()))
        final = preprocess_inside(final, spec)
    free, content = proto.SerializeToString(), final.SerializeToString()
    prove_same(free, content, spec, slots, pixels=variant.preprocessing)
    return final


def _calibration(
    model: Model, checkpoint: Checkpoint, images: Sequence[str | Path], *, needed: bool
) -> NDArray[np.float32]:
    """Preprocessed images to calibrate on: those given, else training images that are still there."""
    known = [Path(path) for path in checkpoint.description.get("calibration", ())]
    paths: Iterable[Path] = list_images(images) if images else (path for path in known if path.is_file())
    found = list(paths)
    if images and not found:
        raise UsageError(f"no images in {', '.join(map(str, images))}: name files, folders or globs")
    if not found and needed:
        missing = f"the {len(known)} that it names are gone" if known else "it names none"
        raise UsageError(
            f"int8 is calibrated on images, and the checkpoint has none ({missing}): give --calibrate IMAGES"
        )
    if not found:
        return picture_like(UNSEEN, model.input_spec, seed=1)
    places = np.linspace(0, len(found) - 1, min(len(found), MOST_CALIBRATION)).round().astype(int)
    return np.stack([model.input_spec.preprocess(read_image(found[place]))[0] for place in places])


__all__ = ["ExportReport", "build_graph", "export_explainer", "load_generator", "make_metadata", "rehearse"]
