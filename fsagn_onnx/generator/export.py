"""Joins the CNN's ONNX graph and the generator's into one explainer file, and proves it before naming it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, version_converter

from .. import __version__
from ..convert import convert
from ..errors import CheckpointError, ExplainerError
from ..model import Model, load_model
from ..runtime.infill import HELD_OUT
from ..runtime.metadata import FORMAT, KEY, ExplainerMetadata
from .area import area_rank
from .checkpoint import Checkpoint, load_checkpoint, write_whole
from .config import GeneratorConfig
from .graph import FILTERS, OUTPUTS, SALIENCY, GeneratorGraph, GraphWriter
from .network import Generated, Generator

MIN_OPSET = 18
"""The first opset whose Resize takes axes, so that sizes stay constants whatever the batch."""


@dataclass(frozen=True)
class ExportReport:
    """How far the written file is from the torch generator.

    Attributes:
        retention: largest absolute difference of predicted retention.
        saliency: largest drop of the torch saliency along onnxruntime's order; 0 when the ranks agree but for ties.
        outputs: largest relative difference of the model's own outputs from the plain model's; 0 without any.
    """

    retention: float
    saliency: float
    outputs: float


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


def _raised(model: Model) -> onnx.ModelProto:
    """A copy of the model at opset 18 or later."""
    if model.opset >= MIN_OPSET:
        copy = onnx.ModelProto()
        copy.CopyFrom(model.proto)
        return copy
    try:
        return version_converter.convert_version(model.proto, MIN_OPSET)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ExplainerError(
            f"{model.path} is of opset {model.opset} and cannot be raised to {MIN_OPSET}: {reason}; "
            f"export it again with opset {MIN_OPSET} or later"
        ) from error


def _own_base(model: Model) -> onnx.ModelProto:
    """A graph with the model's image input and nothing else."""
    spec = model.input_spec
    inputs = [value for value in model.proto.graph.input if value.name == spec.name]
    graph = helper.make_graph([], "fsagn", inputs, [])
    opset = max(MIN_OPSET, model.opset)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _free_batch(value: onnx.ValueInfoProto) -> None:
    dimension = value.type.tensor_type.shape.dim[0]
    if not dimension.dim_value:
        dimension.dim_param = "N"


