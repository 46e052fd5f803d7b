"""What a worker does: it holds one explainer, explains the pictures of a unit, and writes them as one part."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from .. import __version__
from ..data.images import decode_image
from ..data.store import Store, read_content
from ..errors import FsagnError, ImageError, UsageError
from ..explanations.job import ExplainRequest, called
from ..explanations.parts import FailedPicture, PartContent, PartFacts, part_facts
from ..explanations.rows import picture_rows, text_of
from ..explanations.subject import Opened, open_explainer
from ..runtime.evidence import PlainEvidence
from ..runtime.stream import DECODERS, Failure, Frame, ordered_map
from .pictures import SHARD, Unit

AHEAD: Final = 16
"""Pictures that are read and decoded ahead of the explainer."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a unit.

    Attributes:
        start: of the unit.
        stop: likewise.
        facts: what its part says of itself.
        stopped: why the run cannot go on: the part could not be written, the explainer not be opened; else empty.
        only: of the unit.
    """

    start: int
    stop: int
    facts: PartFacts
    stopped: str = ""
    only: tuple[int, ...] = ()


@dataclass(frozen=True)
class Luggage:
    """Files that travel to other machines with those that name them.

    Attributes:
        contents: of the files, by path.
    """

    contents: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def packed(cls, paths: Iterable[Path]) -> Luggage:
        """With the contents of files, as far as they are files."""
        return cls({str(path): path.read_bytes() for path in paths if path.is_file()})

    def here(self, path: Path, folder: Path) -> Path:
        """The file where it is, or a copy in ``folder`` where it is not, or another one."""
        content = self.contents.get(str(path))
        if content is None or (path.is_file() and path.read_bytes() == content):
            return path
        copy = folder / path.name
        copy.write_bytes(content)
        return copy


@dataclass(frozen=True)
class ExplainJob:
    """What every worker is told; it travels to other machines, with the files that it names.

    Attributes:
        source: explainer or model.
        options: of `open_explainer`.
        request: what is asked for; the images and the names of filters come another way.
        called: what filters are called.
        where: the folder of the run, or its URL.
        depths: of a plain model's gradients, as the driver chose them.
        means: of its filters, as the driver took them over the first pictures; empty: contributions are against 0.
        luggage: the files that are named.
    """

    source: Path
    options: Mapping[str, Any]
    request: ExplainRequest
    called: Mapping[int, str]
    where: str
    depths: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    luggage: Luggage = field(default_factory=Luggage)

    def shipped(self) -> ExplainJob:
        """The same with its files."""
        paths = [self.source, *(value for value in self.options.values() if isinstance(value, Path))]
        return replace(self, luggage=Luggage.packed(paths))

    def open(self, folder: Path, threads: int | None = None) -> Opened:
        """Open the explainer; files that are not here come into ``folder``.

        Raises:
            FsagnError: it cannot be opened.
        """
        options: dict[str, Any] = {**self.options, "contributions": "zero"}  # the means are the driver's
        options |= {
            name: self.luggage.here(value, folder) for name, value in options.items() if isinstance(value, Path)
        }
        if options.get("threads") is None:
            options["threads"] = threads
        opened = open_explainer(self.luggage.here(self.source, folder), **options)
        if isinstance(opened.explainer.engine, PlainEvidence):
            opened.explainer.engine.focus(self.depths)
            if self.means:
                opened.explainer.engine.take_means(np.array(self.means))
        return opened


def require_version(version: str) -> None:
    """Refuse work of another version of the package.

    Raises:
        UsageError: naming both.
    """
    if version != __version__:
        raise UsageError(f"a worker has fsagn-onnx {__version__}, expected {version}: install the same everywhere")


class Work(Protocol):
    """What explains a unit and writes its part."""

    def do(self, unit: Unit) -> Outcome:
        """Do a unit."""


class PartWriter:
    """Explains units with an open explainer, and writes a part for each.

    Args:
        opened: the explainer.
        job: what is asked for.
        store: where to.
    """

    def __init__(self, opened: Opened, job: ExplainJob, store: Store) -> None:
        self.opened, self.job, self.store = opened, job, store
        self.files: object = None

    def do(self, unit: Unit) -> Outcome:
        """Explain the pictures of a unit; its part appears whole. One that a killed worker left whole is kept."""
        content, failures, numbers = PartContent(), [], []
        try:
            if self.store.has(unit.part.path):
                return Outcome(unit.start, unit.stop, part_facts(self.store, unit.part), only=unit.only)
            for number, digest, result in self._results(unit):
                if isinstance(result, Failure):
                    failures.append(FailedPicture(number, text_of(result.path), result.message))
                else:
                    numbers.append(number)
                    content.add(picture_rows(number, digest, called(result, self.job.called)))
            failures.sort(key=lambda failed: failed.number)
            facts = PartFacts(len(numbers), failures, numbers if unit.only else [])
            content.save(self.store, unit.part, facts)
        except FsagnError as error:
            return Outcome(unit.start, unit.stop, PartFacts(0), str(error), unit.only)
        return Outcome(unit.start, unit.stop, facts, only=unit.only)

    def _results(self, unit: Unit) -> Iterator[tuple[int, str | None, Any]]:
        """Place, hash of the file, and explanation or failure of each picture; failed ones in any order.

        A picture of place p is always number p mod B of a pass of B pictures, with copies where others are missing: the
        last bit of what onnxruntime computes hangs on both, and a unit may be cut anywhere.
        """
        unread: list[tuple[int, Failure]] = []
        under_way: deque[tuple[int, str] | None] = deque()
        request, explainer = self.job.request, self.opened.explainer
        per_pass = explainer.images_per_pass(request.filters, request.classes, request.batch_size)

        def frames() -> Iterator[Frame]:
            frame: Frame | None = None
            place = 0
            for number, read in self._read(unit):
                if isinstance(read, Failure):
                    unread.append((number, read))
                    continue
                frame, copies = read[1], (number - place) % per_pass
                under_way.extend([None] * copies + [(number, read[0])])
                yield from repeat(frame, copies + 1)
                place += copies + 1
            if frame is not None:
                under_way.extend([None] * (-place % per_pass))
                yield from repeat(frame, -place % per_pass)

        for result in explainer.stream(
            frames(),
            request.filters,
            request.area,
            classes=request.classes,
            batch_size=request.batch_size,
            verify=request.measure is True,
            measure=request.measure is not False,
            model=self.opened.model,
            previews=False,
        ):
            picture = under_way.popleft()
            if picture is not None:
                yield *picture, result
        for number, failure in unread:
            yield number, None, failure

    def _read(self, unit: Unit) -> Iterator[tuple[int, Failure | tuple[str, Frame]]]:
        """Read, hash and decode the pictures of a unit, in order; what cannot be is a failure."""
        next_place = unit.start

        def decoded(item: tuple[int, str, bytes | None]) -> tuple[int, Failure | tuple[str, Frame]]:
            place, name, held = item
            try:
                content = read_content(name) if held is None else held
                return place, (sha256(content).hexdigest(), Frame(name, decode_image(content, name)))
            except ImageError as error:
                return place, Failure(name, str(error))
            except MemoryError:
                return place, Failure(name, f"{name!r} does not fit into the memory of a worker")

        broken: list[str] = []

        def contents() -> Iterator[tuple[int, str, bytes | None]]:
            try:
                yield from unit.contents()
            except ImageError as error:
                broken.append(str(error))

        for item in ordered_map(decoded, contents(), DECODERS, AHEAD):
            next_place = item[0] + 1
            yield item
        if broken:  # what holds the pictures: the rest of them; of a shard nobody knows how many
            last = next_place + 1 if unit.file.endswith(SHARD) else unit.stop
            for place in unit.only or range(next_place, last):
                if place >= next_place:
                    yield place, Failure(unit.name(place), broken[0])


def open_writer(job: ExplainJob, threads: int | None = None) -> PartWriter:
    """A writer in this process, which opens its own explainer.

    Raises:
        FsagnError: it cannot be opened.
    """
    folder = tempfile.TemporaryDirectory()  # as long as the writer: an explainer opens its file again when it must
    writer = PartWriter(job.open(Path(folder.name), threads), job, Store(job.where))
    writer.files = folder
    return writer
