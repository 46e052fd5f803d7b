"""`explain` of very many pictures: a dataset of rows, on one machine or on a cluster, and pages of a few."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from ..data.images import decode_image
from ..data.store import Store, read_content
from ..errors import FsagnError, UsageError
from ..explanations.folder import About
from ..explanations.job import ExplainRequest, explain_into, open_folder
from ..explanations.parts import PART_PICTURES
from ..explanations.subject import Opened
from ..runtime.depth_choice import MOST_PICTURES
from ..runtime.evidence import PlainEvidence
from ..runtime.stream import Frame
from .cluster import Cluster, done_on_cluster, opening_of, require_ray
from .dataset import SAMPLE, DatasetFolder
from .isolation import all_done
from .pictures import Unit, units_of
from .work import ExplainJob, Outcome, PartWriter


@dataclass(frozen=True)
class Scale:
    """How a large run is done.

    Attributes:
        cluster: where; None: in this process.
        overlays: how many pictures get overlays and a page, drawn from the list; or which: a file, a folder, ``@LIST``.
        part_pictures: pictures of a part.
        seed: of the draw.
    """

    cluster: Cluster | None = None
    overlays: str = "0"
    part_pictures: int = PART_PICTURES
    seed: int = 0


class DatasetRun:
    """A run of `explain` that writes a dataset of rows.

    Attributes:
        folder: that it fills.
        units: what is to be done.

    Args:
        opened: the explainer.
        source: explainer or model.
        options: of `open_explainer`, for the workers.
        out: folder or URL.
        request: what is asked for.
        scale: how it is done.
        units: what the request's images are cut into, where they are read already; None: they are read now.
        resume: go on with the parts that are there.
        overwrite: remove them first.

    Raises:
        FsagnError: the run cannot be made.
    """

    def __init__(
        self,
        opened: Opened,
        source: Path,
        options: Mapping[str, Any],
        out: str | Path,
        request: ExplainRequest,
        scale: Scale,
        *,
        units: Sequence[Unit] | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        if request.full_size:
            raise UsageError("--full-size: not in the dataset of rows, whose masks are those of the model's input")
        if scale.cluster is not None:
            require_ray()
        self.opened, self.source, self.scale = opened, source, scale
        self.request = request = request.resolved(opened.explainer)
        opened.explainer.check(request.filters, request.area, request.batch_size, opened.model, request.classes)
        if request.measure and opened.model is None:
            opened.explainer.engine.model_graph()
        units = list(units_of(request.images, scale.part_pictures) if units is None else units)
        if not units:
            raise UsageError(f"no images in {', '.join(request.images)}: name files, folders, globs, lists or URLs")
        names = request.filter_names(opened.explainer)
        arguments = {**request.arguments(), "part_pictures": scale.part_pictures}
        about = About(
            source.name, opened.explainer.metadata.layer, opened.subject, arguments, opened.explainer.provider
        )
        depths = tuple(opened.subject.get("evidence_depths", ()))
        engine = opened.explainer.engine
        means = engine.means if isinstance(engine, PlainEvidence) else ()
        self.job = ExplainJob(source, dict(options), request, names, str(out), depths, means)
        self.folder = DatasetFolder(Store(out), about, resume=resume, overwrite=overwrite)
        self._all = units
        self.units = list(self.folder.rest(units))

    def outcomes(self) -> Iterator[Outcome]:
        """Do what is to be done; the parts are written when it ends.

        Raises:
            FsagnError: the run cannot go on.
        """
        store = self.folder.store
        if self.scale.cluster is None:
            work = PartWriter(self.opened, self.job, store)
            yield from self.folder.take(all_done(self.units, lambda units, careful: map(work.do, units), store))
        elif self.units:
            opening = opening_of(self.job, self.scale.cluster)
            yield from self.folder.take(done_on_cluster(self.units, opening, self.scale.cluster, store))

    def finish(self) -> None:
        """Write pages of the chosen or drawn pictures, what failed, and the manifest.

        Raises:
            FsagnError: something cannot be written.
        """
        frames = self._chosen()
        if frames is not None and self.folder.explained:
            self._write_sample(frames)
        self.folder.finish()

    def _chosen(self) -> Iterator[Frame] | None:
        asked = self.scale.overlays
        if asked.isdecimal():
            return _frames(self._drawn(int(asked))) if int(asked) else None
        return _frames((unit, None) for unit in units_of([asked]))

    def _drawn(self, count: int) -> Iterator[tuple[Unit, tuple[int, ...]]]:
        """Places of pictures, drawn part by part: the same ones whoever wrote the parts."""
        draw = Random(self.scale.seed)
        spans = [(unit, _span(unit)) for unit in self._all]
        total = sum(len(span) for _, span in spans)
        wanted = sorted(draw.sample(range(total), min(count, total)))
        base = 0
        for unit, span in spans:
            inside = [span[place - base] for place in wanted if base <= place < base + len(span)]
            base += len(span)
            if inside:
                yield unit, tuple(inside)

    def _write_sample(self, frames: Iterator[Frame]) -> None:
        request = replace(self.request, images=("sample",))
        with tempfile.TemporaryDirectory() as temporary:
            local = self.folder.store.folder
            where = Path(temporary) / SAMPLE if local is None else local / SAMPLE
            there = (where / "manifest.json").is_file()
            with open_folder(self.opened, self.source, where, request, resume=there, overwrite=False) as folder:
                for _ in explain_into(folder, self.opened, frames, request):
                    pass
            if local is None:
                for path in sorted(where.rglob("*")):
                    if path.is_file():
                        name = path.relative_to(where).as_posix()
                        self.folder.store.write(f"{SAMPLE}/{name}", path.read_bytes())


def first_pictures(units: Iterable[Unit]) -> list[Frame]:
    """The first pictures that can be read, wherever they lie: the depth of gradients is chosen on these."""
    return list(islice(_frames((unit, None) for unit in units), MOST_PICTURES))


def _span(unit: Unit) -> range:
    """Places of a unit that hold pictures for sure: of a shard the first."""
    return range(unit.start, unit.start + 1 if unit.file.endswith(".tar") else unit.stop)


def _frames(chosen: Iterable[tuple[Unit, tuple[int, ...] | None]]) -> Iterator[Frame]:
    """The pictures that can be read; the others are among the failures already."""
    for unit, places in chosen:
        asked = unit if places is None else _only(unit, places)
        for _, name, content in asked.contents():
            try:
                pixels = decode_image(read_content(name) if content is None else content, name)
            except FsagnError:
                continue
            yield Frame(name, pixels)


def _only(unit: Unit, places: tuple[int, ...]) -> Unit:
    """The unit with some of its pictures only."""
    return Unit(unit.start, unit.stop, unit.names, unit.file, unit.first, places)
