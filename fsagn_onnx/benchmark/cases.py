"""The grid of a benchmark: every explainer with every provider, number of threads, batch and number of filters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.images import list_images, read_image
from ..errors import ExplainerError, UsageError
from ..model.model import Model
from ..runtime.contract import CLASSES, FILTERS, STRONGEST
from ..runtime.file_engine import FileEngine
from ..runtime.filter_request import FilterRequest
from ..runtime.session import Session
from .machine import machine
from .paired import Spread, paired

Array = NDArray[Any]


@dataclass(frozen=True)
class BenchmarkRow:
    """One measurement.

    Attributes:
        explainer: file name.
        precision: of the explainer.
        provider: that computes both.
        threads: of onnxruntime; None: its own choice.
        batch: images per pass.
        filters: K, filters per image.
        model_ms: the plain model, per pass.
        explainer_ms: the explainer, per pass; the model is inside unless its encoder is its own.
        ratio: explainer / model, within each pair.
        images_per_second: of the explainer, at the median.
        same_class: share of images whose best class is the plain model's; None where there is none to compare.
    """

    explainer: str
    precision: str
    provider: str
    threads: int | None
    batch: int
    filters: int
    model_ms: Spread
    explainer_ms: Spread
    ratio: Spread
    images_per_second: float
    same_class: float | None


@dataclass(frozen=True)
class Benchmark:
    """What is measured.

    Attributes:
        model: the plain model.
        explainers: explainer files of this model.
        images: what they look at; random fields where there are none.
        batches: images per pass.
        filters: numbers of filters.
        threads: numbers of threads; None: onnxruntime's own choice.
        providers: see `Session`.
        pairs: pairs of runs.
    """

    model: Model
    explainers: Sequence[Path]
    images: Sequence[str] = ()
    batches: Sequence[int] = (1,)
    filters: Sequence[int] = (5,)
    threads: Sequence[int | None] = (None,)
    providers: Sequence[str] = ("auto",)
    pairs: int = 30
    rows: list[BenchmarkRow] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Everything as JSON values."""
        model_bytes = self.model.path.stat().st_size
        return {
            "machine": machine(),
            "pairs": self.pairs,
            "model": {"file": self.model.path.name, "bytes": model_bytes},
            "explainers": [
                {"file": path.name, "bytes": path.stat().st_size, "added_bytes": path.stat().st_size - model_bytes}
                for path in self.explainers
            ],
            "rows": [asdict(row) for row in self.rows],
        }


def run_benchmark(benchmark: Benchmark) -> Iterator[BenchmarkRow]:
    """Measure, row by row; rows are kept in ``benchmark.rows`` too.

    Raises:
        ExplainerError: an explainer of another model, or whose model outputs differ from the plain model's.
        UsageError: numbers below 1.
        FsagnError: a model or provider does not work.
    """
    if min((*benchmark.batches, *benchmark.filters, benchmark.pairs)) < 1:
        raise UsageError("batches, filters and pairs must be at least 1")
    pixels = _pixels(benchmark)
    settings = itertools.product(benchmark.explainers, benchmark.providers, benchmark.threads)
    for path, providers, threads in settings:
        engine = FileEngine(path, providers, threads)
        plain = Session(benchmark.model.path, engine.provider, threads)
        try:
            engine.require_model(benchmark.model)
            for batch, slots in itertools.product(benchmark.batches, _slots(engine, benchmark.filters)):
                row = _measure(benchmark, engine, plain, pixels, batch, slots, threads)
                benchmark.rows.append(row)
                yield row
        finally:
            engine.close()
            plain.close()


def _slots(engine: FileEngine, filters: Sequence[int]) -> list[tuple[int, ...]]:
    fixed = engine.metadata.variant.slots
    return [fixed] if fixed else [FilterRequest.parse(f"top:{count}", engine.metadata).slots for count in filters]


def _pixels(benchmark: Benchmark) -> list[NDArray[np.uint8]]:
    """Pictures; smooth random ones where none are given."""
    count = max(benchmark.batches)
    if benchmark.images:
        paths = list(itertools.islice(list_images(benchmark.images), count))
        if not paths:
            raise UsageError(f"no images in {', '.join(benchmark.images)}: name files, folders or globs")
        return [read_image(path) for path in paths]
    rng = np.random.default_rng(0)
    height, width = benchmark.model.input_spec.size
    coarse = rng.integers(0, 256, (count, height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return [picture.repeat(16, axis=0).repeat(16, axis=1)[:height, :width] for picture in coarse]


def _measure(
    benchmark: Benchmark,
    engine: FileEngine,
    plain: Session,
    pixels: Sequence[NDArray[np.uint8]],
    batch: int,
    slots: tuple[int, ...],
    threads: int | None,
) -> BenchmarkRow:
    spec = benchmark.model.input_spec
    chosen = [np.ascontiguousarray(pixels[n % len(pixels)]) for n in range(batch)]
    values = np.stack([spec.preprocess(picture)[0] for picture in chosen])
    inside = engine.metadata.variant.preprocessing
    given = np.stack([chosen[0]] * batch) if inside else values
    values = np.stack([values[0]] * batch) if inside else values
    filters = np.tile(np.array(slots, dtype=np.int64), (batch, 1))
    feeds: dict[str, Array] = {engine.metadata.input.name: given}
    if any(port.name == FILTERS for port in engine.inputs):
        feeds[FILTERS] = filters
    if any(port.name == CLASSES for port in engine.inputs):
        feeds[CLASSES] = np.full((len(filters), 1), STRONGEST, dtype=np.int64)
    model_feeds: dict[str, Array] = {spec.name: values}
    same = _same_class(plain.run(None, model_feeds), engine, given, filters)
    if same is not None and same < 1 and engine.metadata.variant.precision == "fp32" and not inside:
        raise ExplainerError(f"{engine.path}: the model inside answers otherwise than {benchmark.model.path}")
    session = engine.session
    model_ms, explainer_ms, ratio = paired(
        lambda: plain.run(None, model_feeds), lambda: session.run(None, feeds), benchmark.pairs
    )
    return BenchmarkRow(
        explainer=engine.path.name,
        precision=engine.metadata.variant.precision,
        provider=engine.provider,
        threads=threads,
        batch=batch,
        filters=len(slots),
        model_ms=model_ms,
        explainer_ms=explainer_ms,
        ratio=ratio,
        images_per_second=1e3 * batch / explainer_ms.median,
        same_class=same,
    )


def _same_class(expected: dict[str, Array], engine: FileEngine, given: Array, filters: Array) -> float | None:
    """Share of images whose class is the plain model's; None where it has none."""
    classes = engine.classes
    wanted, got = classes.winners(expected), classes.winners(engine.run(given, filters).outputs)
    return None if wanted is None or got is None else float((wanted == got).mean())
