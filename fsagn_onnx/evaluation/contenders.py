"""The methods of one evaluation: explainer files, their refinement, and training-free methods, in one order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ExplainerError, UsageError
from ..methods import Method, Passes, make_method
from ..model import Model
from ..runtime.file_engine import FileEngine
from ..runtime.masks import from_rank
from .image_masks import Predicted

if TYPE_CHECKING:
    from ..methods.optimise import Optimise

GENERATOR = "generator"
"""Stands for the explainer files among the names of methods."""

ALWAYS = ("activation", "random")
"""Lift and gain are taken against these."""


class Maps(NamedTuple):
    """What all methods give for one image.

    Attributes:
        saliency: by method, ``(K, h, w)``.
        predicted: by explainer file.
        seconds: by method.
    """

    saliency: dict[str, NDArray[np.float32]]
    predicted: dict[str, Predicted]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Refinement:
    """Steps of optimisation from an explainer's map."""

    optimise: Optimise
    steps: int

    @property
    def suffix(self) -> str:
        """What its rows are called, after the explainer's name."""
        return f"+refine{self.steps}"


class Contenders:
    """All methods that are compared.

    Attributes:
        layer: the explained layer.
        names: of the methods, in the order of the tables; the first is the one that others are compared with.
        engines: explainer files by name.

    Args:
        model: the CNN.
        explainers: explainer files by name.
        methods: names; ``generator`` stands for all explainer files, which come first unless it is named.
        layer: value name; None: the explainers' or the model's default.
        refine: steps of refinement, or 0.
        **session: ``providers`` and ``threads`` of the explainers, see `Session`.

    Raises:
        ExplainerError: an explainer belongs to another model, or explains another layer than the others.
        UsageError: no such method, or one that cannot be had here.
    """

    def __init__(
        self,
        model: Model,
        explainers: Mapping[str, str | Path],
        methods: Sequence[str],
        layer: str | None = None,
        refine: int = 0,
        **session: Any,
    ) -> None:
        self.engines = {name: _engine(path, model, session) for name, path in explainers.items()}
        self.layer = self._layer(model, layer)
        self._methods: dict[str, Method] = {}
        self.names: list[str] = []
        asked = list(methods) if GENERATOR in methods or not explainers else [GENERATOR, *methods]
        if GENERATOR in asked and not explainers:
            raise UsageError("method 'generator' needs an explainer file: name one after the model")
        self._refinement: Refinement | None = None
        if refine and explainers:
            from ..methods.optimise import Optimise

            self._refinement = Refinement(Optimise(model, self.layer, steps=refine), refine)
        for name in dict.fromkeys((*asked, *ALWAYS)):
            if name == GENERATOR:
                self.names += list(self.engines)
                if self._refinement is not None:
                    self.names += [engine + self._refinement.suffix for engine in self.engines]
            else:
                self._methods[name] = make_method(name, model, self.layer)
                self.names.append(name)

    def _layer(self, model: Model, layer: str | None) -> str:
        found = {engine.metadata.layer for engine in self.engines.values()} | ({layer} if layer else set())
        if len(found) > 1:
            raise ExplainerError(
                f"explainers and --layer must agree on one layer, but they name {', '.join(sorted(found))}"
            )
        return model.layer(found.pop() if found else None).value

    def trained_infills(self) -> set[str]:
        """Every infill that one of them trained on or optimises for."""
        seen = {kind for engine in self.engines.values() for kind in engine.metadata.infills}
        if self._refinement is not None or any(name.startswith("optimise") for name in self._methods):
            from ..methods.optimise import INFILLS

            seen |= set(INFILLS)
        return seen

    def passes(self, name: str, filters: int) -> Passes:
        """What a method costs for K filters of one image, beyond the model's own pass."""
        if name in self._methods:
            return self._methods[name].passes(filters)
        if self._refinement is not None and name.endswith(self._refinement.suffix):
            return self._refinement.optimise.passes(filters)
        return Passes(0, 0)

    def maps(self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], ids: NDArray[np.int64]) -> Maps:
        """Saliency of every method for one image.

        Args:
            batch: ``(1, ...)`` normalised.
            feature_map: ``(1, C, h, w)``.
            ids: ``(1, K)``.
        """
        made: dict[str, NDArray[np.float32]] = {}
        predicted: dict[str, Predicted] = {}
        seconds: dict[str, float] = {}
        for name, engine in self.engines.items():
            started = time.perf_counter()
            found = engine.run(batch, ids)
            made[name] = from_rank(found.area_rank[0])
            seconds[name] = time.perf_counter() - started
            about = engine.metadata
            if found.retention is not None:
                predicted[name] = Predicted(
                    about.areas, found.retention[0], found.area_rank[0], about.infills, about.random
                )
            if self._refinement is not None:
                started = time.perf_counter()
                start = from_rank(found.area_rank)
                refined = name + self._refinement.suffix
                made[refined] = self._refinement.optimise.refine(batch, feature_map, ids, start)[0]
                seconds[refined] = seconds[name] + time.perf_counter() - started
        for name, method in self._methods.items():
            started = time.perf_counter()
            made[name] = method.saliency(batch, feature_map, ids)[0]
            seconds[name] = time.perf_counter() - started
        return Maps({name: made[name] for name in self.names}, predicted, seconds)


def _engine(path: str | Path, model: Model, session: Mapping[str, Any]) -> FileEngine:
    engine = FileEngine(path, **session)
    variant = engine.metadata.variant
    if variant.preprocessing or variant.slots is not None:
        raise ExplainerError(
            f"{path} preprocesses inside or answers a fixed request only; evaluate the plain file that it was made from"
        )
    engine.require_model(model)
    return engine


def named_explainers(explainers: Mapping[str, str | Path] | Sequence[str | Path] | str | Path) -> dict[str, str | Path]:
    """Names for explainer files: ``generator`` for one alone, else their file names without the ending.

    Raises:
        UsageError: two files have the same name.
    """
    if isinstance(explainers, Mapping):
        return dict(explainers)
    files = [explainers] if isinstance(explainers, (str, Path)) else list(explainers)
    if len(files) == 1:
        return {GENERATOR: files[0]}
    found = {Path(file).stem: file for file in files}
    if len(found) < len(files):
        raise UsageError(f"explainers need different file names, but got {', '.join(map(str, files))}")
    return found
