"""`evaluate`: several methods over the same images, filters, areas and infills in one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.images import list_images, read_image
from ..errors import ExplainerError, ImageError, OutputError
from ..methods import METHODS
from ..methods.interface import Method
from ..model import Model, cut, load_model
from ..runtime.engine import Engine, FileEngine
from ..runtime.infill import HELD_OUT
from ..runtime.session import Session
from ..runtime.stream import Failure
from ..runtime.verify import Verifier
from .bootstrap import Interval, bootstrap_mean
from .retention import AREAS, RetentionAUC

STRONGEST = 60
"""Filters are drawn among so many strongest by peak."""


@dataclass(frozen=True)
class Evaluation:
    """Retention AUC of every method.

    Attributes:
        layer: the explained layer.
        images: number of images measured.
        filters: filters per image.
        auc: by infill, by method: mean over images with its bootstrap interval.
        lift: likewise, AUC minus that of ``random``.
        against_activation: likewise, the paired difference to the upsampled feature map.
        dead: (image, filter) pairs left out because the filter is dead there.
        failures: images that could not be read.
    """

    layer: str
    images: int
    filters: int
    auc: Mapping[str, Mapping[str, Interval]]
    lift: Mapping[str, Mapping[str, Interval]]
    against_activation: Mapping[str, Mapping[str, Interval]]
    dead: int
    failures: tuple[Failure, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        tables = {
            name: {
                infill: {method: vars(interval) for method, interval in row.items()}
                for infill, row in getattr(self, name).items()
            }
            for name in ("auc", "lift", "against_activation")
        }
        counts = {"layer": self.layer, "images": self.images, "filters": self.filters, "dead": self.dead}
        return {**counts, **tables, "failures": [vars(failure) for failure in self.failures]}


class _Maps:
    """Saliency of every method for one image."""

    def __init__(self, model: Model, layer: str, methods: Sequence[str], engines: Mapping[str, Engine]) -> None:
        self.session = Session(cut(model.proto, [layer]))
        self.layer, self.name = layer, model.input_spec.name
        self.engines = engines
        self.methods: dict[str, Method] = {name: METHODS[name](model, layer) for name in methods}

    def feature_map(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.session.run(None, {self.name: batch})[self.layer].astype(np.float32)

    def all(
        self, batch: NDArray[np.float32], feature_map: NDArray[np.float32], ids: NDArray[np.int64]
    ) -> dict[str, NDArray[np.float32]]:
        maps = {name: method.saliency(batch, feature_map, ids)[0] for name, method in self.methods.items()}
        for name, engine in self.engines.items():
            maps[name] = -engine.run(batch, ids).area_rank[0]
        return maps


def draw_filters(feature_map: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ids among the strongest living filters of one image: ``(C, h, w)`` -> at most ``(count,)``."""
    peaks = feature_map.max(axis=(1, 2))
    living = np.argsort(-peaks, kind="stable")[: min(STRONGEST, int((peaks > 0).sum()))]
    drawn: NDArray[np.int64] = rng.choice(living, size=min(count, living.size), replace=False).astype(np.int64)
    return drawn


def evaluate(
    model: Model | str | Path,
    explainers: Mapping[str, str | Path] | str | Path,
    images: Sequence[str | Path],
    *,
    methods: Sequence[str] = ("random", "activation"),
    infills: Sequence[str] = (HELD_OUT, "blur"),
    filters: int = 5,
    areas: Sequence[float] = AREAS,
    seed: int = 0,
    on_image: Callable[[int, int], None] = lambda done, count: None,
) -> Evaluation:
    """Measure explainers and methods side by side.

    Args:
        model: the CNN.
        explainers: explainer files by name, or one, which is then called ``generator``.
        images: held-out images: files, folders or globs.
        methods: names of `fsagn_onnx.methods.METHODS`; ``random`` and ``activation`` are always among them.
        infills: at least one that no compared method trained on.
        filters: filters drawn per image among its 60 strongest.
        areas: at which masks are cut.
        seed: of the drawn filters and random masks.
        on_image: is told how many of how many images are done.

    Returns:
        The table.

    Raises:
        ExplainerError: if an explainer belongs to another model.
        ImageError: if no image can be read.
    """
    model = model if isinstance(model, Model) else load_model(model)
    named = explainers if isinstance(explainers, Mapping) else {"generator": explainers}
    engines = {name: _engine(path, model) for name, path in named.items()}
    layer = next(iter(engines.values())).metadata.layer if engines else model.default_layer.value
    all_methods = list(dict.fromkeys(("random", "activation", *methods)))
    maps = _Maps(model, layer, all_methods, engines)
    spec = model.input_spec
    meters = {
        infill: {
            name: RetentionAUC(Verifier(model.proto, layer, spec, infill_kind=infill), spec.size, areas)
            for name in (*all_methods, *engines)
        }
        for infill in infills
    }
    paths = list(list_images(images))
    failures: list[Failure] = []
    dead = 0
    for index, path in enumerate(paths):
        try:
            pixels, _ = spec.fit(read_image(path))
        except ImageError as error:
            failures.append(Failure(str(path), str(error)))
            continue
        batch = np.asarray(spec.normalise(pixels), dtype=np.float32)[None]
        feature_map = maps.feature_map(batch)
        ids = draw_filters(feature_map[0], filters, np.random.default_rng([seed, index]))
        dead += filters - len(ids)
        if len(ids):
            for name, saliency in maps.all(batch, feature_map, ids[None]).items():
                for infill in infills:
                    meters[infill][name].update(pixels, saliency, ids.tolist())
        on_image(index + 1, len(paths))
    if len(failures) == len(paths):
        raise ImageError(f"none of the {len(paths)} images can be read")
    return _table(layer, filters, len(paths) - len(failures), meters, dead, tuple(failures))


def _engine(path: str | Path, model: Model) -> FileEngine:
    engine = FileEngine(path)
    if engine.metadata.model_sha256 != model.sha256:
        raise ExplainerError(
            f"{path} was made for another model ({engine.metadata.model_sha256[:12]}) than {model.path} "
            f"({model.sha256[:12]}); give the model that it was made for"
        )
    return engine


def write_table(path: Path, document: str) -> None:
    """Write a table's JSON document.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(document + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; choose another --out") from error


def _table(
    layer: str,
    filters: int,
    images: int,
    meters: Mapping[str, Mapping[str, RetentionAUC]],
    dead: int,
    failures: tuple[Failure, ...],
) -> Evaluation:
    values = {infill: {name: meter.compute() for name, meter in row.items()} for infill, row in meters.items()}

    def against(base: str) -> dict[str, dict[str, Interval]]:
        return {
            infill: {name: bootstrap_mean(value - row[base]) for name, value in row.items() if name != base}
            for infill, row in values.items()
        }

    auc = {infill: {name: bootstrap_mean(value) for name, value in row.items()} for infill, row in values.items()}
    return Evaluation(layer, images, filters, auc, against("random"), against("activation"), dead, failures)
