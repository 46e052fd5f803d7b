"""Joins the CNN's ONNX graph and the generator's into one explainer file, and proves it before naming it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

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
from ..model.batch import fixed_batch
from ..model.onnx_file import MAX_FILE_BYTES, weight_bytes
from ..model.quantised import rounds_by_batch
from ..runtime.classes import classes_of
from ..runtime.infill import HELD_OUT
from ..runtime.metadata import FORMAT, KEY, NO_CLASSES, QUESTIONS, ExplainerMetadata
from ..runtime.trust import Trust
from ..runtime.variant import Variant
from ..schema import checked
from .checkpoint import Checkpoint, load_checkpoint
from .config import GeneratorConfig, require_taps
from .explainer_graph import Batching, Said, build_graph
from .graph_runner import run_graph
from .network import Generator
from .proof import ExportReport, picture_like, prove_export, prove_same
from .valid_graph import check_graph
from .variants import (
    PlainExplainer,
    at_opset,
    check_preprocessing,
    fix_request,
    lower_precisions,
    measure_loss,
    preprocess_inside,
    subset,
)

MOST_CALIBRATION: Final = 100
"""Images that calibrate a variant, at most; more are thinned out evenly."""

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


def _proven(
    model: Model,
    generator: Generator,
    filters: tuple[int, ...],
    opset: int | None,
    slack: float = 1.0,
    said: Said = (None, None),
) -> tuple[onnx.ModelProto, str, ExportReport]:
    """The graph, its feature map, and how it compares.

    Its batch is free; where the model holds on to a batch of its own, the file has that, and images go through it in
    groups of that size.
    """
    fixed = fixed_batch(model.proto, model.input_spec.name) is not None
    if fixed and rounds_by_batch(model.proto):
        return _tried(model, generator, filters, opset, "declared", slack, said)
    try:
        return _tried(model, generator, filters, opset, "free", slack, said)
    except ExplainerError as error:
        try:
            return _tried(model, generator, filters, opset, "declared" if fixed else "pinned", slack, said)
        except ExplainerError as second:
            raise (second if fixed else error) from second


def _tried(
    model: Model,
    generator: Generator,
    filters: tuple[int, ...],
    opset: int | None,
    batching: Batching,
    slack: float,
    said: Said,
) -> tuple[onnx.ModelProto, str, ExportReport]:
    if generator.config.encoder == "shared" and weight_bytes(model.proto) > MAX_FILE_BYTES:
        raise ExplainerError(
            f"export: {model.path.name} has more than 2 GiB of weights, and an explainer file, which holds the model, "
            "can have no more: train with --own"
        )
    proto, feature_map = build_graph(model, generator, filters, batching=batching, said=said)
    if opset is not None:
        proto = at_opset(proto, opset, str(model.path))
    check_graph(proto, full=model.shape_warning is None)
    return proto, feature_map, prove_export(proto.SerializeToString(), model, generator, slack, said)


def rehearse(model: Model, generator: Generator, said: Said = (None, None)) -> None:
    """Build, check and run the explainer file that a training would end with, without writing it.

    Args:
        model: the CNN.
        generator: a generator of it, trained or not.
        said: see `build_graph`.

    Raises:
        ExplainerError: no explainer of this model and layer can be exported; the message says why.
    """
    training = generator.training
    try:
        _proven(model, generator.eval(), (), None, UNTRAINED, said)
    finally:
        generator.train(training)


def _said(checkpoint: Checkpoint) -> Said:
    """How the user who trained said that the model's outputs are read."""
    said = checkpoint.description["training"].get("classes") or {}
    return said.get("output"), said.get("scores")


def _trust(checkpoint: Checkpoint) -> Trust | None:
    """What was measured of the generator, however its file is written."""
    found = checkpoint.description.get("trust")
    return None if found is None else checked(found, Trust, CheckpointError)


def make_metadata(
    model: Model, checkpoint: Checkpoint, quality: Mapping[str, Any] | None = None, variant: Variant | None = None
) -> ExplainerMetadata:
    """What an explainer says about itself."""
    config = GeneratorConfig.from_dict(checkpoint.description["generator"])
    options = checkpoint.description["options"]
    classes = classes_of(model, *_said(checkpoint))
    said: dict[str, Any] = {"guessed_input": list(model.input_spec.guessed)} if model.input_spec.guessed else {}
    said |= {"particular": config.particular} if config.particular else {}
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
        training={**checkpoint.description["training"], "held_out_infill": HELD_OUT, **said},
        quality=dict(quality or {}),
        variant=variant or Variant(),
        sha256=model.sha256 if model.path.is_file() else None,
        classes=NO_CLASSES if config.encoder == "own" else classes.described(),
        trust=_trust(checkpoint),
        questions=QUESTIONS if config.classes and not (variant or Variant()).filters else QUESTIONS[:1],
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
    require_taps(model, generator.config, str(source))
    if variant.filters:
        generator = subset(generator, variant.filters)
    proto, feature_map, report = _proven(model, generator, variant.filters, opset, said=_said(checkpoint))
    if variant.precision != "fp32":
        batch = _calibration(model, checkpoint, calibrate, needed=lower_precisions()[variant.precision].calibrated)
        proto, loss = _lowered(proto, feature_map, model, generator, batch, variant.precision)
        variant, report = replace(variant, loss=loss), replace(report, loss=loss)
    proto = _fitted_out(proto, model, variant)
    helper.set_model_props(proto, {KEY: make_metadata(model, checkpoint, quality, variant).to_json()})
    check_graph(proto, full=model.shape_warning is None)
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
