"""What can be known before the first step: the input sizes that the converted graph takes, whether it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from ..conversion import TappedModule, unsupported
from ..errors import ConversionError, LayerError, UsageError
from ..gradient import missing_rules
from ..model import InputSpec, Layer, Model
from ..model.quantised import is_quantised
from ..model.topology import Topology
from ..runtime.classes import classes_of
from ..runtime.metadata import QUESTIONS
from .decision import DecisionValue, decision_value
from .options import TrainingOptions
from .schedule import input_sizes


def fitting_options(
    module: TappedModule, spec: InputSpec, options: TrainingOptions, device: torch.device
) -> TrainingOptions:
    """The options, without the smaller inputs of the ramp where the graph does not take them.

    Sizes baked into a Reshape fit one input only; training then stays at the model's own size. The answer depends on
    the graph and the options alone, so that a resumed run finds the same.

    Args:
        module: the converted CNN.
        spec: its input.
        options: as asked for.
        device: where the module computes.

    Raises:
        ConversionError: not even the model's own size works with several images.
    """
    own, *smaller = input_sizes(spec, options)
    if reason := _refusal(module, spec, own, device):
        raise ConversionError(
            f"the converted graph takes no batch of several images of {own[0]}x{own[1]} px: {reason}; export the model "
            "with a dynamic batch axis"
        )
    if any(_refusal(module, spec, size, device) for size in smaller):
        return replace(options, ramp=())
    return options


def require_answers(feature_map: torch.Tensor, layer: str, file: str) -> None:
    """Check that some filter of the layer answers to some picture.

    Args:
        feature_map: ``(N, C, h, w)`` of the first pictures.
        layer: its value.
        file: name of the model's file.

    Raises:
        LayerError: it is the same number everywhere, and not above 0.
    """
    if not bool((feature_map > 0).any()) and bool((feature_map == feature_map.flatten()[0]).all()):
        raise LayerError(
            f"no filter of layer '{layer}' answers anywhere in {len(feature_map)} crops of the pictures: there is "
            f"nothing to learn; choose another layer, check --preprocess, or see which filters are dead with "
            f"'fsagn-onnx inspect {file} --images IMAGES'"
        )


def _refusal(module: TappedModule, spec: InputSpec, size: tuple[int, int], device: torch.device) -> str | None:
    """Why two images of a size do not go through; None if they do."""
    shape = (2, spec.channels, *size) if spec.layout == "NCHW" else (2, *size, spec.channels)
    try:
        with torch.no_grad():
            made = module(torch.zeros(shape, device=device))
    except (RuntimeError, IndexError, ValueError) as error:
        return str(error).splitlines()[0][:200]
    wrong = next((name for name, value in made.items() if value.shape[0] != 2), None)
    return None if wrong is None else f"'{wrong}' has {made[wrong].shape[0]} maps for 2 images"


def asked_decision(
    model: Model, layer: Layer, encoder: str, options: TrainingOptions, classes: Mapping[str, str | None]
) -> tuple[DecisionValue | None, TrainingOptions]:
    """Where the decision is read, if classes are asked about, and the options, which then say whether they are.

    Args:
        model: the CNN.
        layer: the explained layer.
        encoder: of the generator.
        options: as asked for; where they leave it open, classes are asked about if they can be.
        classes: ``output`` and ``scores`` that the user says the model's outputs are read by.

    Raises:
        UsageError: classes are to be asked about, and cannot be.
    """
    found: DecisionValue | str = "filters alone are asked about"
    if options.questions is None or "classes" in options.questions:
        found = askable(model, layer, encoder, **classes)
    if not isinstance(found, str):
        return found, replace(options, questions=QUESTIONS)
    if options.questions == QUESTIONS:
        raise UsageError(f"no questions about classes: {found}; train with --questions filters")
    return None, replace(options, questions=QUESTIONS[:1])


def askable(
    model: Model, layer: Layer, encoder: str, output: str | None = None, scores: str | None = None
) -> DecisionValue | str:
    """Where a model's decision is read, or why no classes can be asked about.

    Args:
        model: the CNN.
        layer: the explained layer.
        encoder: of the generator.
        output: the output that classifies, see `classes_of`.
        scores: what its numbers are, likewise.
    """
    if encoder != "shared":
        return "a generator with an encoder of its own makes a file without the model's decision"
    classes = classes_of(model, output, scores)
    if not classes:
        return f"the model does not classify: {classes.classifier.reason}"
    found = decision_value(model, classes, layer.value)
    if found is None:
        return f"the output '{classes.classifier.output}' does not hang on layer '{layer.value}'"
    if (found.count or 2) < 2 and found.kind == "exclusive":
        return f"the output '{classes.classifier.output}' has one class only"
    if is_quantised(model.proto):
        return "the model is quantised, so its decision has no gradient"
    if without := missing_rules(model.proto, [found.value], [layer.value]):
        return f"the way from the layer to the decision has no gradient at {without[0]}"
    if missing := unsupported(model, found.value):
        return f"the way from the layer to the decision cannot be converted to torch: {missing[0]}"
    return found


def decision_depths(model: Model, layer: Layer) -> tuple[str, ...]:
    """Layers whose gradients may teach evidence, deepest first: the explained one, and the last one of each stride.

    Only layers that the explained one is computed from, so that one backward pass meets them all.
    """
    topology = Topology(model.proto.graph)
    feeding = topology.ancestors([layer.value])
    names: dict[int, str] = {}
    for candidate in model.layers:
        if candidate.value == layer.value:
            break
        if topology.producer.get(candidate.value) in feeding and min(candidate.shape[1:]) > 1:
            names[candidate.stride] = candidate.value
    finer = sorted((stride, value) for stride, value in names.items() if stride < layer.stride)
    return (layer.value, *(value for _, value in reversed(finer)))
