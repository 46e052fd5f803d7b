"""`evaluate`: any number of methods over the same images, filters, layer, areas and infills in one run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.images import list_images, read_image
from ..errors import AnnotationError, ImageError, UsageError
from ..methods import Passes
from ..model import Model, load_model
from ..runtime.feature_maps import draw_filters
from ..runtime.infill import HELD_OUT, MASK_FREE, Pixels
from ..runtime.stream import Failure
from .contenders import GENERATOR, Contenders, named_explainers
from .decision_view import CLASS_METHODS, Deciders
from .earlier import EarlierEvaluation
from .folder import EvaluationFolder
from .image_masks import AREAS, ImageMasks
from .metrics.registry import MetricSetting, metrics
from .metrics.retention import RetentionAUC
from .part_masks import PartMasks
from .probe import Probe
from .result import Cost, Evaluation

METRICS = tuple(metrics())
"""Names of the families, in the order of the tables."""
DECISION = "decision"
"""The family about the model's answer instead of its filters; measured where it is asked for."""
FILTER_METRICS = tuple(name for name in METRICS if name != DECISION)
"""The families that are measured unless told."""


@dataclass(frozen=True)
class Options:
    """What is measured, and how.

    Attributes:
        methods: names of `fsagn_onnx.methods.METHODS`; ``generator`` stands for the explainers. ``activation`` and
            ``random`` are always among them.
        infills: what shows through outside the mask; the first is the one of the costly metrics. At least one of
            them must be one that no compared method trained on or optimises for.
        filters: filters drawn per image among its 60 strongest.
        areas: at which masks are cut.
        metrics: names of `METRICS`.
        layer: value name; None: the explainers', or the model's default.
        class_methods: names of `fsagn_onnx.methods.CLASS_METHODS` (``NAME@LAYER`` at another layer) for ``decision``.
        good: folder of aligned good pictures of the same names, for exchange agreement.
        parts: part annotations, see `fsagn_onnx.data.annotations`; the part metrics need them.
        refine: steps of refinement of the explainers' maps, measured beside them; 0: none.
        beside: folder of an earlier evaluation whose methods join the tables; same images, filters and infills.
        seed: of the drawn filters.
        providers: see `Session`.
        threads: see `Session`.
    """

    methods: Sequence[str] = (GENERATOR, "activation", "random")
    infills: Sequence[str] = (HELD_OUT, "blur", "mean")
    filters: int = 5
    areas: Sequence[float] = AREAS
    metrics: Sequence[str] = FILTER_METRICS
    layer: str | None = None
    class_methods: Sequence[str] = CLASS_METHODS
    good: Path | None = None
    parts: Path | None = None
    refine: int = 0
    beside: Path | None = None
    seed: int = 0
    providers: str | Sequence[str] = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in self.infills:
            if name != HELD_OUT and name not in MASK_FREE:
                raise UsageError(f"no infill {name!r}; there are {', '.join((*MASK_FREE, HELD_OUT))}")
        for name in self.metrics:
            if name not in METRICS:
                raise UsageError(f"no metric {name!r}; there are {', '.join(METRICS)}")
        if not self.infills or not self.metrics or self.filters < 1:
            raise UsageError("at least one infill, one metric and one filter per image must be asked for")
        if (
            not self.areas
            or not all(0 < area < 1 for area in self.areas)
            or list(self.areas) != sorted(set(self.areas))
        ):
            raise UsageError(f"areas must be rising and between 0 and 1, but got {list(self.areas)}")


Records = Iterator[dict[str, Any]]
Measuring = Callable[["Run", Mapping[str, str | Path], EvaluationFolder, Sequence[Path], int], Records]
"""Who measures: gives the records of images from a place of the list on, of an opened run with its explainers."""

SCALE = "-log rank"
"""Of explainers' maps when they are smoothed (see `from_rank`); figures on another one are not to be mixed in."""


