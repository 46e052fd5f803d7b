"""How a generator is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import CheckpointError, UsageError
from ..runtime.metadata import QUESTIONS
from ..runtime.trust import DEFAULT_PAIRS
from ..schema import checked
from .config import MOST_PARTICULAR
from .infill import DEFAULT_MIX, check_mix
from .objective import Objective

MOST_JUDGING = 1_200
"""Steps of the retention head alone, at most: its error has long settled."""


def default_crop(images: int) -> float:
    """Smallest random crop for a number of pictures: a tenth for up to 400, half for 2,000 and more.

    Crops make few pictures many; where there are many, they only show views that nobody will ask about.
    """
    return min(0.5, max(0.1, images / 4000))


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a training run; a checkpoint stores them and a resumed run must have the same.

    Attributes:
        pairs: number of (image, filter) pairs to see in all.
        images_per_step: B, images of one step.
        filters_per_image: filters drawn per image and step.
        questions: what is asked about, of `QUESTIONS`; None: classes too where the model classifies.
        classes_per_image: classes drawn per image and step, on top of the filters.
        classes_weight: weight of the pairs of classes, whose loss is a mean of its own, beside those of filters.
        teacher: weight, within that, of the pull of gradient x activation, at the best depths, on the evidence.
        visits: steps in a row that see the same pictures, each with filters, areas and infills of its own; what the
            CNN makes of the unmasked pictures is computed once for all of them.
        active: filters are drawn among this many strongest by peak in the image.
        learning_rate: peak of the one-cycle schedule of Adam.
        average: decay of the moving average of the weights, which is what is exported.
        ramp: (share of the pairs, edge relative to the model's input) of the smaller inputs seen first: fewer pixels,
            more pairs per minute. What is left of the pairs is seen at the model's own size.
        crop: smallest area of the random crops, as a share of the picture; None: see `default_crop`.
        flip: whether pictures are mirrored at random.
        jitter: largest random change of each colour's gain, and of its offset as a share of 255.
        mix: shares of the infills.
        objective: what is minimised.
        particular: by how much what is particular to a filter is brought out of what is learnt (`told_apart`), where
            the generator reads the CNN's own taps; 0: not at all; None: see `choose_particular`.
        checkpoint_every: steps between checkpoints.
        seed: fixes everything that is drawn.
    """

    pairs: int = DEFAULT_PAIRS
    images_per_step: int = 8
    filters_per_image: int = 2
    questions: tuple[str, ...] | None = None
    classes_per_image: int = 1
    classes_weight: float = 0.3
    teacher: float = 0.5
    visits: int = 2
    active: int = 80
    learning_rate: float = 2e-3
    average: float = 0.998
    ramp: tuple[tuple[float, float], ...] = ((0.35, 0.57), (0.35, 0.72))
    crop: float | None = None
    flip: bool = True
    jitter: float = 0.15
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    objective: Objective = field(default_factory=Objective)
    particular: float | None = None
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_mix(self.mix)
        counts = ("pairs", "images_per_step", "filters_per_image", "classes_per_image", "visits", "active")
        for name in (*counts, "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.questions not in (None, QUESTIONS[:1], QUESTIONS):
            raise UsageError(f"questions must be 'filters' or 'filters,classes', but got {','.join(self.questions)!r}")
        for name in ("classes_weight", "teacher"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative, but got {getattr(self, name)}")
        if self.particular is not None and not 0 <= self.particular <= MOST_PARTICULAR:
            raise UsageError(f"particular must be in [0, {MOST_PARTICULAR:g}], but got {self.particular}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise UsageError(f"crop must be in (0, 1], but got {self.crop}")
        if not 0 <= self.jitter < 1:
            raise UsageError(f"jitter must be in [0, 1), but got {self.jitter}")
        if sum(share for share, _ in self.ramp) > 1 or any(not 0 < scale <= 1 for _, scale in self.ramp):
            raise UsageError(f"ramp must have shares of at most 1 in all and scales in (0, 1], but got {self.ramp}")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole generator."""
        return -(-self.pairs // (self.images_per_step * self.filters_per_image))

    @property
    def judging(self) -> int:
        """Steps of the retention head alone, afterwards; without a backward pass through the CNN."""
        return min(-(-self.steps // 2), MOST_JUDGING)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrainingOptions:
        """Read back what `to_dict` wrote.

        Raises:
            CheckpointError: if a field is missing, unknown or of the wrong kind.
        """
        return checked(
            values, TrainingOptions, lambda said: CheckpointError(f"the checkpoint's training options: {said}")
        )
