"""From MODEL_OR_EXPLAINER on the command line to an explainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..model.content_hash import file_hash
from ..model.model import Model, load_model
from ..runtime.classes import classes_of
from ..runtime.depth_choice import choose_depth
from ..runtime.engine import EngineMetadata
from ..runtime.evidence import PlainEvidence
from ..runtime.explainer import Explainer
from ..runtime.file_engine import read_metadata
from ..runtime.metadata import ExplainerMetadata
from ..runtime.stream import Frame, Prepared, prepare
from ..runtime.trust import verdict

USUAL_FILTERS: Final = 5
"""Filters per image that `explain` asks for unless told."""
PATIENCE: Final = 60.0
"""Seconds per image from which the cost is said beforehand."""


@dataclass(frozen=True)
class Opened:
    """What explains, and what the manifest says about it.

    Attributes:
        explainer: ready to explain; to be closed.
        model: the model, where one was given.
        method: ``generator`` for an explainer file, else the training-free method.
        subject: hashes, layer, input and method.
        hints: what could be done better, and what was guessed.
    """

    explainer: Explainer
    model: Model | None
    method: str
    subject: dict[str, Any]
    hints: tuple[str, ...] = ()


def open_explainer(
    path: Path,
    *,
    model: Path | None = None,
    layer: str | None = None,
    method: str | None = None,
    refine: int = 0,
    preprocess: Path | None = None,
    image: str | None = None,
    feeds: Iterable[str] = (),
    labels: Path | None = None,
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
    output: str | None = None,
    scores: str | None = None,
    detections: str | None = None,
    why: bool = False,
    pictures: Sequence[Path | Frame] = (),
    contributions: str = "zero",
) -> Opened:
    """Open an explainer file, or a plain model with a training-free method.

    Args:
        path: an explainer or a plain ONNX model.
        model: the model that an explainer file must belong to.
        layer: for a plain model: the layer; None: its default.
        method: for a plain model: the method; None: the best that is installed.
        refine: for an explainer: steps of optimisation from its map; needs ``model``.
        preprocess: for a plain model: a JSON file with its input spec.
        image: for a plain model, or ``model``: name of the image input.
        feeds: likewise: constants for its other inputs, see `load_model`.
        labels: a file with names of the classes, see `read_class_names`; None: the file's own.
        providers: see `Session`.
        threads: see `Session`.
        output: the model's output that classifies; None: found in its graph.
        scores: what its numbers are; None: found.
        detections: layout of a detector's boxes, see `Explainer`; None: found.
        why: for a plain model: what its decisions rest on, by gradients in its own graph, without torch.
        pictures: for ``why``: the first pictures, on which the depth of the gradients is chosen.
        contributions: what filters are against: ``zero``, or their ``mean`` over the first pictures.

    Raises:
        FsagnError: neither of the two, or options that do not fit to it.
    """
    if read_metadata(path) is not None:
        if contributions != "zero":
            raise UsageError(
                f"--contributions {contributions}: {path} holds no means of its filters over training pictures and "
                "tells contributions against 0; the plain model with --why takes them over the first pictures"
            )
        given: dict[str, object] = {"--layer": layer, "--method": method, "--preprocess": preprocess}
        if model is None:
            given |= {"--input": image, "--feed": list(feeds) or None}
        if extra := [option for option, value in given.items() if value is not None]:
            raise UsageError(f"{', '.join(extra)}: for plain models only, but {path} is an explainer")
        read: dict[str, Any] = {"output": output, "scores": scores, "labels": labels, "detections": detections}
        explainer = Explainer(path, providers=providers, threads=threads, **read)
        known = load_model(model, image=image, feeds=feeds) if model is not None else None
        name = "generator"
        if refine:
            name = f"generator+refine{refine}"
            explainer = _refined(explainer, known, path, refine, providers, threads, read)
        hints = (*_read_as(explainer), *_guessed(explainer, path))
        return Opened(explainer, known, name, _subject(explainer, path, name), hints)
    if refine:
        raise UsageError(f"--refine: for explainers only, but {path} is a plain model")
    if model is not None:
        raise UsageError(f"--model: for explainers only, but {path} is a plain model")
    plain = load_model(path, preprocess=preprocess, image=image, feeds=feeds, labels=labels)
    plain.require_one_input()
    if why:
        if method is not None:
            raise UsageError(f"--method {method}: not with --why, which takes the gradients of the decision")
        classes = classes_of(plain, output, scores).chosen(detections=detections)
        engine_of_why = PlainEvidence(plain, layer, classes=classes, providers=providers, threads=threads)
        return _evidence(plain, engine_of_why, pictures, contributions)
    if contributions != "zero":
        raise UsageError(f"--contributions {contributions}: only with --why, which tells contributions")
    engine = _engine_for()(plain, layer, method, providers=providers, threads=threads)
    name = engine.method.name
    explainer = Explainer(
        engine, providers=providers, threads=threads, output=output, scores=scores, detections=detections
    )
    better = (
        f"{path.name} is a plain model, explained by '{name}', image by image. Better and faster: train an explainer "
        f"once with 'fsagn-onnx train {path} IMAGES... --layer {engine.metadata.layer} --out explainer.onnx'"
        + (". What the decision rests on, at once: --why" if explainer.classes else "")
    )
    slow = _slow(name, engine.seconds_per_image(USUAL_FILTERS))
    hints = tuple(
        line for line in (plain.training_mode, plain.group_warning, plain.guess_warning, slow, better) if line
    )
    return Opened(explainer, plain, name, _subject(explainer, path, name), (*_read_as(explainer), *hints))


def _slow(method: str, seconds: float) -> str | None:
    """A line where one image takes minutes, before they are spent."""
    if seconds < PATIENCE:
        return None
    return (
        f"'{method}' takes about {seconds / 60:.0f} minutes here for {USUAL_FILTERS} filters of one image; "
        "'--method activation' takes one pass"
    )


def _evidence(model: Model, engine: PlainEvidence, pictures: Sequence[Path | Frame], contributions: str) -> Opened:
    """A plain model asked what its decisions rest on; the depth is chosen on the first pictures."""
    sources = [(one.name, one.pixels) if isinstance(one, Frame) else (str(one), one) for one in pictures]
    prepared = (prepare(source, model.input_spec, preview=False) for source in sources)
    ready = [found for found in prepared if isinstance(found, Prepared)]
    choice = choose_depth(engine, [found.pixels for found in ready])
    against = None
    if contributions == "mean":
        engine.against_means(found.values[None] for found in ready)
        against = f"contributions are against each filter's mean over the first {len(ready)} pictures"
    providers, threads = engine.session_options
    explainer = Explainer(engine, providers=providers, threads=threads)
    better = (
        "the areas are those of gradients. An explainer, trained once with 'fsagn-onnx train "
        f"{model.path} IMAGES... --out explainer.onnx', also predicts how much each area keeps, and answers in one pass"
    )
    hints = tuple(line for line in (model.training_mode, model.guess_warning, str(choice), against, better) if line)
    subject = {**_subject(explainer, model.path, "evidence"), "evidence_depths": list(choice.depths)}
    if against is not None:
        subject["contributions"] = contributions
    return Opened(explainer, model, "evidence", subject, (*_read_as(explainer), *hints))


def _read_as(explainer: Explainer) -> tuple[str, ...]:
    """What of the model's outputs is not shown, and why; nothing where a class is."""
    found = explainer.classes.classifier
    hints = [f"output {_listed(found.left_out)} is a sequence or map, no array: left out"] if found.left_out else []
    detector, segments = explainer.classes.detector, explainer.classes.class_map
    if detector is not None:
        hints.append(f"boxes are read as {detector.layout} ({detector.reason}); correct it with --detections")
    elif segments is not None:
        guess = ", a guess" if segments.guessed else ""
        hints.append(
            f"output '{segments.output}' is read as a map of classes{guess} ({segments.reason}); "
            "--detections none if it is something else"
        )
    elif found.heads:
        hints.append(f"{found.reason}; each is shown by its own name")
    elif found.outputs and not explainer.classes:
        hints.append(f"no class is shown: {found.reason}")
    if found.guessed:
        hints.append(
            f"output '{found.output}' is read as {found.scores} of classes, a guess: nothing but its form says so; "
            "--scores none if it is something else"
        )
    return tuple(hints)


