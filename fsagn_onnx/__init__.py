"""fsagn-onnx: which area of an image does each filter of a high conv layer of a trained CNN look at?

The public names are imported when they are first used, so that `import fsagn_onnx` costs nothing and the
runtime never meets torch:

    load_model    an ONNX file as a `Model`: layers, input, labels
    train         train a mask generator and export it as an explainer file (needs the extra `train`)
    Explainer     an explainer file, ready to explain images
    Explanation   what it answers for one image
    explain_decisions  what a plain model's decisions rest on, at once and without training
    evaluate      measure methods against each other
    dissect       find out which object part each filter stands for
    perturb       see what becomes of the answers when these parts are disturbed
    compare       find what moved between two runs

and `FsagnError` with its children, one line each that says what to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AnnotationError,
    CheckpointError,
    ConversionError,
    ExplainerError,
    FsagnError,
    GradientError,
    ImageError,
    LayerError,
    ModelError,
    OutputError,
    ParityError,
    UsageError,
    WorkerError,
)

if TYPE_CHECKING:
    from .comparison import compare as compare
    from .dissection import dissect as dissect
    from .evaluation import evaluate as evaluate
    from .generator import train as train
    from .model import load_model as load_model
    from .perturbation import perturb as perturb
    from .runtime import Explainer as Explainer
    from .runtime import Explanation as Explanation
    from .runtime import explain_decisions as explain_decisions

__version__ = "0.1.0"

_WHERE = {
    "Explainer": ".runtime",
    "Explanation": ".runtime",
    "compare": ".comparison",
    "dissect": ".dissection",
    "evaluate": ".evaluation",
    "explain_decisions": ".runtime",
    "load_model": ".model",
    "perturb": ".perturbation",
    "train": ".generator",
}

__all__ = [
    "AnnotationError",
    "CheckpointError",
    "ConversionError",
    "Explainer",
    "ExplainerError",
    "Explanation",
    "FsagnError",
    "GradientError",
    "ImageError",
    "LayerError",
    "ModelError",
    "OutputError",
    "ParityError",
    "UsageError",
    "WorkerError",
    "__version__",
    "compare",
    "dissect",
    "evaluate",
    "explain_decisions",
    "load_model",
    "perturb",
    "train",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(where, __name__), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
