"""Which depths' gradients teach evidence maps: measured on the first pictures, before the first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch

from ..model import InputSpec
from ..runtime.infill import VERIFY
from .area import area_rank
from .class_pairs import ClassJudge, share_kept
from .infill import blend
from .options import TrainingOptions
from .pictures import Pictures
from .teacher import GradientTeacher

MEASURED: Final = 16
"""Pictures on which the depths are compared, at most."""

AREAS: Final = (0.05, 0.1, 0.2, 0.4)
"""Areas at which they are."""

WORTH: Final = 0.01
"""A sum of depths is taken if it is better by so much than every single one."""


def choose_teacher(
    judge: ClassJudge, source: Pictures, spec: InputSpec, options: TrainingOptions
) -> GradientTeacher | None:
    """The depths that keep and remove decisions best on some pictures, under blur.

    Every single depth is tried, and the sums of the deepest two, three and so on.

    Args:
        judge: with a teacher of all candidates, or none.
        source: draws the pictures.
        spec: the model's input.
        options: of the training.
    """
    if judge.teacher is None:
        return None
    candidates = judge.teacher.depths
    single = [(depth,) for depth in candidates]
    sums = [candidates[:count] for count in range(2, len(candidates) + 1)]
    scores = {}
    for depths in (*single, *sums):
        trial = ClassJudge(judge.module, judge.decision, judge.layer, replace(judge.teacher, depths=depths))
        scores[depths] = _score(trial, source, spec, options)
    best = max(single, key=lambda depths: scores[depths])
    together = max(sums, key=lambda depths: scores[depths], default=best)
    return replace(judge.teacher, depths=together if scores[together] > scores[best] + WORTH else best)


def _score(judge: ClassJudge, source: Pictures, spec: InputSpec, options: TrainingOptions) -> float:
    """Mean share of the decision kept by the teacher's areas alone, less the share that is left without them."""
    rng = np.random.default_rng([options.seed, 0, 2])
    pixels, _ = source.draw(spec.size, MEASURED, options, rng)
    images = source.normalise(pixels)
    _, asked = judge.ask(images, lambda numbers: numbers.argmax(dim=1, keepdim=True))
    if asked.teacher is None:
        raise AssertionError("a teacher makes maps")
    ranks, owners = area_rank(asked.teacher[:, 0]), torch.arange(len(images), device=images.device)
    infills, _ = source.infills(pixels, owners, {VERIFY: 1.0}, rng)
    ids, value = asked.ids.flatten(), judge.decision.value
    whole = asked.decision.flatten()

    def decided(shown: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return judge.decision.of(judge.module(shown)[value], ids)

    infilled, total = decided(infills), 0.0
    for area in AREAS:
        mask = source.cut(ranks, torch.full((len(images),), area, device=images.device), spec.size)
        for shown, sign in ((mask, 1), (1 - mask, -1)):
            share, told = share_kept(decided(blend(images, infills, shown, spec.layout)), whole, infilled)
            total += sign * float((told * share).sum() / told.sum().clamp_min(1))
    return total / len(AREAS)
