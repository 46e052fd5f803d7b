"""From MODEL_OR_EXPLAINER on the command line to an explainer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..model.graph import Model, load_model
from ..runtime.engine import read_metadata
from ..runtime.explainer import Explainer


@dataclass(frozen=True)
class Opened:
    """What explains, and what the manifest says about it.

    Attributes:
        explainer: ready to explain; to be closed.
        model: the model, where one was given.
        method: ``generator`` for an explainer file, else the training-free method.
        subject: hashes, layer, input and method.
        hint: what could be done better, or None.
    """

    explainer: Explainer
    model: Model | None
    method: str
    subject: dict[str, Any]
    hint: str | None


def open_explainer(
    path: Path,
    *,
    model: Path | None = None,
    layer: str | None = None,
    method: str | None = None,
    preprocess: Path | None = None,
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
) -> Opened:
    """Open an explainer file, or a plain model with a training-free method.

    Args:
        path: an explainer or a plain ONNX model.
        model: the model that an explainer file must belong to.
        layer: for a plain model: the layer; None: its default.
        method: for a plain model: the method; None: the best that is installed.
        preprocess: for a plain model: a JSON file with its input spec.
        providers: see `Session`.
        threads: see `Session`.

    Raises:
        FsagnError: neither of the two, or options that do not fit to it.
    """
    if read_metadata(path) is not None:
        given = {"--layer": layer, "--method": method, "--preprocess": preprocess}
        if extra := [option for option, value in given.items() if value is not None]:
            raise UsageError(f"{', '.join(extra)}: for plain models only, but {path} is an explainer")
        explainer = Explainer(path, providers=providers, threads=threads)
        known = load_model(model) if model is not None else None
        return Opened(explainer, known, "generator", _subject(explainer, path, "generator"), None)
    if model is not None:
        raise UsageError(f"--model: for explainers only, but {path} is a plain model")
    plain = load_model(path, preprocess=preprocess)
    engine = _engine_for()(plain, layer, method, providers=providers, threads=threads)
    name = type(engine.method).__name__.lower()
    explainer = Explainer(engine, providers=providers, threads=threads)
    hint = (
        f"{path.name} is a plain model, explained by '{name}', image by image. Better and faster: train an explainer "
        f"once with 'fsagn-onnx train {path} IMAGES... --layer {engine.metadata.layer} --out explainer.onnx'"
    )
    return Opened(explainer, plain, name, _subject(explainer, path, name), hint)


def _engine_for() -> Callable[..., Any]:
    from ..methods import engine_for

    return engine_for


def _subject(explainer: Explainer, path: Path, method: str) -> dict[str, Any]:
    metadata = explainer.metadata
    with path.open("rb") as file:
        file_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "file_sha256": file_sha256,
        "model_sha256": metadata.model_sha256,
        "layer": metadata.layer,
        "filters_of_layer": metadata.filters,
        "input": metadata.input.to_dict(),
        "method": method,
    }
