"""The learning rate and the input size of every step."""

from __future__ import annotations

import math
from typing import Final

from ..model import InputSpec
from .options import TrainingOptions

WARM_UP: Final = 0.05
"""Share of the steps in which the rate rises."""

SMALLEST: Final = 128
"""Least edge in pixels of a smaller input: a layer of stride 32 then still has 4 cells each way."""


def learning_rate(options: TrainingOptions, step: int) -> float:
    """Linear warm-up over 5 % of the steps, then a cosine to zero; the same again for the retention head alone."""
    steps = options.steps
    if step >= steps:
        step, steps = step - steps, options.judging
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return options.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def input_sizes(spec: InputSpec, options: TrainingOptions) -> tuple[tuple[int, int], ...]:
    """All input sizes of a run, the model's own first, each once."""
    return tuple(dict.fromkeys([spec.size, *(_scaled(spec, scale) for share, scale in options.ramp if share > 0)]))


def _scaled(spec: InputSpec, scale: float) -> tuple[int, int]:
    height, width = (max(SMALLEST, round(edge * scale / 32) * 32) for edge in spec.size)
    return min(height, spec.size[0]), min(width, spec.size[1])


def input_size(spec: InputSpec, options: TrainingOptions, step: int) -> tuple[int, int]:
    """Fewer pixels first: this step's input, a multiple of 32 and at least 128 each way, or the model's own size."""
    end = 0.0
    for share, scale in options.ramp:
        end += share * options.steps
        if step < end:
            return _scaled(spec, scale)
    return spec.size
