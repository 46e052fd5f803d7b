"""What a training has to do, and one worker's part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import ConversionError, ExplainerError
from ..model import Model
from ..runtime.metadata import QUESTIONS
from .checkpoint import Checkpoint
from .export import rehearse
from .options import TrainingOptions
from .progress import Progress
from .share import ALONE, Share
from .trainer import Trainer


@dataclass(frozen=True)
class TrainingJob:
    """A training, as a worker of any process needs it.

    Attributes:
        model: the CNN.
        layer: value name of the conv layer; the model's default where None.
        images: training images.
        checkpoint: where the checkpoint is kept.
        encoder: ``shared`` or ``own``.
        options: training options.
        device: torch device that trains; with several workers ``cuda`` stands for one device each.
        output: the model's output that classifies; None: found in its graph.
        scores: what its numbers are; None: found.
        resume: go on from the checkpoint where there is one.
    """

    model: Model
    layer: str | None
    images: tuple[Path, ...]
    checkpoint: Path
    encoder: Literal["shared", "own"]
    options: TrainingOptions
    device: str
    output: str | None
    scores: str | None
    resume: bool


@dataclass(frozen=True)
class Listeners:
    """Who is told how far a training is.

    Attributes:
        on_step: is told the progress after each step.
        on_failure: is told each picture that cannot be read and why; training goes on without it.
        on_phase: is told what is done where no steps are, in a few words, as it begins.
    """

    on_step: Callable[[Progress], None] = lambda progress: None
    on_failure: Callable[[Path, str], None] = lambda path, message: None
    on_phase: Callable[[str], None] = lambda phase: None


def run_job(job: TrainingJob, listeners: Listeners, share: Share = ALONE) -> Checkpoint:
    """Train, as one of the workers that share the pictures of every step.

    Args:
        job: what is trained.
        listeners: are told how far it is.
        share: this worker's.

    Returns:
        The final checkpoint.

    Raises:
        FsagnError: one of its children, with a line that says what to do.
    """
    named = {"output": job.output, "scores": job.scores}

    def ready(options: TrainingOptions) -> Trainer:
        trainer = Trainer(
            job.model,
            job.model.layer(job.layer),
            job.images,
            job.checkpoint,
            encoder=job.encoder,
            options=options,
            report=listeners.on_failure,
            device=job.device,
            on_phase=listeners.on_phase,
            classes=named if job.output or job.scores else None,
            share=share,
        )
        listeners.on_phase("building and running the explainer untrained, before the first step")
        share.once(lambda: rehearse(job.model, trainer.generator, (job.output, job.scores)))
        return trainer

    return _ready(ready, job.options, listeners.on_phase).run(listeners.on_step, resume=job.resume)


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
