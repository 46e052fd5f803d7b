"""`train`: from a model and pictures to an explainer file, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from ..data.images import list_images
from ..errors import CheckpointError, ExplainerError, ImageError, UsageError
from ..model import Model, load_model
from ..runtime.classes import classes_of
from ..runtime.trust_measurement import MOST_PICTURES, PAIRS_PER_PICTURE
from .batches import fingerprint
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .export import ExportReport, export_explainer
from .left_out import add_trust, leave_out
from .options import TrainingOptions
from .progress import Progress
from .training_job import Listeners, TrainingJob, run_job


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
    devices: int = 1,
    elsewhere: Callable[[TrainingJob, Listeners], None] | None = None,
    output: str | None = None,
    scores: str | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_failure: Callable[[Path, str], None] = lambda path, message: None,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> ExportReport:
    """Train a mask generator for one conv layer of a model and write it as an explainer file.

    Beside ``out`` it keeps ``*.checkpoint.safetensors`` (from which ``resume=True`` goes on, bit for bit) and
    ``*.checkpoint.log.jsonl``. Before the first step the export is rehearsed with the untrained generator, so that
    what cannot be exported is not trained. Of 32 pictures or more, and where 4,000 pairs or more are seen, up to an
    eighth is left out: on these the finished explainer is measured (`Trust`).

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
        devices: processes of this machine that share every step, each on a device of its own (``cpu``: with a share of
            torch's threads). They see the same pairs as one, so the weights agree up to the order of summation. As
            with every use of `multiprocessing`, a script calls this under ``if __name__ == "__main__"``.
        elsewhere: trains in place of this process, such as `scale.training.train_on_cluster`; the checkpoint then holds
            the result.
        output: the model's output that classifies, kept in the explainer; None: found in its graph.
        scores: what its numbers are, kept likewise; None: found.
        on_step: is told the progress after each step.
        on_failure: is told each picture that cannot be read and why; training goes on without it.
        on_phase: is told what is done where no steps are, in a few words, as it begins.

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
    if devices < 1:
        raise UsageError(f"devices must be at least 1, but got {devices}")
    classes_of(model, output, scores)
    out = Path(out)
    on_phase("listing the pictures")
    paths = list(list_images(images))
    if not paths:
        raise ImageError(f"no images in {', '.join(map(str, images))}: name files, folders or globs")
    checkpoint = checkpoint_path(out)
    settings = options or TrainingOptions()
    paths, left_out = _split(paths, settings.pairs, checkpoint if resume else None)
    if checkpoint.exists() and not resume and not overwrite:
        raise CheckpointError(f"{checkpoint} exists: go on from it with --resume, or start anew with --overwrite")

    job = TrainingJob(model, layer, tuple(paths), checkpoint, encoder, settings, device, output, scores, resume)
    listeners = Listeners(on_step, on_failure, on_phase)
    if elsewhere is None and devices == 1:
        trained = run_job(job, listeners)
    else:
        from .devices import check_devices, run_on_devices  # torch's launcher takes its time to import

        check_devices(job, devices)
        if elsewhere is None:
            run_on_devices(job, devices, listeners)
        else:
            elsewhere(job, listeners)
        trained = load_checkpoint(checkpoint)
    on_phase("writing the explainer and comparing it with torch")
    report, trained = _exported(model, trained, out, settings, on_phase)
    if left_out:
        on_phase("measuring the explainer on pictures left out of the training")
    add_trust(model, out, left_out, checkpoint, trained)
    return report


def _exported(
    model: Model, trained: Checkpoint, out: Path, options: TrainingOptions, on_phase: Callable[[str], None]
) -> tuple[ExportReport, Checkpoint]:
    """Write the explainer; without what is particular to its filters where that is nobody's wish and cannot be proven.

    Cells are put into two groups at a bound, so a cell just there may be in another one in onnxruntime than in torch.
    """
    try:
        return export_explainer(model, trained, out), trained
    except ExplainerError as error:
        described = trained.description
        if options.particular is not None or not described["generator"]["particular"]:
            raise
        on_phase(f"writing it without what is particular to its filters: {error}")
        plain = {**described, "generator": {**described["generator"], "particular": 0.0}}
        checkpoint = Checkpoint(plain, trained.tensors)
    report = export_explainer(model, checkpoint, out)
    save_checkpoint(checkpoint_path(out), checkpoint)
    return report, checkpoint


def _split(paths: list[Path], pairs: int, checkpoint: Path | None) -> tuple[list[Path], list[Path]]:
    """Pictures to train on and to leave out; a run that goes on keeps to what it began with."""
    if checkpoint is not None and checkpoint.exists():
        begun = load_checkpoint(checkpoint).description.get("images")
        for count in range(MOST_PICTURES, -1, -1):
            one = leave_out(paths, count * PAIRS_PER_PICTURE)
            if fingerprint(one[0]) == begun:
                return one
    return leave_out(paths, pairs)