class Run:
    """One evaluation: measures image after image, and keeps what every metric needs of them.

    Args:
        model: the CNN.
        explainers: explainer files by name.
        options: what is measured.

    Raises:
        UsageError: options that do not fit to the methods.
    """

    def __init__(self, model: Model, explainers: Mapping[str, str | Path], options: Options) -> None:
        self.model, self.options, self.spec = model, options, model.input_spec
        model.require_one_input()
        session: dict[str, Any] = {"providers": options.providers, "threads": options.threads}
        self.contenders = Contenders(model, explainers, options.methods, options.layer, options.refine, **session)
        trained = self.contenders.trained_infills()
        if not set(options.infills) - trained:
            raise UsageError(
                f"every infill of {', '.join(options.infills)} is one that a compared method trained on or optimises "
                f"for; add {HELD_OUT!r}, which none ever sees"
            )
        self.probe = Probe(model, self.contenders.layer, **session)
        self.deciders = None
        if DECISION in options.metrics:
            engines, layer = self.contenders.engines, self.contenders.layer
            self.deciders = Deciders(model, layer, engines, options.class_methods, options.good, **session)
        self.parts = PartMasks(options.parts) if options.parts is not None else None
        setting = MetricSetting(self.contenders.names[0], options.areas)
        self.metrics = [make(setting) for name, make in metrics().items() if name in options.metrics]
        self.living = np.zeros(0, dtype=np.bool_)
        self.seconds: dict[str, float] = {}
        self.passes: dict[str, Passes] = {}
        self.images = self.pairs = self.missing = 0
        self.failures: list[Failure] = []

    def arguments(self, paths: Sequence[Path]) -> dict[str, Any]:
        """What a resumed run must repeat."""
        options = self.options
        files = {name: engine.sha256 for name, engine in self.contenders.engines.items()}
        return {
            "content": self.model.content,
            "layer": self.contenders.layer,
            "explainers": files,
            "methods": self.contenders.names,
            "infills": list(options.infills),
            "filters": options.filters,
            "areas": list(options.areas),
            "metrics": [metric.name for metric in self.metrics],
            "parts": None if options.parts is None else str(options.parts),
            **self._about_decisions(),
            "seed": options.seed,
            "scale": SCALE,
            "images": hashlib.sha256("\n".join(map(str, paths)).encode("utf-8", "surrogateescape")).hexdigest(),
        }

    def _about_decisions(self) -> dict[str, Any]:
        good = self.options.good
        told = {"class_methods": list(self.options.class_methods), "good": None if good is None else str(good)}
        return told if self.deciders is not None else {}

    def record(self, paths: Sequence[Path], index: int) -> dict[str, Any]:
        """Measure one image; JSON values."""
        path = paths[index]
        try:
            image = read_image(path)
            pixels = self.spec.fit(image)[0]
            annotation = self.parts.of(path, image, self.spec) if self.parts is not None else None
        except (AnnotationError, ImageError) as error:
            return {"path": str(path), "failed": str(error)}
        feature_map = self.probe.features(pixels[None])
        ids = draw_filters(feature_map[0], self.options.filters, np.random.default_rng([self.options.seed, index]))
        living = np.packbits(feature_map[0].max(axis=(1, 2)) > 0)
        record = {
            "path": str(path),
            "ids": ids.tolist(),
            "filters": feature_map.shape[1],
            "living": base64.b64encode(living.tobytes()).decode("ascii"),
        }
        if not len(ids):
            return {**record, "seconds": {}, "passes": {}, "metrics": {}}
        batch = self.spec.normalise(pixels)[None]
        maps = self.contenders.maps(batch, feature_map, ids[None])
        view = ImageMasks(
            self.probe,
            path,
            pixels,
            ids,
            feature_map[0, ids],
            maps.saliency,
            self.options.infills,
            self.options.areas,
            self._other(paths, index),
            annotation,
            maps.predicted,
            None if self.deciders is None else self.deciders.look(path, pixels, batch, annotation),
        )
        measured = {metric.name: metric.measure(view) for metric in self.metrics}
        passes = {name: self.contenders.passes(name, len(ids)) for name in self.contenders.names}
        return {**record, "seconds": maps.seconds, "passes": passes, "metrics": measured}

    def _other(self, paths: Sequence[Path], index: int) -> Pixels | None:
        """The next image of the run, or None where there is none or it cannot be read."""
        if len(paths) < 2:
            return None
        try:
            return self.spec.fit(read_image(paths[(index + 1) % len(paths)]))[0]
        except ImageError:
            return None

    def add(self, record: Mapping[str, Any]) -> None:
        """Take one image's record in."""
        if "failed" in record:
            self.failures.append(Failure(record["path"], record["failed"]))
            return
        bits = np.frombuffer(base64.b64decode(record["living"]), dtype=np.uint8)
        living = np.unpackbits(bits, count=record["filters"]).astype(np.bool_)
        self.living = living if not self.living.size else self.living | living
        self.images += 1
        self.pairs += len(record["ids"])
        self.missing += self.options.filters - len(record["ids"])
        for name, seconds in record["seconds"].items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, (forward, backward) in record.get("passes", {}).items():
            self.passes[name] = max(self.passes.get(name, Passes(0, 0)), Passes(forward, backward))
        if record["metrics"]:
            for metric in self.metrics:
                metric.update(record["metrics"][metric.name])

    def result(self) -> Evaluation:
        """The tables over all images added so far."""
        names = list(self.seconds) or self.contenders.names
        pairs = max(1, self.pairs)
        costs = {name: Cost(self.seconds.get(name, 0.0) / pairs, self.passes.get(name, Passes(0, 0))) for name in names}
        return Evaluation(
            layer=self.contenders.layer,
            methods=tuple(names),
            images=self.images,
            pairs=self.pairs,
            filters=self.options.filters,
            rows=tuple(row for metric in self.metrics for row in metric.compute()),
            curves=self._curves(),
            areas=tuple(self.options.areas),
            costs=costs,
            dead=tuple(np.flatnonzero(~self.living).tolist()),
            missing=self.missing,
            failures=tuple(self.failures),
        )

    def _curves(self) -> dict[str, dict[str, tuple[float, ...]]]:
        metric = next((metric for metric in self.metrics if isinstance(metric, RetentionAUC)), None)
        if metric is None or not self.pairs:
            return {}
        return {
            infill: {name: tuple(metric.curve(name, infill).tolist()) for name in self.seconds}
            for infill in self.options.infills
        }


