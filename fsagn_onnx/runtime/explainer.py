"""Explainer: images in, explanations out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.closing import Closing
from ..errors import FsagnError, ImageError, UsageError
from ..model.class_names import given_names
from ..model.model import Model
from .area import AreaWish
from .class_request import AskedClasses, class_slots
from .classes import Classes
from .contract import STRONGEST
from .direction_session import check_directions
from .engine import Engine, EngineMetadata, Pass, merge
from .explanation import Explanation
from .explanation_builder import Answering, not_finite
from .file_engine import FileEngine
from .filter_request import FilterRequest
from .intervention import BoxMeter, DecisionMeter
from .stream import DECODERS, Failure, Images, Prepared, named_images, ordered_map, prepare
from .tuning import Tuning
from .verifier import Verifier

Filters: TypeAlias = str | int | Sequence[int] | None
"""Which filters are explained, see `Explainer.explain`."""

SLOTS_PER_PASS: Final = 1024
"""Images times filters that go through the graph at a time, at most (but always one image)."""


class Explainer(Closing):
    """Explains images with an explainer file or another engine.

    Use it as a context manager, or call `close`. Threads may share it; it works in a forked child, and can be sent to
    a spawned process.

    Attributes:
        engine: what computes.
        classes: how the model's outputs are read.

    Args:
        path_or_engine: an explainer file, or an engine of a training-free method.
        providers: onnxruntime providers: ``auto`` (CUDA where it works, else the CPU), ``cpu``, ``cuda``, ...
        threads: threads of onnxruntime; None leaves it to onnxruntime.
        tuning: a cache of optimised graphs, and what concerns CUDA.
        output: name of the model's output that classifies; None: found in its graph.
        scores: what its numbers are, one of `SCORES`; None: found.
        labels: names of the classes, or a file with them; None: the explainer's own. See `read_class_names`.
        detections: layout of a detector's boxes, one of `LAYOUTS`; ``segmentation``: a map of classes; ``none``:
            neither is shown; None: found in the graph.

    Raises:
        ExplainerError: the file is no explainer, too new or broken.
        UsageError: no such provider or output, an output that cannot be what it is said to be, or not as many class
            names as classes.
        ModelError: the class names cannot be read.

    Example:
        >>> with Explainer("explainer.onnx") as explainer:
        ...     (explanation,) = explainer.explain("photos/0.png", filters="top:3")
        >>> [found.id for found in explanation.filters]
        [61, 64, 48]
    """

    def __init__(
        self,
        path_or_engine: str | Path | Engine,
        *,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        tuning: Tuning | None = None,
        output: str | None = None,
        scores: str | None = None,
        labels: str | Path | Sequence[str] | None = None,
        detections: str | None = None,
    ) -> None:
        names = given_names(labels)
        self._owns = isinstance(path_or_engine, str | Path)
        self.engine: Engine = (
            FileEngine(path_or_engine, providers, threads, tuning)
            if isinstance(path_or_engine, str | Path)
            else path_or_engine
        )
        self._providers = providers
        self._threads = threads
        try:
            self.classes: Classes = self.engine.classes.chosen(output, scores, names, detections)
        except FsagnError:
            self.close()
            raise

    @property
    def metadata(self) -> EngineMetadata:
        """Layer, number of filters, input, labels, areas; an `ExplainerMetadata` for a file."""
        return self.engine.metadata

    @property
    def provider(self) -> str:
        """The onnxruntime provider that computes."""
        return self.engine.provider

    def explain(
        self,
        images: Images,
        filters: Filters = None,
        area: str | float = "auto",
        *,
        classes: AskedClasses = None,
        directions: ArrayLike | None = None,
        batch_size: int = 8,
        verify: bool | int = False,
        measure: bool = False,
        model: Model | None = None,
    ) -> list[Explanation]:
        """Explain some images; for many, use `stream`.

        Args:
            images: files, folders, globs, uint8 RGB arrays (H, W, 3), or images of Pillow; one or several.
            filters: ``decisive:K`` (the K that add most to the first class asked about), ``against:K``, ``top:K`` (the
                K strongest of those active in the image), ``all``, ids (``3,17`` or a sequence); None: ``decisive:5``
                where the explainer can be asked about classes, else ``top:5``.
            area: ``auto`` (the sufficient area, see `sufficient_area`), a share in (0, 1], or ``r:.8``: the smallest
                area that keeps so much.
            classes: whose evidence is asked for: names or numbers, -1 or ``top:J`` for the highest scores; None: the
                class with the highest score where filters are decisive, else none.
            directions: (D, C) over the layer's C filters, for example a concept vector or the difference of two
                classes; where each looks.
            batch_size: images per pass.
            verify: measure retention on the masked images, and choose areas by it; a number: of so many first images.
            measure: measure what the decisions asked about rest on: what the model answers without the evidence, with
                it alone, and without as much elsewhere (about 20 passes of the model per image and class).
            model: the model, if the explainer must be for it, or does not contain it and something is measured.

        Returns:
            One explanation per image, in order.

        Raises:
            ImageError: an image cannot be explained; the first one's message.
            ExplainerError: the explainer belongs to another model, or does not contain it.
            UsageError: filters, area, classes, directions or batch size out of range.
        """
        explained = []
        for result in self.stream(
            images, filters, area, classes=classes, directions=directions, batch_size=batch_size, verify=verify,
            measure=measure, model=model,
        ):  # fmt: skip
            if isinstance(result, Failure):
                raise ImageError(result.message)
            explained.append(result)
        return explained

    def stream(
        self,
        images: Images,
        filters: Filters = None,
        area: str | float = "auto",
        *,
        classes: AskedClasses = None,
        directions: ArrayLike | None = None,
        batch_size: int = 8,
        verify: bool | int = False,
        measure: bool = False,
        model: Model | None = None,
        previews: bool = True,
    ) -> Iterator[Explanation | Failure]:
        """Explain any number of images at flat memory; arguments as for `explain`.

        Decoding runs ahead of inference by one batch. Arguments are checked at once, before the first result
        is asked for. ``previews=False`` keeps no reduced pictures, which is faster; explanations cannot draw
        themselves then.

        Returns:
            An iterator of an explanation or a failure per image, in order.

        Raises:
            UsageError: a request that the explainer cannot answer.
        """
        self.check(filters, area, batch_size, model, classes)
        request, wish = FilterRequest.parse(self._filters(filters), self.metadata), AreaWish.parse(area)
        about, asked = self._about(request, classes), None
        if directions is not None:
            if not self.engine.answers_classes:
                raise UsageError(self.engine.silent("directions"))
            asked = check_directions(directions, self.metadata.filters, self.metadata.layer)
        verifier = self._verifier(model, batch_size) if verify else None
        meter = self._meter(model, batch_size) if measure and about else None
        answering = Answering(self.metadata, self.classes, request, wish, verifier, about, asked, meter)
        images_per_pass = self.images_per_pass(filters, classes, batch_size)
        limit = None if verify is True else int(verify)
        return self._results(images, answering, images_per_pass, previews, limit)

    def images_per_pass(self, filters: Filters = None, classes: AskedClasses = None, batch_size: int = 8) -> int:
        """How many images `stream` takes through the explainer at a time; arguments as there."""
        if self.classes.detector is not None and self.classes.detector.alone:
            return 1  # whose boxes they are does not stand in the lists
        request = FilterRequest.parse(self._filters(filters), self.metadata)
        return max(1, min(batch_size, SLOTS_PER_PASS // (len(request) + len(self._about(request, classes)))))

    def _about(self, request: FilterRequest, classes: AskedClasses) -> tuple[int, ...]:
        """The classes asked about: those named, or the answer where decisive filters are."""
        return (STRONGEST,) if classes is None and request.decisive else class_slots(classes, self.classes)

    def _filters(self, filters: Filters) -> str | int | Sequence[int]:
        """The filters asked for, or those that are explained unless told."""
        return self.default_filters if filters is None else filters

    @property
    def default_filters(self) -> str:
        """The filters that are explained unless told: decisive ones where it can be asked about classes."""
        return self.engine.default_filters

    def check(
        self,
        filters: Filters,
        area: str | float,
        batch_size: int,
        model: Model | None = None,
        classes: AskedClasses = None,
    ) -> None:
        """Refuse arguments that `stream` would refuse, without computing or writing anything.

        Raises:
            ExplainerError: the explainer belongs to another model.
            UsageError: filters, area, classes or batch size out of range.
        """
        self.engine.check_request(FilterRequest.parse(self._filters(filters), self.metadata).slots)
        if class_slots(classes, self.classes) and not self.engine.answers_classes:
            raise UsageError(self.engine.silent("classes"))
        AreaWish.parse(area)
        if batch_size < 1:
            raise UsageError(f"batch size must be at least 1, but got {batch_size}")
        if model is not None:
            self.engine.require_model(model)

    def _results(
        self, images: Images, answering: Answering, images_per_pass: int, previews: bool, limit: int | None
    ) -> Iterator[Explanation | Failure]:
        spec, raw = self.metadata.input, self.engine.takes_pixels
        prepared = ordered_map(
            lambda named: prepare(named, spec, raw=raw, preview=previews),
            named_images(images),
            DECODERS,
            images_per_pass,
        )
        try:
            while batch := list(islice(prepared, images_per_pass)):
                yield from self._explain_batch(batch, answering, limit)
                limit = None if limit is None else max(0, limit - len(batch))
        finally:
            prepared.close()
            for measuring in (answering.verifier, answering.meter):
                if measuring is not None:
                    measuring.close()

    def _explain_batch(
        self, batch: Iterable[Prepared | Failure], answering: Answering, limit: int | None
    ) -> list[Explanation | Failure]:
        """Explain a batch; of its first ``limit`` images retention is measured, where it is at all."""
        predicting = replace(answering, verifier=None)
        results = list(batch)
        alike: dict[tuple[int, ...], list[int]] = {}  # images of one size go together
        for place, item in enumerate(results):
            if isinstance(item, Prepared):
                alike.setdefault(item.values.shape, []).append(place)
        answers: list[Explanation | Failure | None] = [None if isinstance(i, Prepared) else i for i in results]
        for places in alike.values():
            ready = [item for place in places if isinstance(item := results[place], Prepared)]
            computed = self._compute(np.stack([item.values for item in ready]), answering)
            for n, (place, item) in enumerate(zip(places, ready, strict=True)):
                if broken := not_finite(computed, n, self.classes):
                    answers[place] = Failure(item.name, _not_finite_message(item.name, broken))
                else:
                    one = answering if limit is None or place < limit else predicting
                    answers[place] = one.explanation(item, computed, n)
        return [answer for answer in answers if answer is not None]

    def _compute(self, values: NDArray[Any], answering: Answering) -> Pass:
        """All slots of a batch."""
        count, about = len(values), answering.about
        parts = list(answering.request.passes(count))
        if about:
            wanted = np.tile(np.asarray(about, dtype=np.int64), (count, 1))
            computed = merge([self.engine.decide(values, part, wanted) for part in parts])
        else:
            computed = merge([self.engine.run(values, part) for part in parts])
        if answering.directions is None:
            return computed
        return replace(computed, directions=self.engine.direct(values, answering.directions))

    def _verifier(self, model: Model | None, batch_size: int) -> Verifier:
        return Verifier(
            self.engine.model_graph() if model is None else model.proto,
            self.metadata.layer,
            self.metadata.input,
            providers=self._providers,
            threads=self._threads,
            batch_size=batch_size,
        )

    def _meter(self, model: Model | None, batch_size: int) -> DecisionMeter | None:
        if not self.classes and (decide := self.engine.decider) is not None:
            known = self.classes.count is not None
            return BoxMeter(decide, self.classes, self.metadata.input, batch_size=batch_size) if known else None
        return DecisionMeter(
            self.engine.model_graph() if model is None else model.proto,
            self.classes,
            self.metadata.input,
            providers=self._providers,
            threads=self._threads,
            batch_size=batch_size,
        )

    def close(self) -> None:
        """Free the session of a file that this explainer opened."""
        if self._owns:
            self.engine.close()


def _not_finite_message(name: str, outputs: Sequence[str]) -> str:
    listed = ", ".join(f"'{output}'" for output in outputs)
    return (
        f"{name}: output {listed} is not finite (NaN or infinite); "
        "a half-precision file may have overflowed: try the float32 one"
    )