def _guessed(explainer: Explainer, path: Path) -> tuple[str, ...]:
    """A line about what was guessed of the input when the explainer was trained; nothing where nothing was."""
    guessed = explainer.metadata.input.guessed
    if not guessed:
        return ()
    return (
        f"{path.name} rests on a guess of what its model expects: {', '.join(guessed)}; if it is wrong, train "
        "anew with --preprocess",
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _refined(
    explainer: Explainer,
    model: Model | None,
    path: Path,
    steps: int,
    providers: str | Sequence[str],
    threads: int | None,
    read: Mapping[str, Any],
) -> Explainer:
    if model is None:
        raise UsageError(f"--refine: give the model that {path} was made for (--model MODEL)")
    from ..methods.refine import RefinedEngine

    engine = RefinedEngine(explainer.engine, model, steps, providers, threads)
    return Explainer(engine, providers=providers, threads=threads, **read)


def _engine_for() -> Callable[..., Any]:
    from ..methods import engine_for

    return engine_for


def _found(explainer: Explainer) -> dict[str, Any]:
    """How boxes or a map are read: a member of the manifest where there are any."""
    detector, segments = explainer.classes.detector, explainer.classes.class_map
    if detector is not None:
        return {"detections": {"layout": detector.layout, "outputs": dict(detector.roles), "classes": detector.classes}}
    if segments is not None:
        return {"segments": {"output": segments.output, "kind": segments.kind, "classes": segments.classes}}
    return {}


def _trust(metadata: EngineMetadata) -> dict[str, Any]:
    """How good an explainer file is for its network, in words; nothing of other methods."""
    if not isinstance(metadata, ExplainerMetadata):
        return {}
    return {"trust": verdict(metadata.trust, metadata.training)}


def _subject(explainer: Explainer, path: Path, method: str) -> dict[str, Any]:
    metadata = explainer.metadata
    guessed = metadata.input.guessed
    return {
        "sha256": file_hash(path),
        "content": metadata.content,
        "layer": metadata.layer,
        "filters_of_layer": metadata.filters,
        "input": metadata.input.to_dict(),
        "method": method,
        **_trust(explainer.metadata),
        **_found(explainer),
        **({"guessed_input": list(guessed)} if guessed else {}),
    }
