"""Engines: what turns a batch of images and filter ids into area ranks.

`FileEngine` runs an explainer file. Training-free methods offer the same `Engine` for a plain model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError, UsageError
from ..model.input_spec import InputSpec
from ..model.model import Model
from .classes import Classes
from .contract import AGAINST, DECISIVE
from .trust import Trust
from .variant import Variant, check_request

Array = NDArray[Any]

DECISIVE_DEFAULT: Final = "decisive:5"
STRONGEST_DEFAULT: Final = "top:5"
"""Filters that are explained unless told, where classes can be asked about and where not."""


@dataclass(frozen=True, eq=False)
class Decisions:
    """What one pass says about the decisions for J classes of N images; format 2 of the explainer file.

    Attributes:
        class_ids: int64 (N, J).
        decision: float32 (N, J), the decision value d_c (log-odds).
        contributions: float32 (N, J, K), phi of the returned filters for each class.
        support: float32 (N, J, 2), sums of all positive and of all negative contributions of the layer's filters.
        evidence_rank: float32 (N, J, h, w) in (0, 1], smaller is kept first.
        evidence_retention: float32 (N, J, A), predicted at the areas of the metadata, or None.
    """

    class_ids: Array
    decision: Array
    contributions: Array
    support: Array
    evidence_rank: Array
    evidence_retention: Array | None

    def of_images(self, rows: slice) -> Decisions:
        """Those of some images of the pass."""
        retention = None if self.evidence_retention is None else self.evidence_retention[rows]
        return Decisions(
            self.class_ids[rows], self.decision[rows], self.contributions[rows], self.support[rows],
            self.evidence_rank[rows], retention,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Directed:
    """What one pass says about D directions over the layer's channels.

    Attributes:
        activation: float32 (N, D), the sum over places and filters of u_k F_k.
        area_rank: float32 (N, D, h, w) in (0, 1], smaller is kept first.
        retention: float32 (N, D, A), predicted at the areas of the metadata, or None.
    """

    activation: Array
    area_rank: Array
    retention: Array | None


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass over a batch gives; N images, K slots, a grid of h x w cells, A areas.

    Attributes:
        outputs: the model's own outputs by name; empty where the engine has none.
        filter_ids: int64 (N, K); -1 marks a slot that stayed empty.
        filter_peaks: float32 (N, K), the largest value of F_k.
        area_rank: float32 (N, K, h, w) in (0, 1], smaller is kept first.
        retention: float32 (N, K, A), predicted at the areas of the metadata, or None.
        decisions: about the classes asked for; None where none was, or the engine knows nothing of classes.
        directions: about the directions asked for; None likewise.
    """

    outputs: Mapping[str, Array]
    filter_ids: Array
    filter_peaks: Array
    area_rank: Array
    retention: Array | None
    decisions: Decisions | None = None
    directions: Directed | None = None


class EngineMetadata(Protocol):
    """What every engine says about itself; `ExplainerMetadata` is one."""

    @property
    def content(self) -> str:
        """Content hash of the model."""

    @property
    def layer(self) -> str:
        """The tapped value."""

    @property
    def filters(self) -> int:
        """Number of filters of the layer."""

    @property
    def input(self) -> InputSpec:
        """How an image becomes the model's input."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes."""

    @property
    def areas(self) -> tuple[float, ...]:
        """Ascending areas of `Pass.retention`."""

    @property
    def trust(self) -> Trust | None:
        """What was measured on pictures left out of the training."""

    @property
    def variant(self) -> Variant:
        """What is fixed inside: a request, preprocessing; plain for a method."""


