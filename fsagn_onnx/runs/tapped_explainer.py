"""One pass that gives masks, feature map and prediction: the explainer with its layer as one more output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ExplainerError, UsageError
from ..model import Model, cut
from ..model.input_spec import InputSpec
from ..model.shapes import value_types
from ..runtime.classes import Classes, classes_of
from ..runtime.engine import FILTERS, Engine, FileEngine
from ..runtime.session import Session

Array = NDArray[Any]

FILTERS_PER_PASS: Final = 128
"""Filters that go through the explainer at a time."""


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
    """

    def __init__(
        self,
        model: Model,
        explainer: str | Path | Engine,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> None:
        self._owned = FileEngine(explainer, providers, threads) if isinstance(explainer, str | Path) else None
        engine: Engine = explainer if self._owned is None else self._owned  # type: ignore[assignment]
        metadata = engine.metadata
        if metadata.model_sha256 != model.sha256:
            raise ExplainerError(
                f"the explainer was made for another model ({metadata.model_sha256[:12]}) than {model.path} "
                f"({model.sha256[:12]}): give the model that it was made for, or train one for this model"
            )
        self.model, self.layer, self.filters = model, metadata.layer, metadata.filters
        self.spec: InputSpec = metadata.input
        self.classes: Classes = engine.classes if engine.classes.classifier.outputs else classes_of(model)
        self._outputs = [value.name for value in model.outputs if value.dtype != "not a tensor"]
        self._engine: Engine | None = None
        if self._owned is not None and self._owned.metadata.encoder == "shared":
            proto = self._owned.load_proto()
            if self.layer not in {item.name for item in proto.graph.output}:
                output = proto.graph.output.add()
                output.name = self.layer
                output.type.CopyFrom(value_types(proto, [self.layer])[self.layer])
            self._owned.close()
            self._session = Session(proto, providers, threads)
        else:
            self._engine = engine
            self._session = Session(cut(model.proto, [self.layer], keep_outputs=True), providers, threads)
        self.provider = self._session.provider

    def run(self, batch: NDArray[np.float32], filters: Sequence[int]) -> TappedPass:
        """Run a preprocessed batch (N, ...).

        Args:
            batch: as the model takes it.
            filters: ids of the K filters, in order; -1 asks for the strongest not asked for by id.
        """
        names = list(dict.fromkeys([*self._outputs, self.layer]))
        feeds: dict[str, Array] = {self.spec.name: batch}
        asked = np.tile(np.asarray(filters, dtype=np.int64), (len(batch), 1))
        parts = [asked[:, start : start + FILTERS_PER_PASS] for start in range(0, len(filters), FILTERS_PER_PASS)]
        computed: dict[str, Array] = {}
        answers: list[tuple[Array, Array]] = []
        if self._engine is not None:
            computed = self._session.run(names, feeds)
            passes = [self._engine.run(batch, part) for part in parts]
            answers = [(answer.filter_ids, answer.area_rank) for answer in passes]
        else:
            for part in parts:
                run = self._session.run([*names, "filter_ids", "area_rank"], {**feeds, FILTERS: part})
                answers.append((run.pop("filter_ids"), run.pop("area_rank")))
                computed = computed or run
        return TappedPass(
            outputs={name: computed[name] for name in self._outputs},
            filter_ids=np.concatenate([ids for ids, _ in answers], axis=1),
            area_rank=np.concatenate([rank for _, rank in answers], axis=1).astype(np.float32, copy=False),
            feature_map=computed[self.layer].astype(np.float32, copy=False),
        )

    def close(self) -> None:
        """Free the sessions."""
        self._session.close()
        if self._owned is not None:
            self._owned.close()


def chosen_filters(filters: str, count: int) -> tuple[int, ...]:
    """Filter ids out of ``all`` or ``3,17``, ascending.

    Raises:
        UsageError: another form, or an id that the layer has not.
    """
    if filters.strip() == "all":
        return tuple(range(count))
    try:
        ids = sorted({int(part) for part in filters.split(",")})
    except ValueError:
        raise UsageError(f"filters must be 'all' or ids like '3,17', but got '{filters}'") from None
    if ids[0] < 0 or ids[-1] >= count:
        raise UsageError(f"no filter {ids[0] if ids[0] < 0 else ids[-1]}: the layer has filters 0..{count - 1}")
    return tuple(ids)
