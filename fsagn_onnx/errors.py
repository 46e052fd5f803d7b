"""Everything that fsagn-onnx raises on purpose.

`str(error)` is one line for the user: it names the file, node or value, what was expected, what came, and
what to do. The command line prints that line and exits with 1; no traceback.
"""

from __future__ import annotations

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "ConversionError",
    "ExplainerError",
    "FsagnError",
    "ImageError",
    "LayerError",
    "ModelError",
    "OutputError",
    "ParityError",
    "UsageError",
]


class FsagnError(Exception):
    """Base of all errors that the package raises on purpose."""


class ModelError(FsagnError):
    """The ONNX model cannot be read, is invalid, or is not one that can be explained."""


class LayerError(ModelError):
    """No such layer (tappable value) in the model, or one that cannot be used as asked."""


class ConversionError(FsagnError):
    """The ONNX graph cannot be turned into a torch module."""


class ParityError(ConversionError):
    """The converted module computes something else than onnxruntime does."""


class ImageError(FsagnError):
    """An image, or a list of images, cannot be read."""


class AnnotationError(FsagnError):
    """Part annotations or labels cannot be read, or do not fit to the images."""


class ExplainerError(FsagnError):
    """An explainer file cannot be used: not one, too new, or made for another model."""


class CheckpointError(FsagnError):
    """A checkpoint cannot be read, or belongs to another model or other settings."""


class OutputError(FsagnError):
    """A result cannot be written."""


class UsageError(FsagnError):
    """Arguments that contradict each other or are out of range."""
