"""What the model answers when the evidence is hidden, when only it is shown, and when as much elsewhere is hidden."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from ..data.closing import Closing
from ..errors import ModelError, UsageError
from ..model.cut import cut
from ..model.input_spec import Geometry, InputSpec
from .classes import Classes
from .contract import STRONGEST
from .explained_area import Evidence, Intervention
from .explanation import locate
from .infill import VERIFY, masked_images
from .masks import FloatMap, Mask, pixel_mask, upsample
from .session import Session
from .stream import Pixels

AREAS: Final = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3)
"""Areas that are tried to find the one that a decision rests on."""

Decide: TypeAlias = Callable[[NDArray[Any], NDArray[np.int64]], tuple[NDArray[Any], NDArray[Any]]]

SHIFTS: Final = ((0.5, 0.5), (0.0, 0.5), (0.5, 0.0))
"""By how much of height and width the evidence is moved to get areas of its form elsewhere."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What the model answers for M pictures: classes (M,), probabilities and decision values (M, classes)."""

    winners: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    decisions: NDArray[np.float64]

    def __getitem__(self, rows: slice) -> Answers:
        return Answers(self.winners[rows], self.probabilities[rows], self.decisions[rows])


class DecisionMeter(Closing):
    """Measures how much a decision rests on an area, with the model itself; a context manager.

    The masked image is x' = m x + (1 - m) b with an infill b. Kept: m is the area; removed: m is all but the area;
    control: m is all but an equally large area elsewhere, of the evidence's form (moved by half of the picture).

    Args:
        proto: a graph that contains the model.
        classes: how its outputs are read; it must classify.
        spec: the model's input.
        infill_kind: what shows through where the mask is 0, see `infill`.
        providers: see `Session`.
        threads: see `Session`.
        batch_size: masked images per pass.

    Raises:
        UsageError: the model does not classify.
        ModelError: the output that classifies needs other inputs than the image.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        classes: Classes,
        spec: InputSpec,
        *,
        infill_kind: str = VERIFY,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        batch_size: int = 8,
    ) -> None:
        if not classes:
            raise UsageError(f"a decision cannot be measured: the model does not classify ({classes})")
        self._classes, self._spec, self._infill = classes, spec, infill_kind
        self._session = Session(cut(proto, classes.wanted), providers, threads)
        names = [port.name for port in self._session.inputs]
        if names != [spec.name]:
            self.close()
            raise ModelError(
                f"a decision cannot be measured: '{classes.wanted[0]}' needs the inputs {', '.join(names)}"
            )
        self._batch_size = self._session.batch or batch_size

    def answers(self, pictures: Sequence[Pixels] | Pixels) -> Answers:
        """What the model answers for fitted pictures, uint8 (H, W, c) each."""
        parts = []
        for start in range(0, len(pictures), self._batch_size):
            batch = np.asarray(self._spec.normalise(np.asarray(pictures[start : start + self._batch_size])))
            outputs: dict[str, NDArray[Any]] = self._session.run(self._classes.wanted, {self._spec.name: batch})
            parts.append(self._read(outputs))
        return Answers(
            np.concatenate([part.winners for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.decisions for part in parts]),
        )

    def _read(self, outputs: dict[str, NDArray[Any]]) -> Answers:
        winners, probabilities = self._classes.winners(outputs), self._classes.probabilities(outputs)
        decisions = self._classes.decisions(outputs)
        if winners is None or probabilities is None or decisions is None:
            raise ModelError(f"output '{self._classes.wanted[0]}' holds no row of classes")
        return Answers(winners, probabilities, decisions)

    def measured(self, pixels: Pixels, found: Evidence, geometry: Geometry, area: float | None = None) -> Evidence:
        """The evidence with what measuring shows, at the area that the decision rests on.

        That is the smallest of `AREAS` without which the model answers another class; where there is none, or the
        class is not its answer, the one for which showing and hiding it differ most.

        Args:
            pixels: uint8 (H, W, c), fitted to the model's input.
            found: the evidence; its rank says what comes first.
            geometry: of the image.
            area: measure at this area instead.
        """
        areas = AREAS if area is None else (area,)
        masks = [pixel_mask(found.area_rank, share, geometry.size) for share in areas]
        nowhere = np.zeros(geometry.size, bool)
        shown = masked_images(pixels, [~nowhere, nowhere, *masks, *(~mask for mask in masks)], self._infill)
        answers, count = self.answers(shown), len(areas)
        whole, kept, removed = answers[:2], answers[2 : 2 + count], answers[2 + count :]
        best = self._resting(whole, kept, removed, found.index)
        others = [~mask for mask in elsewhere(found.area_rank, masks[best], geometry.size)]
        control = self.answers(masked_images(pixels, others, self._infill))
        nothing, everything = whole.decisions[1, found.index], whole.decisions[0, found.index]
        gained = everything - nothing
        share = (kept.decisions[best, found.index] - nothing) / gained if gained > 0 else None
        box, centroid = locate(masks[best], geometry)
        return replace(
            found,
            area=areas[best],
            retention_predicted=found.retention_predicted if areas[best] == found.area else None,
            retention_measured=None if share is None else float(np.clip(share, 0, 1)),
            box=box,
            centroid=centroid,
            kept=self._intervention(kept, best, found.index),
            removed=self._intervention(removed, best, found.index),
            control=self._intervention(control, int(control.decisions[:, found.index].argmin()), found.index),
        )

    def _intervention(self, answers: Answers, row: int, asked: int) -> Intervention:
        winner = int(answers.winners[row])
        return Intervention(
            index=winner,
            label=self._classes.label(winner, answers.probabilities.shape[1]),
            score=float(answers.probabilities[row, winner]),
            asked=float(answers.probabilities[row, asked]),
            decision=float(answers.decisions[row, asked]),
        )

    def _says(self, answers: Answers, asked: int) -> NDArray[np.bool_]:
        """Whether the model answers with a class."""
        return np.asarray(answers.winners == asked)

    def _resting(self, whole: Answers, kept: Answers, removed: Answers, asked: int) -> int:
        """The place of the area that a decision rests on, see `measured`."""
        if self._says(whole, asked)[0] and (fallen := np.flatnonzero(~self._says(removed, asked))).size:
            return int(fallen[0])
        return int((kept.probabilities[:, asked] - removed.probabilities[:, asked]).argmax())

    def close(self) -> None:
        """Free the session."""
        self._session.close()


class BoxMeter(DecisionMeter):
    """The same for boxes and maps of classes, whose decisions stand in no output: the engine computes them.

    Probabilities are those that decision values are the log-odds of, 1 / (1 + e^-d). Several classes can be found at
    the same time: each counts as answered from a probability of .5 on.

    Args:
        decide: preprocessed batch (N, ...), class ids (N, J) -> ids and decision values (N, J); -1: the best.
        classes: how the model's outputs are read; it must be known how many there are.
        spec: the model's input.
        batch_size: masked images per pass.
    """

    def __init__(self, decide: Decide, classes: Classes, spec: InputSpec, *, batch_size: int = 8) -> None:
        self._decide, self._classes, self._spec, self._infill = decide, classes, spec, VERIFY
        self._batch_size = batch_size

    def answers(self, pictures: Sequence[Pixels] | Pixels) -> Answers:
        """What the model decides about fitted pictures, uint8 (H, W, c) each."""
        winners, decisions = [], []
        for start in range(0, len(pictures), self._batch_size):
            batch = np.asarray(self._spec.normalise(np.asarray(pictures[start : start + self._batch_size])))
            every = np.tile(np.arange(self._classes.count or 0, dtype=np.int64), (len(batch), 1))
            winners.append(self._decide(batch, np.full((len(batch), 1), STRONGEST, dtype=np.int64))[0][:, 0])
            decisions.append(self._decide(batch, every)[1].astype(np.float64))
        values = np.concatenate(decisions)
        return Answers(np.concatenate(winners).astype(np.intp), probability(values), values)

    def _says(self, answers: Answers, asked: int) -> NDArray[np.bool_]:
        return np.asarray(answers.probabilities[:, asked] >= 0.5)

    def close(self) -> None:
        """Nothing of its own to free."""


def probability(decision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that a decision value is the log-odds of."""
    return np.asarray(1 / (1 + np.exp(-np.clip(decision, -700, 700))))


def elsewhere(rank: FloatMap, mask: Mask, size: tuple[int, int]) -> Iterable[Mask]:
    """Areas as large as the evidence's that do not meet it, as far as the picture has room for both.

    Args:
        rank: (h, w), the evidence's.
        mask: bool (H, W), its area.
        size: (H, W) of the model's input.

    Yields:
        bool (H, W), one for each of `SHIFTS`: the first places of the moved rank outside of the mask.
    """
    full = upsample(rank[None], size)[0]
    count = int(mask.sum())
    for down, right in SHIFTS:
        moved = np.roll(full, (round(down * size[0]), round(right * size[1])), axis=(0, 1))
        order = np.argsort(np.where(mask, np.inf, moved), axis=None, kind="stable")
        other = np.zeros(mask.size, bool)
        other[order[:count]] = True
        yield other.reshape(mask.shape)
