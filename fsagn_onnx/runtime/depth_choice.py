"""At which depth the gradients of a model show best what a decision rests on: measured on the user's own pictures.

Last layers are too coarse for small defects, first ones too scattered for whole objects, and which of them is best
hangs on model and pictures. So each candidate's evidence is shown alone, and hidden alone, and the model says how sure
it is of the class then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .evidence import PlainEvidence, summed_evidence
from .explained_area import rounded
from .infill import HELD_OUT, masked_images
from .intervention import probability
from .masks import Mask, area_rank, grid_of, grid_stride, pixel_mask

__all__ = ["DECISION_AREAS", "DepthChoice", "DepthFigure", "DepthTrial", "choose_depth", "depth_candidates"]

Array = NDArray[Any]
Pixels = NDArray[np.uint8]

DECISION_AREAS: Final = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Areas at which evidence is shown and hidden."""
MOST_PICTURES: Final = 16
ROUNDS: Final = ((4, 3), (8, 2), (MOST_PICTURES, 1))
"""(pictures so far, candidates that are left after them): what is clearly worse is not measured to the end."""
SUMMED: Final = 3
"""So many of the deepest layers are also taken together."""
TRIED_INFILLS: Final = (HELD_OUT, "mean")
"""What shows through, the mean over both: on boards blur looks like a defect itself, and chooses a worse depth."""
BATCH: Final = 24


@dataclass(frozen=True)
class DepthFigure:
    """What the model says of the class when only the evidence of some depths is shown, and when only it is hidden.

    Attributes:
        depths: the layers' values.
        kept: probability of the class with the area shown alone, the mean over `DECISION_AREAS` and pictures.
        removed: with the area hidden, likewise; less is better.
        pictures: on how many it was measured.
    """

    depths: tuple[str, ...]
    kept: float
    removed: float
    pictures: int

    @property
    def gap(self) -> float:
        """Kept minus removed: more is better."""
        return self.kept - self.removed

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "depths": list(self.depths), "kept": rounded(self.kept), "removed": rounded(self.removed),
            "pictures": self.pictures,
        }  # fmt: skip


@dataclass(frozen=True)
class DepthChoice:
    """Which depths the evidence is taken from, and why.

    Attributes:
        depths: the layers' values.
        figures: of all candidates, best first.
    """

    depths: tuple[str, ...]
    figures: tuple[DepthFigure, ...]

    def __str__(self) -> str:
        names = ", ".join(f"'{value}'" for value in self.depths)
        found = next((figure for figure in self.figures if figure.depths == self.depths), None)
        where = f"evidence from {names}" if len(self.depths) == 1 else f"evidence from {names} together"
        if found is None:
            return where
        return (
            f"{where}: kept {found.kept:.2f}, removed {found.removed:.2f} on {found.pictures} "
            f"picture{'s' * (found.pictures != 1)}, the best of {len(self.figures)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {"depths": list(self.depths), "figures": [figure.to_dict() for figure in self.figures]}


def choose_depth(
    engine: PlainEvidence,
    pixels: Sequence[Pixels],
    classes: Sequence[int] | None = None,
    infills: Sequence[str] = TRIED_INFILLS,
) -> DepthChoice:
    """Measure all depths of an engine on some pictures, and take its evidence from the best from now on.

    Args:
        engine: its candidates are its depths; changed.
        pixels: uint8 (H, W, c) each, fitted to the model's input; at most `MOST_PICTURES` are looked at.
        classes: the class asked about in each; None: the model's answer.
        infills: what shows through where a picture is hidden, see `infill`; the mean over them counts.

    Returns:
        The choice with its figures; without figures where there is one candidate or no picture.
    """
    candidates = depth_candidates(engine)
    if len(candidates) == 1 or not len(pixels):
        return DepthChoice(engine.depths, ())
    figures = _measured(DepthTrial(engine, infills), candidates, pixels[:MOST_PICTURES], classes)
    ranked = sorted(figures, key=lambda figure: (-figure.pictures, -figure.gap))
    engine.focus(ranked[0].depths)
    return DepthChoice(ranked[0].depths, tuple(ranked))


def depth_candidates(engine: PlainEvidence) -> list[tuple[str, ...]]:
    """What is tried: every depth of an engine alone, and the deepest together."""
    alone: list[tuple[str, ...]] = [(value,) for value in engine.depths]
    return [*alone, engine.depths[-SUMMED:]] if len(alone) > 1 else alone


def _measured(
    trial: DepthTrial, candidates: Sequence[tuple[str, ...]], pixels: Sequence[Pixels], classes: Sequence[int] | None
) -> list[DepthFigure]:
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {depths: [] for depths in candidates}
    alive, done = list(candidates), 0
    for until, left in ROUNDS:
        for number in range(done, min(until, len(pixels))):
            asked = -1 if classes is None else int(classes[number])
            for depths, pair in zip(alive, trial.shown_and_hidden(pixels[number], asked, alive), strict=True):
                found[depths].append(pair)
        done = until
        if done >= len(pixels):
            break
        alive.sort(key=lambda depths: -np.subtract(*np.mean(found[depths], axis=0)))
        alive = alive[:left]
    figures = []
    for depths, pairs in found.items():
        kept, removed = np.mean(pairs, axis=0)
        figures.append(DepthFigure(depths, float(kept), float(removed), len(pairs)))
    return figures


class DepthTrial:
    """Shows and hides the evidence of some depths.

    Args:
        engine: a plain model's; what it reads is not changed.
        infills: what shows through where a picture is hidden, see `infill`; figures are the mean over them.
    """

    def __init__(self, engine: PlainEvidence, infills: Sequence[str]) -> None:
        self._engine, self._spec, self._infills = engine, engine.metadata.input, infills
        self._grid = grid_of(self._spec.size, grid_stride(self._spec.size))

    def shown_and_hidden(
        self, pixels: Pixels, asked: int, candidates: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, float]]:
        """Per candidate: mean probabilities of the class with its areas shown alone, and hidden alone."""
        batch = np.asarray(self._spec.normalise(pixels[None]), dtype=np.float32)
        maps, rest = self._engine.maps(batch, np.array([asked], dtype=np.int64))
        number = int(rest["ids"][0, 0])
        masks: list[Mask] = []
        for depths in candidates:
            rank = area_rank(summed_evidence([maps[value] for value in depths], self._grid))[0]
            for area in DECISION_AREAS:
                mask = pixel_mask(rank, area, self._spec.size)
                masks += [mask, ~mask]
        means = []
        for kind in self._infills:
            images = masked_images(pixels, masks, kind)
            shares = np.concatenate(list(self._probabilities(images, number))).reshape(len(candidates), -1, 2)
            means.append(shares.mean(axis=1))
        return [(float(kept), float(removed)) for kept, removed in np.mean(means, axis=0)]

    def _probabilities(self, images: Pixels, number: int) -> Iterator[NDArray[np.float64]]:
        """Of the class, which a decision value d_c is the log-odds of: 1 / (1 + exp(-d_c))."""
        for start in range(0, len(images), BATCH):
            part = np.asarray(self._spec.normalise(images[start : start + BATCH]), dtype=np.float32)
            _, decisions = self._engine.decided(part, np.full((len(part), 1), number, dtype=np.int64))
            yield probability(decisions[:, 0].astype(np.float64))
