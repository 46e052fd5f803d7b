"""Timing in pairs: on a shared machine only ratios taken back to back mean something."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a list of figures."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: NDArray[np.float64]) -> Spread:
        """Summarise."""
        low, median, high = np.quantile(figures, [0.25, 0.5, 0.75]).tolist()
        return cls(median, low, high)


def timed(calls: list[Callable[[], Any]], rounds: int, warm: int = 3) -> NDArray[np.float64]:
    """Seconds of each call in each round, the calls taking turns: (rounds, calls)."""
    seconds = np.empty((rounds, len(calls)))
    for number in range(-warm, rounds):
        for place, call in enumerate(calls):
            started = time.perf_counter()
            call()
            if number >= 0:
                seconds[number, place] = time.perf_counter() - started
    return seconds


def paired(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[Spread, Spread, Spread]:
    """Milliseconds of both calls, and second / first within each pair."""
    seconds = timed([first, second], rounds)
    return Spread.of(1e3 * seconds[:, 0]), Spread.of(1e3 * seconds[:, 1]), Spread.of(seconds[:, 1] / seconds[:, 0])
