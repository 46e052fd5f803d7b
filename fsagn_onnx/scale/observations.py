"""`dissect` and `perturb` on a cluster: workers write what they saw as parts, the driver reads these into its columns.

A row per picture: its line of the index as JSON, and what the columns of the run hold, under their names. The driver
reads the parts once, in the order of the list; statistics are those of one process to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from ..data.images import decode_image
from ..data.opening import is_url
from ..data.store import Store, read_content
from ..errors import FsagnError, UsageError
from ..explanations.parts import (
    PART_PICTURES,
    FailedPicture,
    PartContent,
    PartFacts,
    part_facts,
    part_names,
    part_rows,
)
from ..explanations.rows import text_of
from ..model.input_spec import InputSpec
from ..runs.column_folder import ColumnFolder, ColumnSpec
from ..runtime.stream import DECODERS, Failure, Prepared, ordered_map, prepare
from .cluster import Cluster, done_on_cluster
from .dataset import undone
from .pictures import Unit, units_of
from .work import Outcome

LineAndColumns = tuple[dict[str, Any], dict[str, Any] | None]
"""An image's line of the index, and its row of the columns; None: it failed."""
Observing = Callable[[Sequence[Prepared | Failure]], Iterable[LineAndColumns]]
_NUMBER: Final = "number"
_LINE: Final = "line"
_APPENDED: Final = 64
"""Rows that are written into the columns at a time."""


def observation_schema(specs: Mapping[str, ColumnSpec]) -> Any:
    """The schema of a part: place, line, and a list of numbers per column; a `pyarrow.Schema`."""
    import pyarrow as arrow

    lists = [
        (name, arrow.list_(arrow.from_numpy_dtype(np.dtype(kind)), int(np.prod(shape, dtype=np.int64))))
        for name, (kind, shape) in specs.items()
    ]
    return arrow.schema([(_NUMBER, arrow.int64()), (_LINE, arrow.string()), *lists])


class ObservationWriter:
    """Looks at the pictures of a unit, and writes what it saw as its part.

    Attributes:
        files: what must live as long as the writer.

    Args:
        observing: what is seen in a batch.
        spec: the model's input.
        size: pictures of a batch; units begin at multiples of it.
        columns: of the run.
        where: folder of the run.
    """

    def __init__(
        self,
        observing: Observing,
        spec: InputSpec,
        size: int,
        columns: Mapping[str, ColumnSpec],
        where: str,
    ) -> None:
        self._observing, self._spec, self._size = observing, spec, size
        self.files: object = None
        self._columns, self._store = dict(columns), Store(where)

    def do(self, unit: Unit) -> Outcome:
        """Look at the pictures of a unit; its part appears whole. One that a killed worker left whole is kept."""
        content, failures, seen = PartContent(observation_schema(self._columns)), [], 0
        try:
            if self._store.has(unit.part.path):
                return Outcome(unit.start, unit.stop, part_facts(self._store, unit.part))
            for number, (line, row) in enumerate(self._seen(unit), start=unit.start):
                if row is None:
                    failures.append(FailedPicture(number, text_of(line["path"]), line["error"]))
                    continue
                seen += 1
                content.add([{_NUMBER: number, _LINE: json.dumps(line, allow_nan=False), **self._flat(row)}])
            facts = PartFacts(seen, failures)
            content.save(self._store, unit.part, facts)
        except FsagnError as error:
            return Outcome(unit.start, unit.stop, PartFacts(0), str(error))
        return Outcome(unit.start, unit.stop, facts)

    def _seen(self, unit: Unit) -> Iterator[LineAndColumns]:
        prepared = ordered_map(self._prepared, unit.names, DECODERS, self._size)
        while batch := list(islice(prepared, self._size)):
            yield from self._observing(batch)

    def _prepared(self, name: str) -> Prepared | Failure:
        try:
            pixels = decode_image(read_content(name), name)
        except FsagnError as error:
            return Failure(name, str(error))
        return prepare((name, pixels), self._spec, preview=False)

    def _flat(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: np.asarray(row[name]).astype(kind, copy=False).reshape(-1)
            for name, (kind, _) in self._columns.items()
        }


def merge_parts(folder: ColumnFolder, specs: Mapping[str, ColumnSpec]) -> Iterator[str | Failure]:
    """Read the parts of a folder, once and in order, into its index and columns; what is there already is left out.

    Args:
        folder: with its columns open.
        specs: of the columns.

    Yields:
        Paths and failures of the pictures that came.

    Raises:
        OutputError: a part is damaged, or the columns cannot be written.
    """
    store = Store(folder.path)
    waiting: list[LineAndColumns] = []
    for name in part_names(store):
        if name.stop <= folder.count + len(waiting):
            continue
        for number, pair in _pairs(store, name, specs):
            if number < folder.count + len(waiting):
                continue
            waiting.append(pair)
            error = pair[0].get("error")
            yield pair[0]["path"] if error is None else Failure(pair[0]["path"], error)
            if len(waiting) == _APPENDED:
                folder.append(waiting)
                waiting = []
    folder.append(waiting)


def _pairs(store: Store, name: Any, specs: Mapping[str, ColumnSpec]) -> Iterator[tuple[int, LineAndColumns]]:
    """Places, lines and rows of a part in order; those that failed too."""
    failed = {failure.number: failure for failure in part_facts(store, name).failures}
    place = name.start
    for found in part_rows(store, name):
        while place < found[_NUMBER]:
            yield place, _failed_line(failed[place])
            place += 1
        row = {key: np.array(found[key], dtype=kind).reshape(shape) for key, (kind, shape) in specs.items()}
        yield place, (json.loads(found[_LINE]), row)
        place += 1
    while place < name.stop:
        yield place, _failed_line(failed[place])
        place += 1


def _failed_line(failed: FailedPicture) -> LineAndColumns:
    return {"path": failed.path, "error": failed.message}, None


def observe(
    folder: ColumnFolder,
    images: Sequence[str],
    opening: Callable[[], ObservationWriter],
    cluster: Cluster,
    size: int,
    specs: Mapping[str, ColumnSpec],
) -> Iterator[str | Failure]:
    """The pass of a run over its pictures by workers, and their parts read into its columns.

    Args:
        folder: of the run, with its columns open.
        images: as they were asked for.
        opening: makes the work, in each worker.
        cluster: where.
        size: pictures of a batch.
        specs: of the columns.

    Yields:
        Paths and failures, as for a run in one process.

    Raises:
        FsagnError: the run cannot go on.
    """
    units = list(units_of(images, max(size, PART_PICTURES // size * size)))
    if held := [unit.file or unit.names[0] for unit in units if unit.file or any(map(is_url, unit.names))]:
        raise UsageError(f"--cluster: {held[0]}: here pictures must be files that all machines see, not in a store")
    store = Store(folder.path)
    parts = [part for part in part_names(store) if not part.again]
    rest = [unit for _, left in undone(units, parts, store.where) for unit in left]
    for _ in done_on_cluster(rest, opening, cluster, store):
        pass
    yield from merge_parts(folder, specs)
