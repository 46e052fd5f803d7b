"""The trial of `inspect`: everything that `train` does before its first step."""

from __future__ import annotations

import torch

from ..conversion import convert
from ..errors import ConversionError, ExplainerError, LayerError, ModelError, UsageError
from ..model import Layer, Model
from .config import make_config
from .export import rehearse
from .network import Generator
from .options import TrainingOptions
from .trial import fitting_options


def rehearsed(model: Model, layer: Layer) -> str | None:
    """Why an explainer of a layer could not be trained and exported; None if it could.

    Args:
        model: the CNN.
        layer: of it.
    """
    try:
        model.require_one_input()
        config = make_config(model, layer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            generator = Generator(config)
        module = convert(model, [tap.value for tap in config.taps], check=False)
        fitting_options(module, model.input_spec, TrainingOptions(), torch.device("cpu"))
        rehearse(model, generator)
    except (ConversionError, ExplainerError, LayerError, ModelError, UsageError) as error:
        return str(error)
    return None
