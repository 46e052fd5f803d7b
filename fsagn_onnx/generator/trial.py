"""What can be known before the first step: the input sizes that the converted graph takes."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..conversion import TappedModule
from ..errors import ConversionError, LayerError
from ..model import InputSpec
from .options import TrainingOptions
from .step import input_sizes


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
