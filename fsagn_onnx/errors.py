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
    "GradientError",
    "ImageError",
    "LayerError",
    "ModelError",
    "OutputError",
    "ParityError",
    "UsageError",
    "WorkerError",
]


class FsagnError(Exception):
    """Base of all errors that the package raises on purpose.

    Example:
        >>> try:
        ...     load_model("nothing.onnx")
        ... except FsagnError as error:
        ...     print(error)
        no file nothing.onnx
    """


class ModelError(FsagnError):
    """The ONNX model cannot be read, is invalid, or is not one that can be explained.

    Example:
        >>> load_model("photos/0.png")
        Traceback (most recent call last):
        ModelError: photos/0.png...
    """


class LayerError(ModelError):
    """No such layer (tappable value) in the model, or one that cannot be used as asked.

    Example:
        >>> load_model("model.onnx").layer("nothing")
        Traceback (most recent call last):
        LayerError: ...nothing...
    """


class ConversionError(FsagnError):
    """The ONNX graph cannot be turned into a torch module.

    Example:
        >>> issubclass(ConversionError, FsagnError)
        True
    """


class ParityError(ConversionError):
    """The converted module computes something else than onnxruntime does.

    Example:
        >>> issubclass(ParityError, ConversionError)
        True
    """


class GradientError(FsagnError):
    """The gradient of a model cannot be written as ONNX nodes: an operator without a rule, or an unknown shape.

    Example:
        >>> issubclass(GradientError, FsagnError)
        True
    """


class ImageError(FsagnError):
    """An image, or a list of images, cannot be read.

    Example:
        >>> Explainer("explainer.onnx").explain("nothing.png")
        Traceback (most recent call last):
        ImageError: ...nothing.png...
    """


class AnnotationError(FsagnError):
    """Part annotations or labels cannot be read, or do not fit to the images.

    Example:
        >>> dissect("model.onnx", "explainer.onnx", "photos", "folder", parts="nothing.json")
        Traceback (most recent call last):
        AnnotationError: nothing.json...
    """


class ExplainerError(FsagnError):
    """An explainer file cannot be used: not one, too new, or made for another model.

    Example:
        >>> Explainer("model.onnx")
        Traceback (most recent call last):
        ExplainerError: ...model.onnx...
    """


class CheckpointError(FsagnError):
    """A checkpoint cannot be read, or belongs to another model or other settings.

    Example:
        >>> from pathlib import Path
        >>> from fsagn_onnx.generator import load_checkpoint
        >>> load_checkpoint(Path("model.onnx"))
        Traceback (most recent call last):
        CheckpointError: ...model.onnx...
    """


class OutputError(FsagnError):
    """A result cannot be written.

    Example:
        >>> compare("photos", "photos")
        Traceback (most recent call last):
        OutputError: photos holds no results of 'explain, dissect, perturb': choose another folder
    """


class UsageError(FsagnError):
    """Arguments that contradict each other or are out of range.

    Example:
        >>> compare("run-a", "run-b", level=2)
        Traceback (most recent call last):
        UsageError: level and least must be between 0 and 1, but got 2 and 0.05
    """


class WorkerError(FsagnError):
    """A process that did a share of the work ended before it was done.

    Example:
        >>> issubclass(WorkerError, FsagnError)
        True
    """
