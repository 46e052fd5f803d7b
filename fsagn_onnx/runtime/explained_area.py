"""An area of one image that was found to matter: to a filter, or to the model's decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from .masks import FloatMap

TELLING: Final = 2.0
"""By so much hiding the evidence must cost more than hiding as much elsewhere."""
LEAST_FALL: Final = 0.1
"""So much of the class's probability hiding the evidence must cost at least: else nobody sees the decision fall."""

Box = tuple[int, int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class Area:
    """An area that can be cut at any size.

    Attributes:
        area: share of the model's input in (0, 1] that the mask keeps unless told; 0 where no small area suffices,
            or the filter is not active.
        retention_predicted: retention at `area` as the explainer predicts it, or None.
        retention_measured: retention at `area` as the model shows it, or None where it was not measured, or where
            there is nothing to keep.
        retention_random: what a random area of that size keeps: measured where retention is, else the mean of the
            explainer's left-out pictures; None where neither is known.
        prediction_error: mean |predicted - measured retention| on those pictures; None where that was not measured.
        area_rank: float32 (h, w) in (0, 1], smaller is kept first.
        curve: predicted (area, retention) pairs, ascending in area; empty where there is no prediction.
        box: (x0, y0, x1, y1) around the area in pixels of the original image, half open; None if the area is empty.
        centroid: (x, y) of the area in pixels of the original image; None if the area is empty.
    """

    area: float
    retention_predicted: float | None
    retention_measured: float | None
    area_rank: FloatMap
    curve: tuple[tuple[float, float], ...]
    box: Box | None
    centroid: Point | None
    retention_random: float | None = None
    prediction_error: float | None = None

    @property
    def suffices(self) -> bool:
        """Whether there is an area: one that was asked for, or a small one that does better than a random one."""
        return self.area > 0

    @property
    def heading(self) -> str:
        """What it is the area of, as pictures and tables say it."""
        return "area"

    @property
    def active(self) -> bool:
        """Whether there is anything that the area could keep."""
        return True

    @property
    def flat(self) -> bool:
        """Whether the map that the area is cut from is the same everywhere."""
        return False

    @property
    def retention(self) -> float | None:
        """The measured retention, else the predicted one."""
        return self.retention_predicted if self.retention_measured is None else self.retention_measured

    def area_dict(self) -> dict[str, Any]:
        """Area, retention, box and centroid as they stand in ``explanations.jsonl``."""
        return {
            "area": rounded(self.area) if self.suffices else None,
            "retention": {
                "predicted": rounded(self.retention_predicted),
                "measured": rounded(self.retention_measured),
                "random": rounded(self.retention_random),
            },
            "box": None if self.box is None else list(self.box),
            "centroid": None if self.centroid is None else [round(value, 2) for value in self.centroid],
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Intervention:
    """What the model answers when an area of the image is hidden, or all but it.

    Attributes:
        index: number of the class that it answers then.
        label: its name, or None.
        score: its probability, in [0, 1].
        asked: probability of the class that was asked about, in [0, 1].
        decision: decision value of that class.
    """

    index: int
    label: str | None
    score: float
    asked: float
    decision: float

    @property
    def title(self) -> str:
        """The label, or ``class N``."""
        return self.label if self.label else f"class {self.index}"

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "index": self.index, "label": self.label, "score": rounded(self.score), "asked": rounded(self.asked),
            "decision": rounded(self.decision),
        }  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence(Area):
    """The area that the decision for one class rests on in one image; see `Area` for the rest.

    Retention is the share of the decision value, from the wholly hidden image to the whole one, that the area keeps.

    Attributes:
        index: number of the class.
        label: its name, or None.
        score: its probability in the whole image, in [0, 1].
        decision: its decision value d_c (log-odds) in the whole image.
        support: sums of all positive and of all negative contributions of the layer's filters; None where they are
            not known.
        kept: what the model answers when only the area is shown; None where it was not measured.
        removed: what it answers when only the area is hidden; None likewise.
        control: likewise with equally large areas elsewhere hidden: the one of them that costs the class most.
    """

    index: int
    label: str | None
    score: float
    decision: float
    support: tuple[float, float] | None = None
    kept: Intervention | None = None
    removed: Intervention | None = None
    control: Intervention | None = None

    @property
    def title(self) -> str:
        """The label, or ``class N``."""
        return self.label if self.label else f"class {self.index}"

    @property
    def heading(self) -> str:
        """``short: evidence``."""
        return f"{self.title}: evidence"

    @property
    def flat(self) -> bool:
        """Whether no filter adds anything: the model's numbers are rounded to 0 or 1, where nothing changes them."""
        return self.support is not None and not any(self.support)

    @property
    def falls(self) -> bool:
        """Whether hiding the area costs the class at least `LEAST_FALL` of its probability."""
        return self.removed is not None and self.removed.asked <= (1 - LEAST_FALL) * self.score

    @property
    def shown(self) -> bool:
        """Whether measuring shows that the decision rests on the area.

        Hiding it costs at least `TELLING` times as much of the decision value as hiding as much elsewhere, and the
        decision `falls`.
        """
        if self.removed is None or self.control is None or not self.falls:
            return False
        cost, elsewhere = self.decision - self.removed.decision, self.decision - self.control.decision
        return cost > 0 and cost >= TELLING * elsewhere

    def __repr__(self) -> str:
        return f"Evidence({self.title!r}, score {self.score:.2f}, decision {self.decision:.2f}, area {self.area:.3f})"

    def to_dict(self) -> dict[str, Any]:
        """The decision's part of a line of ``explanations.jsonl``."""
        measured = {"kept": self.kept, "removed": self.removed, "control": self.control}
        return {
            "class": self.index,
            "label": self.label,
            "score": rounded(self.score),
            "decision": rounded(self.decision),
            "support": None if self.support is None else [rounded(value) for value in self.support],
            **self.area_dict(),
            **{name: None if found is None else found.to_dict() for name, found in measured.items()},
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class DirectionArea(Area):
    """Where a direction over the layer's channels looks in one image; see `Area` for the rest.

    Attributes:
        index: number of the direction among those asked.
        activation: sum over places and filters of u_k F_k.
    """

    index: int
    activation: float

    def __repr__(self) -> str:
        return f"DirectionArea({self.index}, activation {self.activation:.3g}, area {self.area:.3f})"

    def to_dict(self) -> dict[str, Any]:
        """The direction's part of a line of ``explanations.jsonl``."""
        return {"index": self.index, "activation": rounded(self.activation), **self.area_dict()}


def rounded(value: float | None) -> float | None:
    """Six digits, as JSON holds them."""
    return None if value is None else float(f"{value:.6g}")
