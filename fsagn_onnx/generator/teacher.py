"""Gradient x activation as a teacher of evidence maps: at the depth, or the sum of depths, that measures best.

Which depth shows best what a decision rests on hangs on the network and on its pictures (the second convolution on
boards, several depths together on photographs), so it is measured before the first step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from ..runtime.infill import VERIFY
from ..runtime.masks import grid_of
from .area import area_rank, standardise
from .infill import blend
from .network import Generator, resize_area, smoothed

if TYPE_CHECKING:
    from .step import Stepper

MEASURED: Final = 16
"""Pictures on which the depths are compared, at most."""

AREAS: Final = (0.05, 0.1, 0.2, 0.4)
"""Areas at which they are."""

WORTH: Final = 0.01
"""A sum of depths is taken if it is better by so much than every single one."""


@dataclass(frozen=True)
class GradientTeacher:
    """Which maps teach.

    Attributes:
        depths: tapped values, deepest first; their maps are added up, each over its largest value.
        layout: of the model's input.
        stride: of the evidence maps' grid.
        kernel: ``(1, 1, 5, 5)``, smooths as the generator's maps are smoothed.
    """

    depths: tuple[str, ...]
    layout: str
    stride: int
    kernel: Tensor

    @property
    def finest(self) -> str:
        """The depth that all others, and the explained layer, are computed from."""
        return self.depths[-1]

    def map(self, images: Tensor, feature_maps: list[Tensor], gradients: list[Tensor]) -> Tensor:
        """The positive part of sum_k F_k dd/dF_k of each depth, over its largest value; the mean over depths.

        Args:
            images: ``(N, ...)``.
            feature_maps: ``(N, C_i, h_i, w_i)`` of each depth.
            gradients: ``(N, J, C_i, h_i, w_i)`` likewise.

        Returns:
            ``(N, J, h, w)`` on the evidence maps' grid, smoothed.
        """
        rows, columns = (-2, -1) if self.layout == "NCHW" else (-3, -2)
        grid, maps = grid_of((images.shape[rows], images.shape[columns]), self.stride), []
        for features, gradient in zip(feature_maps, gradients, strict=True):
            found = resize_area((features[:, None] * gradient).sum(dim=2).clamp_min(0), grid)
            found = smoothed(found, self.kernel)
            maps.append(found / found.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12))
        return torch.stack(maps).mean(dim=0)


def teaching_loss(evidence: Tensor, teacher: Tensor) -> Tensor:
    """1 - correlation of evidence with its teacher, both ``(N, J, h, w)``; the mean over all."""
    return (1 - (standardise(evidence) * standardise(teacher)).mean(dim=(-2, -1))).mean()


def teacher_at(depths: tuple[str, ...], generator: Generator) -> GradientTeacher | None:
    """A teacher of a generator's evidence maps at some depths, deepest first; None at none."""
    config = generator.config
    return GradientTeacher(depths, config.layout, config.stride, generator.get_buffer("kernel")) if depths else None


def choose_teacher(stepper: Stepper) -> GradientTeacher:
    """The depths, of the stepper's teacher, that keep and remove decisions best on its first pictures, under blur.

    Every single depth is tried, and the sums of the deepest two, three and so on.

    Args:
        stepper: with a teacher of all candidates.
    """
    judge = stepper.classes
    if judge is None or judge.teacher is None:
        raise AssertionError("no candidates to choose a teacher from")
    candidates = judge.teacher.depths
    single = [(depth,) for depth in candidates]
    sums = [candidates[:count] for count in range(2, len(candidates) + 1)]
    scores = {depths: _score(stepper, replace(judge.teacher, depths=depths)) for depths in (*single, *sums)}
    best = max(single, key=lambda depths: scores[depths])
    together = max(sums, key=lambda depths: scores[depths], default=best)
    chosen = together if scores[together] > scores[best] + WORTH else best
    return replace(judge.teacher, depths=chosen)


def _score(stepper: Stepper, teacher: GradientTeacher) -> float:
    """Mean share of the decision kept by the teacher's areas alone, less the share that is left without them."""
    from .class_pairs import ClassJudge

    known = stepper.classes
    if known is None:
        raise AssertionError("no classes are asked about")
    judge = ClassJudge(known.module, known.decision, known.layer, teacher)
    size, options = stepper.spec.size, replace(stepper.options, images_per_step=MEASURED)
    rng = np.random.default_rng([options.seed, 0, 2])
    pixels, _ = stepper.source.draw(size, MEASURED, options, rng)
    images = stepper.source.normalise(pixels)
    _, asked = judge.ask(images, lambda numbers: numbers.argmax(dim=1, keepdim=True))
    if asked.teacher is None:
        raise AssertionError("a teacher makes maps")
    ranks = area_rank(asked.teacher[:, 0])
    owners = torch.arange(len(images), device=images.device)
    infills, _ = stepper.source.infills(pixels, owners, {VERIFY: 1.0}, rng)
    total = 0.0
    for area in AREAS:
        mask = stepper.source.cut(ranks, torch.full((len(images),), area, device=images.device), size)
        for shown, sign in ((mask, 1), (1 - mask, -1)):
            with torch.no_grad():
                response = judge.module(blend(images, infills, shown, teacher.layout))
            share, told = judge.shares(response, infills, asked, 0)
            total += sign * float((told * share).sum() / told.sum().clamp_min(1))
    return total / len(AREAS)
