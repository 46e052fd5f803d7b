"""The CNN being explained: its graph, its conv layers, its input. onnx, numpy and OpenCV; never torch."""

from __future__ import annotations

from .cut import cut
from .input_spec import Geometry, InputSpec
from .layers import Layer
from .model import Model, load_model
from .onnx_file import ValueInfo, read_proto

__all__ = ["Geometry", "InputSpec", "Layer", "Model", "ValueInfo", "cut", "load_model", "read_proto"]
