"""The CNN being explained: its graph, its conv layers, its input. onnx, numpy and OpenCV; never torch."""

from __future__ import annotations

from .cut import cut
from .graph import Model, load_model
from .layers import Layer
from .preprocess import Geometry, InputSpec
from .reading import ValueInfo, read_proto

__all__ = ["Geometry", "InputSpec", "Layer", "Model", "ValueInfo", "cut", "load_model", "read_proto"]
