"""`--refine N`: N steps of per-image optimisation from a trained generator's map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import ExplainerError, UsageError
from ..model import Model, cut
from ..runtime.classes import Classes
from ..runtime.engine import Engine, EngineMetadata, Pass
from ..runtime.masks import area_rank, from_rank
from ..runtime.session import Session
from .interface import Passes
from .optimise import Optimise

RATE = 0.1


class RefinedEngine:
    """An explainer whose every map is optimised further; see `Engine`.

    The predicted retention stays that of the map before: a lower bound in the mean.

    Args:
        engine: the explainer.
        model: the model that it was made for.
        steps: optimisation steps, each a forward and backward pass per (image, filter).
        providers: see `Session`.
        threads: see `Session`.

    Raises:
        ExplainerError: the explainer was made for another model.
        UsageError: ``steps`` < 1.
    """

    def __init__(
        self,
        engine: Engine,
        model: Model,
        steps: int,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> None:
        if steps < 1:
            raise UsageError(f"the number of refinement steps must be at least 1, but got {steps}")
        if engine.metadata.model_sha256 != model.sha256:
            raise ExplainerError(
                f"the explainer was made for another model ({engine.metadata.model_sha256[:12]}) than {model.path} "
                f"({model.sha256[:12]}): give the model that it was made for"
            )
        self._engine, self._layer, self._steps = engine, engine.metadata.layer, steps
        self._session = Session(cut(model.proto, [self._layer]), providers, threads)
        self._optimise = Optimise(model, self._layer, steps=steps, rate=RATE)

    @property
    def metadata(self) -> EngineMetadata:
        """The explainer's."""
        return self._engine.metadata

    @property
    def classes(self) -> Classes:
        """The explainer's."""
        return self._engine.classes

    @property
    def provider(self) -> str:
        """The explainer's."""
        return self._engine.provider

    def run(self, batch: NDArray[np.float32], filters: NDArray[np.int64]) -> Pass:
        """Explain filters ``(N, K)`` of a preprocessed batch."""
        first = self._engine.run(batch, filters)
        feature_map = self._session.run([self._layer], {self.metadata.input.name: batch})[self._layer]
        maps = self._optimise.refine(
            batch, feature_map.astype(np.float32), np.maximum(first.filter_ids, 0), from_rank(first.area_rank)
        )
        return Pass(first.outputs, first.filter_ids, first.filter_peaks, area_rank(maps), first.retention)

    def passes(self, filters: int) -> Passes:
        """The cost of K filters in one image, beyond the generator's own pass."""
        return Passes(self._steps * filters, self._steps * filters)

    def close(self) -> None:
        """Free the session that gives the feature maps; the explainer stays open."""
        self._session.close()