def build_proto(model: Model, generator: Generator, metadata: ExplainerMetadata) -> onnx.ModelProto:
    """The explainer's graph with its metadata.

    Args:
        model: the CNN.
        generator: the trained network, in eval mode.
        metadata: what the file says about itself.

    Raises:
        ExplainerError: if the model's opset cannot be raised, or a name is taken.
    """
    shared = generator.config.encoder == "shared"
    proto = _raised(model) if shared else _own_base(model)
    graph = proto.graph
    if any(value.name == FILTERS for value in graph.input):
        raise ExplainerError(f"{model.path} has an input named {FILTERS!r} of its own; rename it")
    sizes = {tap.value: model.layer(tap.value).shape[1:] for tap in generator.config.taps}
    taps = {name: (int(shape[0]), int(shape[1])) for name, shape in sizes.items()}
    writer = GeneratorGraph(generator, taps, model.input_spec.name).write()
    graph.node.extend(writer.nodes)
    graph.initializer.extend(writer.initializers)
    graph.input.append(helper.make_tensor_value_info(FILTERS, onnx.TensorProto.INT64, ["N", "K"]))
    for value in (*graph.input, *graph.output):
        if value.name != FILTERS:
            _free_batch(value)
    rows, columns = generator.config.grid
    areas = len(generator.config.areas)
    kinds = (onnx.TensorProto.INT64, *[onnx.TensorProto.FLOAT] * 3)
    shapes: tuple[list[str | int], ...] = (
        ["N", "K"],
        ["N", "K"],
        ["N", "K", rows, columns],
        ["N", "K", areas],
    )
    for name, kind, shape in zip(OUTPUTS, kinds, shapes, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    proto.ir_version = max(proto.ir_version, 8)
    proto.producer_name, proto.producer_version = "fsagn-onnx", __version__
    del proto.metadata_props[:]
    helper.set_model_props(proto, {KEY: metadata.to_json()})
    return proto


def make_metadata(model: Model, checkpoint: Checkpoint, quality: Mapping[str, Any] | None = None) -> ExplainerMetadata:
    """What an explainer says about itself."""
    config = GeneratorConfig.from_dict(checkpoint.description["generator"])
    options = checkpoint.description["options"]
    return ExplainerMetadata(
        format=FORMAT,
        tool=f"fsagn-onnx {__version__}",
        model_sha256=model.sha256,
        layer=config.layer,
        filters=config.filters,
        encoder=config.encoder,
        input=model.input_spec,
        labels=model.labels,
        areas=config.areas,
        objective=options["objective"]["name"],
        infills=tuple(kind for kind, share in options["mix"].items() if share > 0),
        training={**checkpoint.description["training"], "held_out_infill": HELD_OUT},
        quality=dict(quality or {}),
    )


def export_explainer(
    model: Model | Path, checkpoint: Checkpoint | Path, out: Path, *, quality: Mapping[str, Any] | None = None
) -> ExportReport:
    """Write the explainer file of a trained generator; it appears whole and proven, or not at all.

    Args:
        model: the CNN that the generator was trained for.
        checkpoint: the trained generator.
        out: where the file goes.
        quality: measured figures for the metadata.

    Returns:
        How far onnxruntime on the file is from the torch generator.

    Raises:
        CheckpointError: if the checkpoint is damaged or of another model.
        ExplainerError: if the file would not compute what the torch generator does.
        OutputError: if it cannot be written.
    """
    model = model if isinstance(model, Model) else load_model(model)
    source = checkpoint if isinstance(checkpoint, Path) else "the checkpoint"
    checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    if checkpoint.description.get("model_sha256") != model.sha256:
        raise CheckpointError(
            f"{source} was trained for another model than {model.path}: "
            f"expected sha256 {str(checkpoint.description.get('model_sha256'))[:12]}..., "
            f"but got {model.sha256[:12]}...; give the model it was trained for"
        )
    generator = load_generator(checkpoint)
    proto = build_proto(model, generator, make_metadata(model, checkpoint, quality))
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString()
    report = compare(content, model, generator)
    write_whole(out, content)
    return report


def _picture_like(shape: tuple[int, ...], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Smooth random fields of about unit size: nearer to a picture than white noise."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
    smooth = torch.nn.functional.avg_pool2d(noise.reshape(-1, 1, *shape[-2:]), 9, stride=1, padding=4)
    return (smooth * 5).reshape(shape).numpy()


def _torch_outputs(model: Model, generator: Generator, batch: Any, filters: Any) -> Generated:
    config = generator.config
    inputs = {"image": torch.from_numpy(batch)}
    with torch.no_grad():
        if config.encoder == "shared":
            inputs |= convert(model, [tap.value for tap in config.taps], check=False)(inputs["image"])
        result: Generated = generator(inputs, torch.from_numpy(filters))
    return result


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def compare(content: bytes, model: Model, generator: Generator) -> ExportReport:
    """Compare an explainer in onnxruntime with the torch generator and the plain model.

    Raises:
        ExplainerError: naming the output that differs, and by how much.
    """
    config, spec = generator.config, model.input_spec
    channels = (spec.channels, *spec.size)
    images = _picture_like((3, *channels), seed=0)
    if spec.layout == "NHWC":
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    filters = np.array([[-1, 0, -1], [config.filters - 1, -1, -1], [-1, -1, -1]], dtype=np.int64)
    session = _session(content)
    names = [output.name for output in session.get_outputs()]
    results = dict(zip(names, session.run(None, {spec.name: images, FILTERS: filters}), strict=True))
    expected = _torch_outputs(model, generator, images, filters)
    if not np.array_equal(results[OUTPUTS[0]], expected.filter_ids.numpy()):
        near_tie = np.abs(results[OUTPUTS[1]] - expected.filter_peaks.numpy()).max()
        if near_tie > 1e-3 * max(1.0, float(expected.filter_peaks.abs().max())):
            raise ExplainerError(f"export: {OUTPUTS[0]} of the file differs from the torch generator's; report this")
        expected = _torch_outputs(model, generator, images, results[OUTPUTS[0]])
    report = ExportReport(
        retention=float(np.abs(results[OUTPUTS[3]] - expected.retention.numpy()).max()),
        saliency=order_gap(results[OUTPUTS[2]], expected.saliency),
        outputs=_model_difference(model, images, results) if config.encoder == "shared" else 0.0,
    )
    for name, figure, limit in (
        (OUTPUTS[3], report.retention, 1e-4),
        (OUTPUTS[2], report.saliency, 1e-3),
        ("the model's outputs", report.outputs, 1e-4),
    ):
        if not figure <= limit:
            raise ExplainerError(
                f"export: {name} in onnxruntime differ by {figure:.2g} from torch (allowed {limit:g}); no file written"
            )
    return report


def order_gap(rank: Any, saliency: torch.Tensor) -> float:
    """Largest rise of the torch saliency along onnxruntime's order, in standard deviations; 0 = same but for ties."""
    flat = saliency.flatten(-2)
    order = torch.from_numpy(np.ascontiguousarray(rank)).flatten(-2).argsort(dim=-1)
    along = flat.gather(-1, order)
    spread = flat.std(dim=-1, keepdim=True).clamp_min(1e-6)
    return float(((along[..., 1:] - along[..., :-1]).clamp_min(0) / spread).max())


def _model_difference(model: Model, images: Any, results: dict[str, Any]) -> float:
    plain = _session(model.proto.SerializeToString())
    worst = 0.0
    for output, value in zip(plain.get_outputs(), plain.run(None, {model.input_spec.name: images}), strict=True):
        if value.dtype.kind == "f":
            scale = max(float(np.abs(value).max()), 1e-12)
            worst = max(worst, float(np.abs(value - results[output.name]).max()) / scale)
    return worst


__all__ = [
    "SALIENCY",
    "ExportReport",
    "GraphWriter",
    "area_rank",
    "build_proto",
    "compare",
    "export_explainer",
    "load_generator",
    "make_metadata",
    "order_gap",
]
