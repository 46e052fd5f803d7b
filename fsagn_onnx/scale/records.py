"""`evaluate` on a cluster: workers write the record of every picture as parts, the driver reads these once, in order.

A record is what every metric measured of one picture, as JSON. Figures are computed by the driver from the records in
the order of the list, so they are those of one process to the bit; seconds are those that the workers took.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ..data.store import Store
from ..errors import FsagnError
from ..evaluation import Options
from ..evaluation.folder import EvaluationFolder
from ..evaluation.run import Run
from ..explanations.parts import (
    FailedPicture,
    PartContent,
    PartFacts,
    PartName,
    part_facts,
    part_names,
    part_rows,
)
from ..explanations.rows import text_of
from ..model import load_model
from .cluster import Cluster, done_on_cluster
from .dataset import undone
from .pictures import Unit
from .work import Luggage, Outcome

PICTURES: Final = 16
"""Pictures of a unit: measuring one takes seconds, so few are done again when a worker is killed."""
_NUMBER: Final = "number"
_RECORD: Final = "record"


def record_schema() -> Any:
    """The schema of a part: place and record; a `pyarrow.Schema`."""
    import pyarrow as arrow

    return arrow.schema([(_NUMBER, arrow.int64()), (_RECORD, arrow.string())])


@dataclass(frozen=True)
class RecordJob:
    """What every worker is told; it travels to other machines, with model and explainers.

    Attributes:
        model: file of the model.
        reading: how it is read, see `load_model`.
        explainers: explainer files by name.
        options: what is measured.
        paths: of all pictures: what is drawn for one hangs on its place, and some metrics need the next one.
        where: folder of the run.
        luggage: the files that are named.
    """

    model: Path
    reading: Mapping[str, Any]
    explainers: Mapping[str, Path]
    options: Options
    paths: tuple[str, ...]
    where: str
    luggage: Luggage = field(default_factory=Luggage)

    def shipped(self) -> RecordJob:
        """The same with its files."""
        paths = [self.model, *self.explainers.values()]
        paths += [value for value in self.reading.values() if isinstance(value, Path)]
        return replace(self, luggage=Luggage.packed(paths))

    def open(self, folder: Path, threads: int | None = None) -> Run:
        """The evaluation in a worker; files that are not here come into ``folder``.

        Raises:
            FsagnError: it cannot be opened.
        """
        reading: dict[str, Any] = {
            name: self.luggage.here(value, folder) if isinstance(value, Path) else value
            for name, value in self.reading.items()
        }
        explainers = {}
        for name, path in self.explainers.items():
            (place := folder / name).mkdir()  # two may have the same file name
            explainers[name] = self.luggage.here(path, place)
        options = replace(self.options, threads=self.options.threads or threads)
        return Run(load_model(self.luggage.here(self.model, folder), **reading), explainers, options)


class RecordWriter:
    """Measures the pictures of a unit, and writes their records as its part.

    Attributes:
        files: what must live as long as the writer.

    Args:
        run: opened.
        paths: of all pictures.
        where: folder of the run.
    """

    def __init__(self, run: Run, paths: Sequence[str], where: str) -> None:
        self._run, self._paths, self._store = run, [Path(path) for path in paths], Store(where)
        self.files: object = None

    def do(self, unit: Unit) -> Outcome:
        """Measure the pictures of a unit; its part appears whole. One that a killed worker left whole is kept."""
        content, failures, measured = PartContent(record_schema()), [], 0
        try:
            if self._store.has(unit.part.path):
                return Outcome(unit.start, unit.stop, part_facts(self._store, unit.part))
            for number in range(unit.start, unit.stop):
                record = self._run.record(self._paths, number)
                if "failed" in record:
                    failures.append(FailedPicture(number, text_of(record["path"]), record["failed"]))
                    continue
                measured += 1
                content.add([{_NUMBER: number, _RECORD: json.dumps(record, allow_nan=False)}])
            facts = PartFacts(measured, failures)
            content.save(self._store, unit.part, facts)
        except FsagnError as error:
            return Outcome(unit.start, unit.stop, PartFacts(0), str(error))
        return Outcome(unit.start, unit.stop, facts)


class MeasuredByWorkers:
    """What `evaluate` takes as ``measuring``: the records of its pictures, from the workers of a cluster.

    Args:
        cluster: where.
        reading: how the model is read, see `load_model`.
    """

    def __init__(self, cluster: Cluster, reading: Mapping[str, Any]) -> None:
        self._cluster, self._reading = cluster, dict(reading)

    def __call__(
        self,
        run: Run,
        explainers: Mapping[str, str | Path],
        folder: EvaluationFolder,
        paths: Sequence[Path],
        start: int,
    ) -> Iterator[dict[str, Any]]:
        """The records from a place of the list on, in order.

        Args:
            run: opened.
            explainers: files by name.
            folder: of the run.
            paths: of all pictures.
            start: place of the first that is wanted.

        Raises:
            FsagnError: the run cannot go on.
        """
        cluster, names = self._cluster, tuple(map(str, paths))
        files = {name: Path(file) for name, file in explainers.items()}
        where = str(folder.path)
        job = RecordJob(run.model.path, self._reading, files, run.options, names, where).shipped()
        threads = None if cluster.gpus else 1

        def opening() -> RecordWriter:
            kept = tempfile.TemporaryDirectory()
            writer = RecordWriter(job.open(Path(kept.name), threads), job.paths, job.where)
            writer.files = kept
            return writer

        store = Store(where)
        units = [Unit(first, min(first + PICTURES, len(names)), names[first : first + PICTURES])
                 for first in range(0, len(names), PICTURES)]  # fmt: skip
        parts = [part for part in part_names(store) if not part.again]
        rest = [_from(unit, start) for _, left in undone(units, parts, where) for unit in left if unit.stop > start]
        for _ in done_on_cluster(rest, opening, cluster, store):
            pass
        yield from _records(store, names, start)


def _from(unit: Unit, start: int) -> Unit:
    """What of a unit lies from a place on."""
    return unit.cut(max(start, unit.start), unit.stop)


def _records(store: Store, names: Sequence[str], start: int) -> Iterator[dict[str, Any]]:
    for part in part_names(store):
        if part.stop > start:
            for number, record in _of_part(store, part, names):
                if number >= start:
                    yield record


def _of_part(store: Store, part: PartName, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Places and records of a part in order; those that failed too."""
    failed = {failure.number: failure.message for failure in part_facts(store, part).failures}
    measured = ((row[_NUMBER], row[_RECORD]) for row in part_rows(store, part))
    following = next(measured, None)
    for place in range(part.start, part.stop):
        if following is not None and following[0] == place:
            yield place, json.loads(following[1])
            following = next(measured, None)
        else:
            yield place, {"path": names[place], "failed": failed[place]}
