"""`--refine N`: N steps of per-image optimisation from a trained generator's map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import UsageError
from ..model import Model
from ..runtime.classes import Classes
from ..runtime.engine import Engine, Pass
from ..runtime.feature_maps import FeatureMaps
from ..runtime.masks import area_rank, from_rank
from .interface import Passes
from .optimise import Optimise

RATE = 0.1


class RefinedEngine(Engine):
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
        UsageError: ``steps`` < 1, or a file with preprocessing inside.
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
        engine.require_model(model)
        if engine.takes_pixels:
            raise UsageError(
                f"{engine.source} takes pictures of any size, and refinement the model's input: "
                "refine the file without preprocessing inside"
            )
        self._engine, self._model, self._steps = engine, model, steps
        self.metadata, self.provider = engine.metadata, engine.provider
        layer = engine.metadata.layer
        self._maps = FeatureMaps.of_model(model, layer, providers, threads)
        self._optimise = Optimise(model, layer, steps=steps, rate=RATE)

    @property
    def classes(self) -> Classes:
        """The explainer's."""
        return self._engine.classes

    @property
    def source(self) -> str:
        """The explainer's."""
        return self._engine.source

    def run(self, batch: NDArray[np.float32], filters: NDArray[np.int64]) -> Pass:
        """Explain filters ``(N, K)`` of a preprocessed batch."""
        first = self._engine.run(batch, filters)
        maps = self._optimise.refine(
            batch, self._maps.maps(batch), np.maximum(first.filter_ids, 0), from_rank(first.area_rank)
        )
        return Pass(first.outputs, first.filter_ids, first.filter_peaks, area_rank(maps), first.retention)

    def passes(self, filters: int) -> Passes:
        """The cost of K filters in one image, beyond the generator's own pass."""
        return Passes(self._steps * filters, self._steps * filters)

    def model_graph(self) -> onnx.ModelProto:
        """The model's own."""
        return self._model.proto

    def close(self) -> None:
        """Free the session that gives the feature maps; the explainer stays open."""
        self._maps.close()
