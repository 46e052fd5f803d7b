"""The trial of `inspect`: everything that `train` does before its first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import torch

from ..conversion import convert
from ..errors import ConversionError, ExplainerError, LayerError, ModelError, UsageError
from ..model import Layer, Model
from ..runtime.metadata import QUESTIONS
from .config import make_config
from .export import rehearse
from .network import Generator
from .options import TrainingOptions
from .step_memory import StepMemory, step_memory
from .trial import asked_decision, decision_depths, fitting_options

REFUSALS: Final = (ConversionError, ExplainerError, LayerError, ModelError, UsageError)
"""What says that a layer cannot be trained."""


def rehearsed(model: Model, layer: Layer, *, converts: bool = False) -> str | None:
    """Why an explainer of a layer could not be trained and exported; None if it could.

    Args:
        model: the CNN.
        layer: of it.
        converts: the conversion up to the layer was compared with onnxruntime (`check_parity`).
    """
    options = TrainingOptions()
    try:
        model.require_one_input()
        try:
            _rehearse(model, layer, options, converts)
        except (ConversionError, ExplainerError):  # as `train` does it: then without classes
            _rehearse(model, layer, replace(options, questions=QUESTIONS[:1]), converts)
    except REFUSALS as error:
        return str(error)
    return None


def training_memory(model: Model, layer: Layer) -> StepMemory | None:
    """What a training of a layer with default options needs and what is free; None where it is clear that it fits.

    Args:
        model: the CNN.
        layer: of it.
    """
    options = TrainingOptions()
    try:
        model.require_one_input()
        decision, options = asked_decision(model, layer, "shared", options, {})
        taps = [tap.value for tap in make_config(model, layer, classes=decision is not None).taps]
        taps += [] if decision is None else [decision.value]
        made = step_memory(lambda: convert(model, taps, check=False), model, options, classes=decision is not None)
    except REFUSALS:
        return None  # the trial says why
    return None if made is None or made.fitting == made.images else made


def _rehearse(model: Model, layer: Layer, options: TrainingOptions, converts: bool) -> None:
    decision, options = asked_decision(model, layer, "shared", options, {})
    config = make_config(model, layer, classes=decision is not None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(config)
    depths = decision_depths(model, layer) if decision is not None and options.teacher else ()
    read = () if decision is None else (*depths, decision.value)
    values = [*(tap.value for tap in config.taps), *read]
    module = convert(model, values, check=not (converts and {*values} <= {layer.value}))
    fitting_options(module, model.input_spec, options, torch.device("cpu"))
    rehearse(model, generator)
