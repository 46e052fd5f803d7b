"""What `inspect` finds out about a file: a model, its layers and whether it converts; or an explainer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ..errors import ConversionError, LayerError, UsageError
from ..model.class_names import given_names
from ..model.layers import Layer
from ..model.model import Model, load_model
from ..model.onnx_file import ValueInfo, metadata_of, read_proto, value_info
from ..model.opset import opset_of
from ..runtime.classes import Classes, classes_of, classes_of_explainer
from ..runtime.contract import OWN_OUTPUTS
from ..runtime.metadata import KEY, ExplainerMetadata
from ..runtime.trust import verdict
from .dead_filters import dead_filters

if TYPE_CHECKING:
    from ..generator.step_memory import StepMemory

__all__ = ["inspect_file"]

EXTRA = ("torch", "onnx2torch", "safetensors")
"""Packages of the training extra: without one of them nothing can be converted."""
INSTALL = "pip install 'fsagn-onnx[train]'"


def inspect_file(
    path: Path,
    *,
    preprocess: Path | None = None,
    image: str | None = None,
    feeds: Iterable[str] = (),
    conversion: bool = True,
    images: Sequence[str] = (),
    on_image: Callable[[int], None] = lambda done: None,
    output: str | None = None,
    scores: str | None = None,
    labels: Path | None = None,
    detections: str | None = None,
) -> dict[str, Any]:
    """Inspect an ONNX file.

    Args:
        path: A plain model or an explainer.
        preprocess: For a plain model: a file with fields of its input spec.
        image: For a plain model: name of its image input.
        feeds: For a plain model: constants for its other inputs, NAME=VALUE.
        conversion: Try to convert the model to torch, and compare (takes seconds).
        images: For a plain model: images on which its filters are watched, to find the dead ones.
        on_image: Is told how many images are done.
        output: The output that classifies; None: found in the graph.
        scores: What its numbers are; None: found.
        detections: Layout of a detector's boxes, see `Explainer`; None: found.
        labels: A file with names of the classes; None: the file's own.

    Returns:
        One JSON document. Of both kinds: kind ("model" or "explainer"), path, inputs, outputs, opset, producer,
        classes (how the outputs are read, see `Classes.to_dict`, and in words), layers, convertible, unsupported,
        parity, next (the command to go on with). Of a model: sha256, input, guessed, labels, default_reason, warnings,
        conversion (in words), trainable, trial (in words), images_per_step (for `train`, where its default does not fit
        into memory), images (how many were looked at, or None), failures (path and message of those that could not be
        read). Of an explainer: explainer (its metadata), trust (how good it is, in words). With `images`, layers have
        the ids of their dead filters, else None.

    Raises:
        ModelError: The file is neither.
        ExplainerError: An explainer that this version cannot read.
        ImageError: None of the images can be read.
        UsageError: An option for plain models with an explainer; an output that cannot be read as told.
    """
    proto = read_proto(path, external_data=False)
    metadata = metadata_of(proto)
    if KEY in metadata:
        given = {"--preprocess": preprocess, "--input": image, "--feed": list(feeds), "--images": images}
        if extra := [option for option, value in given.items() if value]:
            raise UsageError(f"{', '.join(extra)}: for plain models only, but {path} is an explainer")
        described = ExplainerMetadata.from_json(metadata[KEY], path.name)
        classes = classes_of_explainer(proto, described, OWN_OUTPUTS).chosen(output, scores, given_names(labels))
        return _explainer(path, proto, described, classes)
    del proto
    model = load_model(path, preprocess=preprocess, image=image, feeds=feeds, labels=labels)
    return _model(model, classes_of(model, output, scores).chosen(detections=detections), conversion, images, on_image)


def _value(item: ValueInfo) -> dict[str, Any]:
    shape = None if item.shape is None else list(item.shape)
    return {"name": item.name, "dtype": item.dtype, "shape": shape}


def _explainer(path: Path, proto: onnx.ModelProto, metadata: ExplainerMetadata, classes: Classes) -> dict[str, Any]:
    initializers = {tensor.name for tensor in proto.graph.initializer}
    return {
        "kind": "explainer",
        "path": str(path),
        "inputs": [_value(value_info(item)) for item in proto.graph.input if item.name not in initializers],
        "outputs": [_value(value_info(item)) for item in proto.graph.output],
        "opset": opset_of(proto),
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "classes": _classes(classes),
        "layers": [],
        "convertible": None,
        "unsupported": [],
        "parity": None,
        "explainer": json.loads(metadata.to_json()),
        "trust": verdict(metadata.trust, metadata.training),
        "next": f"fsagn-onnx explain {shlex.quote(str(path))} IMAGES... --out results",
    }


def _classes(classes: Classes) -> dict[str, Any]:
    return {**classes.to_dict(), "words": str(classes)}


def _model(
    model: Model, classes: Classes, conversion: bool, images: Sequence[str], on_image: Callable[[int], None]
) -> dict[str, Any]:
    layers, default, warnings = _layers(model)
    watched = dead_filters(model, layers, images, on_image) if images and layers else None
    document: dict[str, Any] = {
        "kind": "model",
        "path": str(model.path),
        "content": model.content,
        "sha256": model.sha256,
        "inputs": [_value(item) for item in model.inputs],
        "outputs": [_value(item) for item in model.outputs],
        "opset": model.opset,
        "producer": model.producer,
        "input": model.input_spec.to_dict(),
        "guessed": list(model.input_spec.guessed),
        "labels": None if model.labels is None else list(model.labels),
        "classes": _classes(classes),
        "layers": [asdict(layer) | {"dead": watched.dead[layer.value] if watched else None} for layer in layers],
        "images": watched.images if watched else None,
        "failures": [asdict(failure) for failure in watched.failures] if watched else [],
        "default_reason": default.reason if default else None,
        "warnings": warnings,
        "convertible": None,
        "unsupported": [],
        "parity": None,
        "conversion": "not tried",
        "trainable": None,
        "trial": "not tried",
        "images_per_step": None,
    }
    if model.shape_warning:
        warnings.append(f"onnx's strict shape inference refuses the graph: {model.shape_warning}")
    if len(model.inputs) > 1:
        others = ", ".join(f"'{item.name}'" for item in model.inputs if item.name != model.input_spec.name)
        warnings.append(f"further inputs than the image: {others}; give them constants with --feed NAME=VALUE")
    warnings.extend(line for line in (model.training_mode, model.group_warning) if line)
    warnings.extend(f"the output '{name}' is left out: it {why}" for name, why in model.left_out.items())
    if conversion and default:
        document |= _conversion(model, default)
    document["next"] = _next(model, default, document)
    return document


def _layers(model: Model) -> tuple[tuple[Layer, ...], Layer | None, list[str]]:
    """The layers, the default one, and why there is none."""
    layers: tuple[Layer, ...] = ()
    try:
        layers = model.layers
        return layers, model.default_layer, []
    except LayerError as error:
        return layers, None, [str(error)]


def _conversion(model: Model, layer: Layer) -> dict[str, Any]:
    """Convert up to the layer and compare with onnxruntime."""
    try:
        from ..conversion import check_parity, convert, unsupported
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        return {"conversion": f"not tried: needs {error.name}; {INSTALL}"}
    try:
        missing = unsupported(model, layer.value)
        if missing:
            listed = [
                {"op": item.op, "domain": item.domain, "version": item.version, "nodes": list(item.nodes)}
                for item in missing
            ]
            words = f"no: {', '.join(map(str, missing))}"
            return {"convertible": False, "unsupported": listed, "conversion": words}
        memory = _memory(model, layer)
        if memory is not None and not memory.fitting:
            return {"conversion": "not compared: see the trial", "trainable": False, "trial": f"no: {memory}"}
        parity = check_parity(model, convert(model, [layer.value], check=False))
    except (ConversionError, LayerError) as error:
        return {"convertible": False, "conversion": f"no: {error}"}
    compared = {
        "max_relative_error": parity.max_relative_error,
        "worst_value": parity.worst_value,
        "inputs": list(parity.inputs),
        "tolerance": parity.tolerance,
        "reason": parity.reason,
        "drift": parity.drift,
    }
    words = (
        f"yes; largest difference to onnxruntime {parity.max_relative_error:.1e} at '{parity.worst_value}' "
        f"(allowed {parity.tolerance:.0e}: {parity.reason})"
    )
    if parity.drift:
        words += f"; {parity.drift:.1e} when each side rounds by itself"
    return {"convertible": True, "parity": compared, "conversion": words, **_rehearsal(model, layer, memory)}


def _memory(model: Model, layer: Layer) -> StepMemory | None:
    from ..generator.rehearsal import training_memory

    return training_memory(model, layer)


def _rehearsal(model: Model, layer: Layer, memory: StepMemory | None) -> dict[str, Any]:
    """What `train` does before its first step: build, check and run the explainer with an untrained generator."""
    from ..generator.rehearsal import rehearsed

    reason = rehearsed(model, layer, converts=True)
    if reason is None:
        words = "yes: an explainer with an untrained generator was built and run"
        less = None if memory is None else memory.advised
        return {"trainable": True, "trial": f"{words}; {memory}" if less else words, "images_per_step": less}
    return {"trainable": False, "trial": f"no: {reason}"}


def _next(model: Model, default: Layer | None, document: Mapping[str, Any]) -> str | None:
    """The command to go on with; None where there is nothing to explain."""
    if default is None:
        return None
    file, layer = shlex.quote(str(model.path)), shlex.quote(default.value)
    if document["convertible"] is False or document["trainable"] is False:
        return f"fsagn-onnx explain {file} IMAGES... --layer {layer} --out results"
    fewer = "" if document["images_per_step"] is None else f" --images-per-step {document['images_per_step']}"
    return f"fsagn-onnx train {file} IMAGES... --layer {layer}{fewer} --out explainer.onnx"