def evaluate(
    model: Model | str | Path,
    explainers: Mapping[str, str | Path] | Sequence[str | Path] | str | Path,
    images: Sequence[str | Path],
    options: Options | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_image: Callable[[int, int], None] = lambda done, count: None,
    measuring: Measuring | None = None,
) -> Evaluation:
    """Measure explainers and methods side by side.

    Args:
        model: the CNN.
        explainers: explainer files: by name; several, called by their file names; or one, called ``generator``.
        images: held-out images: files, folders or globs.
        options: what is measured.
        out: folder for the results; None: none are written.
        resume: go on with the images that the folder lacks.
        overwrite: replace what the folder holds.
        on_image: is told how many of how many images are done.
        measuring: who measures, see `Measuring`; None: this process. It needs ``out``.

    Returns:
        The figures.

    Raises:
        ExplainerError: an explainer belongs to another model or layer.
        ImageError: no image can be read.
        OutputError: the folder cannot be written or holds another run.
        UsageError: options that do not exist or do not fit.

    Example:
        >>> from fsagn_onnx.evaluation import Options
        >>> options = Options(metrics=("retention",), infills=("inpaint",), filters=1)
        >>> found = evaluate("model.onnx", "explainer.onnx", ["photos"], options)
        >>> found.methods, found.images
        (('generator', 'activation', 'random'), 4)
    """
    if measuring is not None and out is None:
        raise UsageError("workers of a cluster write what they measure into the folder of --out: name one that all see")
    model = model if isinstance(model, Model) else load_model(model)
    named = named_explainers(explainers)
    run = Run(model, named, options or Options())
    paths = list(list_images(images))
    if not paths:
        raise ImageError(f"no images in {', '.join(map(str, images))}: name files, folders or globs")
    arguments = run.arguments(paths)
    beside = None if run.options.beside is None else EarlierEvaluation(run.options.beside, arguments)
    folder = None if out is None else EvaluationFolder(Path(out), arguments, resume=resume, overwrite=overwrite)
    elsewhere = None
    if measuring is not None and folder is not None:
        elsewhere = partial(measuring, run, named, folder, paths)
    with closing(run.probe), closing(folder) if folder is not None else nullcontext():
        for done, record in enumerate(_records(run, folder, paths, elsewhere), start=1):
            run.add(record if beside is None else beside.join(record))
            on_image(done, len(paths))
        if len(run.failures) == len(paths):
            raise ImageError(f"none of the {len(paths)} images can be read; the first: {run.failures[0].message}")
        evaluation = run.result()
        if folder is not None:
            folder.finish(evaluation)
    return evaluation


def _records(
    run: Run, folder: EvaluationFolder | None, paths: Sequence[Path], elsewhere: Callable[[int], Records] | None
) -> Iterator[dict[str, Any]]:
    """The record of every image, in order: from the folder where it is there, else measured and appended."""
    start = 0
    if folder is not None:
        for record in folder.lines():
            yield record
            start += 1
    measured = (run.record(paths, index) for index in range(start, len(paths)))
    for record in measured if elsewhere is None else elsewhere(start):
        if folder is not None:
            folder.append(record)
        yield record
