"""Methods by name; what a method needs is imported when it is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from ..errors import UsageError
from ..model import Model
from ..runtime.masks import common_grid
from .activation import Activation
from .controls import Centre, Random
from .interface import Method
from .rise import Rise


def _from(module: str, kind: str, model: Model, layer: str, **options: Any) -> Method:
    made: Method = getattr(import_module(f".{module}", __package__), kind)(model, layer, **options)
    return made


METHODS: dict[str, Callable[[Model, str], Method]] = {
    "activation": lambda model, layer: Activation(),
    "gradient": partial(_from, "gradient", "Gradient"),
    "input-x-gradient": partial(_from, "gradient", "InputXGradient"),
    "smoothgrad": partial(_from, "gradient", "SmoothGrad"),
    "rise": Rise,
    "optimise": partial(_from, "optimise", "Optimise"),
    "optimise-fsagn": partial(_from, "optimise", "Optimise", objective="fsagn"),
    "random": lambda model, layer: Random(common_grid(model.input_spec.size)),
    "centre": lambda model, layer: Centre(common_grid(model.input_spec.size)),
    "captum-input-x-gradient": partial(_from, "peers", "CaptumInputXGradient"),
    "captum-integrated-gradients": partial(_from, "peers", "CaptumIntegratedGradients"),
    "captum-guided-backprop": partial(_from, "peers", "CaptumGuidedBackprop"),
    "captum-occlusion": partial(_from, "peers", "CaptumOcclusion"),
    "dianna-rise": partial(_from, "dianna_rise", "DiannaRise"),
}
"""Methods by name."""

WITHOUT_TORCH = ("activation", "rise", "random", "centre", "dianna-rise")

DIANNA = "pip install --no-deps dianna xarray pandas scikit-learn joblib threadpoolctl"
"""DIANNA asks for a second onnxruntime, which must not be installed beside onnxruntime-gpu."""


def make_method(name: str, model: Model, layer: str) -> Method:
    """A method for a layer of a model.

    Args:
        name: of `METHODS`.
        model: the CNN.
        layer: value name.

    Raises:
        UsageError: no such method, or it needs what is not installed.
    """
    if name not in METHODS:
        raise UsageError(f"no method {name!r}; there are {', '.join(METHODS)}")
    if name not in WITHOUT_TORCH and importlib.util.find_spec("torch") is None:
        raise UsageError(f"method '{name}' needs torch: pip install 'fsagn-onnx[train]', or use activation or rise")
    if name.startswith("captum-") and importlib.util.find_spec("captum") is None:
        raise UsageError(f"method '{name}' needs captum: pip install 'fsagn-onnx[peers]'")
    if name == "dianna-rise" and importlib.util.find_spec("dianna") is None:
        raise UsageError(f"method '{name}' needs DIANNA: {DIANNA}")
    return METHODS[name](model, layer)
