"""The learning rate of every step."""

from __future__ import annotations

import math
from typing import Final

from .options import TrainingOptions

WARM_UP: Final = 0.05
"""Share of the steps in which the rate rises."""


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
