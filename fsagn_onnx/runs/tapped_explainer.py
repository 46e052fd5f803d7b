"""One pass that gives masks, feature map and prediction: the explainer with its layer as one more output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..model import Model
from ..model.input_spec import InputSpec
from ..runtime.classes import Classes, classes_of
from ..runtime.contract import AREA_RANK, DECISIVE, FILTER_IDS, STRONGEST
from ..runtime.engine import Engine
from ..runtime.feature_maps import FeatureMaps
from ..runtime.file_engine import FileEngine
from ..runtime.filter_request import FilterRequest

Array = NDArray[Any]

FILTERS_PER_PASS: Final = 128
"""Filters asked for by id that go through the explainer at a time: each pass computes the model again."""


@dataclass(frozen=True, eq=False)
class TappedPass:
    """What one pass gives for N images and K filters.

    Attributes:
        outputs: the model's own outputs by name.
        filter_ids: int64 (N, K); -1 where a slot that asked for the strongest filter left stayed empty.
        area_rank: float32 (N, K, h, w) in (0, 1].
        feature_map: float32 (N, C, fh, fw), all channels of the explained layer.
    """

    outputs: dict[str, Array]
    filter_ids: Array
    area_rank: Array
    feature_map: Array


class TappedExplainer:
    """Runs an explainer and taps the layer that it explains, in the same pass where the file contains the model.

    Attributes:
        model: the model that is explained.
        metadata: of the explainer; of a file without what its `Variant` fixes inside, which plays no part here.
        layer: the tapped value.
        filters: how many channels the layer has.
        spec: the model's input.
        classes: how the model's outputs are read.
        provider: the onnxruntime provider that computes.

    Args:
        model: the model.
        explainer: an explainer file, or another engine (its masks come from passes of their own).
        providers: see `Session`.
        threads: see `Session`.

    Raises:
        ExplainerError: no explainer, or one for another model.
        UsageError: an engine that takes pixels.
    """

    def __init__(
        self,
        model: Model,
        explainer: str | Path | Engine,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> None:
        self._file = FileEngine(explainer, providers, threads, tap=True) if isinstance(explainer, str | Path) else None
        engine: Engine = explainer if self._file is None else self._file  # type: ignore[assignment]
        engine.require_model(model)
        if engine.takes_pixels:
            raise UsageError(
                f"{engine.source} takes pictures, expected the model's input: give the file's path instead"
            )
        self.model, self.metadata = model, engine.metadata
        self.layer, self.filters = engine.metadata.layer, engine.metadata.filters
        self.spec: InputSpec = engine.metadata.input
        found = engine.classes if engine.classes.classifier.outputs else classes_of(model)
        self.classes: Classes = found.chosen(labels=model.labels if model.named else None)
        self._engine = engine
        self._outputs = [value.name for value in model.outputs if value.dtype != "not a tensor"]
        self._maps: FeatureMaps | None = None
        if self._file is None or not self._file.contains_model:
            self._maps = FeatureMaps.of_model(model, self.layer, providers, threads, keep_outputs=True)
        self.provider = engine.provider if self._maps is None else self._maps.provider

    @property
    def answers_classes(self) -> bool:
        """Whether filters can be asked for by what they add to an image's class."""
        return self._engine.answers_classes

    def run(self, batch: NDArray[np.float32], request: FilterRequest) -> TappedPass:
        """Run a preprocessed batch (N, ...); a request for K filters."""
        computed: dict[str, Array] = {} if self._maps is None else self._maps.run(batch)
        ids, ranks = [], []
        for part in request.passes(len(batch), FILTERS_PER_PASS):
            if self._file is None:
                answer = self._engine.run(batch, part)
                ids.append(answer.filter_ids)
                ranks.append(answer.area_rank)
                continue
            own = [] if computed else list(dict.fromkeys([*self._outputs, self.layer]))
            found = self._file.compute([*own, FILTER_IDS, AREA_RANK], batch, part)
            ids.append(found.pop(FILTER_IDS))
            ranks.append(found.pop(AREA_RANK))
            computed = computed or found
        return TappedPass(
            outputs={name: computed[name] for name in self._outputs},
            filter_ids=np.concatenate(ids, axis=1),
            area_rank=np.concatenate(ranks, axis=1).astype(np.float32, copy=False),
            feature_map=computed[self.layer].astype(np.float32, copy=False),
        )

    def decisive(self, batch: NDArray[np.float32], most: int) -> list[tuple[int, list[int]]]:
        """Per image of a preprocessed batch its answer, and the filters that add most to it, at most so many.

        Raises:
            UsageError: the explainer cannot be asked about classes.
        """
        wished = np.full((len(batch), most), DECISIVE, dtype=np.int64)
        found = self._engine.decide(batch, wished, np.full((len(batch), 1), STRONGEST, dtype=np.int64))
        if found.decisions is None:
            raise UsageError(self._engine.silent("classes"))
        speaking = (found.decisions.contributions[:, 0] > 0) & (found.filter_ids >= 0)
        ids = found.decisions.class_ids[:, 0].tolist()
        return [(number, found.filter_ids[n, speaking[n]].tolist()) for n, number in enumerate(ids)]

    def close(self) -> None:
        """Free the sessions that it opened."""
        if self._maps is not None:
            self._maps.close()
        if self._file is not None:
            self._file.close()
