"""Where a training stands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done.
        steps: steps in all.
        pairs: pairs seen.
        pairs_per_second: since the run (or its resumption) started.
        retention: running mean of the retention under soft masks.
        calibration: running mean of |predicted - true| retention under blur.
        loss: running mean of the loss.
        seconds_left: at the present speed.
        judging: the masks are done; the retention head learns by itself.
    """

    step: int
    steps: int
    pairs: int
    pairs_per_second: float
    retention: float
    calibration: float
    loss: float
    seconds_left: float
    judging: bool
