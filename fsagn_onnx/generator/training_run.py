"""`train`: from a model and pictures to an explainer file, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..data.images import list_images
from ..errors import CheckpointError, ConversionError, ExplainerError, ImageError
from ..model import Model, load_model
from ..runtime.classes import classes_of
from ..runtime.metadata import QUESTIONS
from .export import ExportReport, export_explainer, rehearse
from .options import TrainingOptions
from .progress import Progress
from .trainer import Trainer


def checkpoint_path(out: Path) -> Path:
    """Where the checkpoint of an explainer is kept: ``x.onnx`` -> ``x.checkpoint.safetensors``."""
    return out.with_suffix(".checkpoint.safetensors")


def train(
    model: Model | str | Path,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    layer: str | None = None,
    encoder: Literal["shared", "own"] = "shared",
    options: TrainingOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    output: str | None = None,
    scores: str | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_failure: Callable[[Path, str], None] = lambda path, message: None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> ExportReport:
    """Train a mask generator for one conv layer of a model and write it as an explainer file.

    Beside ``out`` it keeps ``*.checkpoint.safetensors`` (from which ``resume=True`` goes on, bit for bit) and
    ``*.checkpoint.log.jsonl``. Before the first step the export is rehearsed with the untrained generator, so that
    what cannot be exported is not trained.

    Args:
        model: an ONNX file, or what `load_model` gave.
        images: files, folders or globs.
        out: the explainer file.
        layer: value name of the conv layer; the model's default where None.
        encoder: ``shared`` (the frozen CNN's taps) or ``own`` (a small encoder; the file then has no model inside).
        options: training options.
        resume: go on from the checkpoint where there is one.
        overwrite: start anew though there is a checkpoint.
        device: torch device that trains.
        output: the model's output that classifies, kept in the explainer; None: found in its graph.
        scores: what its numbers are, kept likewise; None: found.
        on_step: is told the progress after each step.
        on_failure: is told each picture that cannot be read and why; training goes on without it.
        on_phase: is told what is done before the first step and after the last one, in a few words, as it begins.

    Returns:
        How far the file in onnxruntime is from the torch generator.

    Raises:
        FsagnError: one of its children, with a line that says what to do.

    Example:
        >>> from fsagn_onnx.generator import TrainingOptions
        >>> few = TrainingOptions(pairs=8, images_per_step=2)  # a real training sees 40,000
        >>> report = train("model.onnx", ["photos"], "trained.onnx", options=few)
        >>> report.retention < 1e-5  # onnxruntime against torch
        True
    """
    model = model if isinstance(model, Model) else load_model(model)
    model.require_one_input()
    classes_of(model, output, scores)
    out = Path(out)
    on_phase("listing the pictures")
    paths = list(list_images(images))
    if not paths:
        raise ImageError(f"no images in {', '.join(map(str, images))}: name files, folders or globs")
    checkpoint = checkpoint_path(out)
    if checkpoint.exists() and not resume and not overwrite:
        raise CheckpointError(f"{checkpoint} exists: go on from it with --resume, or start anew with --overwrite")

    def ready(options: TrainingOptions) -> Trainer:
        trainer = Trainer(
            model,
            model.layer(layer),
            paths,
            checkpoint,
            encoder=encoder,
            options=options,
            report=on_failure,
            device=device,
            on_phase=on_phase,
            classes={"output": output, "scores": scores} if output or scores else None,
        )
        on_phase("building and running the explainer untrained, before the first step")
        rehearse(model, trainer.generator, (output, scores))
        return trainer

    trainer = _ready(ready, options or TrainingOptions(), on_phase)
    trained = trainer.run(on_step, resume=resume)
    on_phase("writing the explainer and comparing it with torch")
    return export_explainer(model, trained, out)


def _ready(
    make: Callable[[TrainingOptions], Trainer], options: TrainingOptions, on_phase: Callable[[str], None]
) -> Trainer:
    """The trainer, its export rehearsed; where the options leave it open, one about filters alone if need be."""
    try:
        return make(options)
    except (ConversionError, ExplainerError) as error:
        if options.questions is not None:
            raise
        on_phase(f"asking about filters alone: {error}")
    return make(replace(options, questions=QUESTIONS[:1]))
