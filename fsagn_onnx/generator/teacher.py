"""Gradient x activation as a teacher of evidence maps: at the depth, or the sum of depths, that measures best.

Which depth shows best what a decision rests on hangs on the network and on its pictures (the second convolution on
boards, several depths together on photographs), so it is measured before the first step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..runtime.masks import grid_of
from .area import standardise
from .network import Generator, resize_area, smoothed


@dataclass(frozen=True)
class GradientTeacher:
    """Which maps teach.

    Attributes:
        depths: tapped values, deepest first; their maps are added up, each over its largest value.
        layout: of the model's input.
        stride: of the evidence maps' grid.
        kernel: ``(1, 1, 5, 5)``, smooths as the generator's maps are while it learns.
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
    return (
        GradientTeacher(depths, config.layout, config.stride, generator.get_buffer("learning_kernel"))
        if depths
        else None
    )