class Engine(ABC):
    """Turns a batch and filter ids into area ranks.

    Attributes:
        metadata: input, layer, filters, labels, areas.
        provider: the onnxruntime provider that computes.
    """

    metadata: EngineMetadata
    provider: str

    @abstractmethod
    def run(self, batch: Array, filters: NDArray[np.int64]) -> Pass:
        """Explain filters (N, K) of a preprocessed batch (N, ...), or of pictures where it `takes_pixels`."""

    @property
    def answers_classes(self) -> bool:
        """Whether it can be asked about classes and directions."""
        return False

    @property
    def default_filters(self) -> str:
        """The filters that are explained unless told: decisive ones where it can be asked about classes."""
        can = self.answers_classes and self.metadata.variant.slots is None
        return DECISIVE_DEFAULT if can else STRONGEST_DEFAULT

    def decide(self, batch: Array, filters: NDArray[np.int64], classes: NDArray[np.int64]) -> Pass:
        """`run`, and `Pass.decisions` about classes (N, J): ids, or -1 for the highest score not asked for by id.

        Filters can be -2 and -3 too: the most contributing to the first class, and what speaks most against it.

        Raises:
            UsageError: it cannot be asked about classes.
        """
        raise UsageError(self.silent("classes"))

    @property
    def decider(self) -> Callable[[Array, NDArray[np.int64]], tuple[Array, Array]] | None:
        """What computes class ids and decision values (N, J) alone, without areas; None where nothing does."""
        return None

    def direct(self, batch: Array, directions: NDArray[np.float32]) -> Directed:
        """Where directions (D, C) over the layer's channels look.

        Raises:
            UsageError: it cannot be asked about them.
        """
        raise UsageError(self.silent("directions"))

    def silent(self, what: str) -> str:
        """The message where it cannot be asked about something."""
        return (
            f"{self.source} was made for questions about filters only, not about {what}: "
            "train with --questions filters,classes on a model that classifies"
        )

    @property
    def contains_model(self) -> bool:
        """Whether `model_graph` has one."""
        return True

    @abstractmethod
    def model_graph(self) -> onnx.ModelProto:
        """A graph that computes the layer from the model's own input, with its weights.

        Raises:
            ExplainerError: it has none.
        """

    @property
    @abstractmethod
    def classes(self) -> Classes:
        """How the model's outputs are read."""

    @property
    def source(self) -> str:
        """What to call it in messages."""
        return "the explainer"

    @property
    def takes_pixels(self) -> bool:
        """Whether a batch is uint8 RGB (N, H0, W0, 3) instead of the model's input."""
        return self.metadata.variant.preprocessing

    def check_request(self, slots: tuple[int, ...]) -> None:
        """Refuse what cannot be answered.

        Raises:
            UsageError: naming what can.
        """
        check_request(slots, self.metadata.variant, self.source)
        if not self.answers_classes and any(slot in (DECISIVE, AGAINST) for slot in slots):
            raise UsageError(f"{self.silent('classes')}; or ask for filters by 'top:5'")

    def require_model(self, model: Model) -> None:
        """Refuse a model that this explainer was not made for.

        Raises:
            ExplainerError: naming both.
        """
        made_for = self.metadata.content
        if made_for != model.content:
            raise ExplainerError(
                f"{self.source} was made for another model ({made_for[:12]}) than {model.path} ({model.content[:12]}): "
                "give the model that it was made for, or train one for this model"
            )

    def close(self) -> None:  # noqa: B027  # what holds no session has nothing to free
        """Free the sessions."""


def merge(parts: Sequence[Pass]) -> Pass:
    """Join passes over the same batch along the slots K."""
    if len(parts) == 1:
        return parts[0]
    curves = [part.retention for part in parts if part.retention is not None]
    decided = [part.decisions for part in parts if part.decisions is not None]
    decisions = None
    if decided:
        together = np.concatenate([part.contributions for part in decided], axis=2)
        decisions = replace(decided[0], contributions=together)
    return Pass(
        outputs=parts[0].outputs,
        filter_ids=np.concatenate([part.filter_ids for part in parts], axis=1),
        filter_peaks=np.concatenate([part.filter_peaks for part in parts], axis=1),
        area_rank=np.concatenate([part.area_rank for part in parts], axis=1),
        retention=np.concatenate(curves, axis=1) if len(curves) == len(parts) else None,
        decisions=decisions,
        directions=parts[0].directions,
    )
