"""The result of `perturb`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .effects import Effect


@dataclass(frozen=True)
class Perturbation:
    """The result of `perturb`.

    Attributes:
        folder: where it lies.
        layer: the layer.
        images: images disturbed.
        accuracy: share of right decisions before; None where no true classes are known.
        effects: all cells, see `Effect`.
        parts: class (or ``all``) -> annotated parts, from the one that the model leans on most.
        filters: likewise, filters.
        ablation: class -> filter -> mean drop of the score when the filter is switched off.
        summary: further figures.
        names: filter -> what `dissect` or the user calls it.
    """

    folder: Path
    layer: str
    images: int
    accuracy: float | None
    effects: tuple[Effect, ...]
    parts: dict[str, list[dict[str, Any]]]
    filters: dict[str, list[dict[str, Any]]]
    ablation: dict[str, dict[int, float]]
    summary: dict[str, Any]
    names: dict[int, str]
