"""The training loop: schedule, checkpoints, exact resume, JSON log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from .. import __version__
from ..conversion import check_parity, convert
from ..errors import CheckpointError, ImageError, UsageError
from ..model import Layer, Model
from .batches import ImagePool, fingerprint
from .checkpoint import Checkpoint, load_checkpoint, resumable_part, save_checkpoint
from .class_pairs import ClassJudge
from .config import make_config
from .embedding import filter_embedding
from .network import Generator
from .options import TrainingOptions
from .particular_choice import choose_particular
from .progress import Progress
from .schedule import learning_rate
from .share import ALONE, Share
from .shared_norm import share_norms
from .step import Stepper, read
from .step_memory import first_look, step_memory
from .teacher import teacher_at
from .teacher_choice import choose_teacher
from .training_log import TrainingLog
from .trial import asked_decision, decision_depths, fitting_options, require_answers

LOG_EVERY = 10
CALIBRATION = 64
"""Training images that the checkpoint names, at most, so that an int8 export can be calibrated on them."""


class Trainer:
    """Trains one generator and keeps a checkpoint from which it can go on, bit for bit, after being killed.

    Args:
        model: the CNN.
        layer: the conv layer to explain.
        images: training images.
        checkpoint: where the checkpoint is kept.
        encoder: ``shared`` or ``own``.
        options: training options.
        report: is told each picture that cannot be read and why.
        device: torch device that trains.
        on_phase: is told what is done before the first step, as it begins.
        classes: ``output`` and ``scores`` that the user says the model's outputs are read by; kept in the explainer.
        share: this worker's share of every step, where several train together; the first of them writes the files.

    Raises:
        UsageError: a step does not fit into the memory that is free.
    """

    def __init__(
        self,
        model: Model,
        layer: Layer,
        images: Sequence[Path],
        checkpoint: Path,
        *,
        encoder: Literal["shared", "own"] = "shared",
        options: TrainingOptions | None = None,
        report: Callable[[Path, str], None] = lambda path, message: None,
        device: str = "cpu",
        on_phase: Callable[[str], None] = lambda phase: None,
        classes: Mapping[str, str | None] | None = None,
        share: Share = ALONE,
    ) -> None:
        self._on_phase, self._classes, self.share = on_phase, classes, share
        self.model, self.layer, self.checkpoint = model, layer, checkpoint
        self.log = TrainingLog(checkpoint)
        self.options = options or TrainingOptions()
        self.pool = ImagePool(images, model.input_spec, report)
        decision, self.options = asked_decision(model, layer, encoder, self.options, classes or {})
        classified = decision is not None
        self.config = make_config(model, layer, encoder, classes=classified, particular=self.options.particular or 0.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.options.seed)
            self.generator = Generator(self.config)
        if not share.alone:
            share_norms(self.generator, share)
        on_phase("embedding the filters")
        start = filter_embedding(model, layer, self.config.hidden)
        if start is not None:
            self.generator.embedding.weight.data.copy_(start)
        self.device = torch.device(device)
        self.generator.to(self.device)
        on_phase("converting the model")
        depths = decision_depths(model, layer) if decision is not None and self.options.teacher else ()
        read = () if decision is None else (*depths, decision.value)
        module = convert(model, [*(tap.value for tap in self.config.taps), *read], check=False)
        if share.alone and self.device.type == "cpu":
            memory = step_memory(lambda: module, model, self.options, classes=decision is not None)
            if memory is not None and memory.fitting < memory.images:
                raise UsageError(str(memory))
        check_parity(model, module)
        module.to(self.device)
        self.options = fitting_options(module, model.input_spec, self.options, self.device)
        teacher = teacher_at(depths, self.generator)
        judge = None if decision is None else ClassJudge(module, decision, layer.value, teacher)
        self.stepper = Stepper(module, self.generator, self.pool, model.input_spec, self.options, judge, share=share)
        self.optimiser = self._adam(self.generator.parameters())
        self.judging, self.step, self.seconds = False, 0, 0.0
        self._live = self.generator.state_dict()  # the tensors themselves: whatever is loaded is copied into them
        self.average = {name: value.detach().clone() for name, value in self._live.items()}
        self.running: dict[str, float] = {}

    def calibrate(self) -> None:
        """Scale the encoder by a first batch, and choose the depths whose gradients teach; once, before step 0."""
        depths = self.share.once(self._calibrated)
        if (judge := self.stepper.classes) is not None:
            judge.teacher = teacher_at(tuple(depths), self.generator)
        self._join()  # all workers go on with the first one's scales
        self.average = {name: value.detach().clone() for name, value in self.generator.state_dict().items()}

    def _calibrated(self) -> list[str]:
        full = replace(self.options, images_per_step=first_look(self.model, self.options))
        spec, source = self.model.input_spec, self.stepper.source
        stepper = Stepper(self.stepper.module, self.generator, self.pool, spec, full, source=source)
        taps = stepper.see(0, full, self.model.input_spec.size).taps
        require_answers(taps[self.layer.value], self.layer.value, self.model.path.name)
        self.generator.encoder.calibrate(taps)
        teacher = choose_teacher(judge, source, spec, self.options) if (judge := self.stepper.classes) else None
        return [] if teacher is None else list(teacher.depths)

    def _join(self) -> None:
        """From here on the gradients of the weights that learn are those of all workers' pairs."""
        learning = set(self.generator.retention_parameters() if self.judging else self.generator.parameters())
        for parameter in self.generator.parameters():
            parameter.requires_grad_(self.share.alone or parameter in learning)
        self.stepper.network = self.share.joined(self.generator)

    def advance(self) -> None:
        """One step of the optimiser.

        Raises:
            ImageError: the loss is not a number; the weights are as before.
        """
        if self.step >= self.options.steps and not self.judging:
            self._finish_masks()
        rate = learning_rate(self.options, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.generator.training == self.judging:
            self.generator.train(not self.judging)
        result = self.stepper.judge(self.step) if self.judging else self.stepper(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        result.loss.backward()  # type: ignore[no-untyped-call]
        figures = read({"loss": result.loss, **result.figures})  # the one wait for the device, its work queued
        if not math.isfinite(figures.get("loss", math.nan)):
            raise ImageError(
                f"step {self.step + 1}: the loss is not a number, so training stops here and its weights are as "
                f"before; look at the pictures of this step: {', '.join(self.stepper.pictures())}"
            )
        nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        taken = self.step - self.options.steps if self.judging else self.step
        decay = min(self.options.average, taken / (taken + 10))
        self._average(decay)
        for name in ("retention", "area", "kept", "removed") if self.judging else ():
            figures.pop(name, None)
        for name, figure in figures.items():
            self.running[name] = figure if name not in self.running else 0.98 * self.running[name] + 0.02 * figure

    def _average(self, decay: float) -> None:
        live = self._live
        moving = [name for name, value in live.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in moving], [live[name] for name in moving], 1 - decay)
        for name in live.keys() - set(moving):
            self.average[name].copy_(live[name])

    def _chosen_particular(self) -> float:
        mine = self.stepper
        alone = mine if self.share.alone else Stepper(mine.module, self.generator, self.pool, mine.spec, self.options)
        return choose_particular(alone, self.options, first_look(self.model, self.options), self._on_phase)

    def _adam(self, parameters: Iterator[nn.Parameter]) -> torch.optim.AdamW:
        return torch.optim.AdamW(parameters, lr=self.options.learning_rate, fused=True)

    def _finish_masks(self, particular: float | None = None) -> None:
        """From here on the averaged weights are the generator's, and only the retention head learns.

        ``particular``: what was chosen before, where this was done before.
        """
        self.generator.load_state_dict(self.average)
        if self.options.particular is None:
            found = self.share.once(self._chosen_particular) if particular is None else particular
            self.config = self.generator.config = replace(self.config, particular=found)
        self.optimiser = self._adam(self.generator.retention_parameters())
        self.judging = True
        self._join()

    def run(self, on_step: Callable[[Progress], None] = lambda progress: None, *, resume: bool = False) -> Checkpoint:
        """Train to the end, or go on from the checkpoint.

        Args:
            on_step: is told the progress after each step.
            resume: go on from the checkpoint where there is one.

        Returns:
            The final checkpoint.

        Raises:
            CheckpointError: if the checkpoint is of another model, layer, options or images.
            ImageError: if no training image can be read.
            OutputError: if the checkpoint cannot be written.
        """
        if self.share.once(lambda: resume and self.checkpoint.exists()):
            self.restore(load_checkpoint(self.checkpoint))
            self._join()
        else:
            self._on_phase("first look at the pictures")
            self.calibrate()
            self.share.once(self.save)
        self.share.once(lambda: self.log.trim(self.step))
        self._on_phase("first step")
        started, first, before = time.monotonic(), self.step, self.seconds
        steps = self.options.steps + self.options.judging
        while self.step < steps:
            self.advance()
            self.seconds = before + time.monotonic() - started
            on_step(self.progress((self.step - first) / max(1e-9, time.monotonic() - started)))
            if self.step % LOG_EVERY == 0 or self.step == steps:
                self.share.once(self._log)
            if self.step % self.options.checkpoint_every == 0 or self.step == steps:
                self.share.once(self.save)
        return self.snapshot()

    def progress(self, steps_per_second: float) -> Progress:
        """Where the run stands, at a speed in steps per second."""
        per_step = self.options.images_per_step * self.options.filters_per_image
        steps = self.options.steps + self.options.judging
        return Progress(
            step=self.step,
            steps=steps,
            pairs=min(self.step, self.options.steps) * per_step,
            pairs_per_second=steps_per_second * per_step,
            retention=self.running.get("retention", 0.0),
            calibration=self.running.get("calibration", 0.0),
            loss=self.running.get("loss", 0.0),
            judging=self.judging,
            seconds_left=(steps - self.step) / max(steps_per_second, 1e-9),
        )

    def snapshot(self) -> Checkpoint:
        """The run as it stands."""
        tensors = {f"weights/{name}": value for name, value in self.average.items()}
        tensors |= {f"live/{name}": value for name, value in self.generator.state_dict().items()}
        for name, parameter in self.generator.named_parameters():
            state = self.optimiser.state.get(parameter)
            if state:
                tensors[f"moment1/{name}"], tensors[f"moment2/{name}"] = state["exp_avg"], state["exp_avg_sq"]
        return Checkpoint(self._description(), tensors)

    def _description(self) -> dict[str, Any]:
        spec, judge = self.model.input_spec, self.stepper.classes
        return {
            "tool": f"fsagn-onnx {__version__}",
            "content": self.model.content,
            "input": spec.to_dict(),
            "labels": list(self.model.labels) if self.model.labels else None,
            "generator": self.config.to_dict(),
            "options": self.options.to_dict(),
            "images": fingerprint(self.pool.paths),
            "calibration": [str(path.absolute()) for path in self.pool.paths[:: len(self.pool) // CALIBRATION + 1]],
            "step": self.step,
            "running": self.running,
            "training": {
                "images": len(self.pool),
                "pairs": min(self.step, self.options.steps)
                * self.options.images_per_step
                * self.options.filters_per_image,
                "seconds": round(self.seconds, 1),
                "retention": round(self.running.get("retention", 0.0), 4),
                "calibration": round(self.running.get("calibration", 0.0), 4),
                **({"classes": dict(self._classes)} if self._classes else {}),
                **({"teacher": list(judge.teacher.depths)} if judge is not None and judge.teacher is not None else {}),
            },
        }

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        save_checkpoint(self.checkpoint, self.snapshot())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up a run where a checkpoint left it.

        Another number of pairs is allowed: learning rate and input sizes then follow the new schedule from here on.

        Raises:
            CheckpointError: if the checkpoint is of another model, layer, options or images.
        """
        mine, theirs = self._description(), checkpoint.description
        what = {
            "content": "another model",
            "generator": "another layer or encoder",
            "options": "other options",
            "images": "other images",
        }
        for key, name in what.items():
            if resumable_part(key, json.loads(json.dumps(mine[key]))) != resumable_part(key, theirs.get(key, {})):
                raise CheckpointError(
                    f"{self.checkpoint} was made with {name}, so this run cannot go on from it; "
                    "give the same arguments, or another --out to start anew"
                )
        try:
            self.generator.load_state_dict(checkpoint.group("live"))
            weights = checkpoint.group("weights")
            self.average = {name: weights[name].to(self.device).clone() for name in self.average}
            self.step, self.running = int(theirs["step"]), dict(theirs["running"])
            self.seconds = float(theirs["training"]["seconds"])
            if (judge := self.stepper.classes) is not None:
                judge.teacher = teacher_at(tuple(theirs["training"].get("teacher") or ()), self.generator)
            masks = TrainingOptions.from_dict(theirs["options"]).steps
            if self.step > masks == self.options.steps:
                self._finish_masks(float(theirs["generator"].get("particular", 0.0)))
                self.generator.load_state_dict(checkpoint.group("live"))
            self.step = min(self.step, masks) if masks != self.options.steps else self.step
            self._restore_moments(checkpoint)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.checkpoint} cannot be resumed: {error}".splitlines()[0]) from error

    def _restore_moments(self, checkpoint: Checkpoint) -> None:
        first, second = checkpoint.group("moment1"), checkpoint.group("moment2")
        taken = self.step - self.options.steps if self.judging else self.step
        for name, parameter in self.generator.named_parameters():
            if name in first:
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(taken), device=self.device),
                    "exp_avg": first[name].to(self.device).clone(),
                    "exp_avg_sq": second[name].to(self.device).clone(),
                }

    def _log(self) -> None:
        line = {"step": self.step, "seconds": round(self.seconds, 1)}
        self.log.write(line | {name: round(figure, 5) for name, figure in self.running.items()})
