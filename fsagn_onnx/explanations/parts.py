"""Part files of the dataset of rows: each holds some pictures of the list, and says which, and which failed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ..data.store import Store
from ..errors import OutputError
from ..runs.folder import ROWS
from ..runtime.stream import Failure
from ..schema import checked_json
from .rows import Row, row_schema

MEMBER: Final = b"fsagn-onnx"
"""Key of a part's facts in the metadata of its schema."""
PART_PICTURES: Final = 1000
"""Pictures of a part unless told: what a killed worker does again."""
_BATCH: Final = 4096
"""Rows that are kept as Python objects at a time."""
_NAME: Final = re.compile(r"(part|again)-(\d{12})-(\d{12})-([0-9a-f]{16})\.parquet")


class FailedPicture(msgspec.Struct, frozen=True):
    """A picture that could not be explained: its place in the list, its name, and why."""

    number: int
    path: str
    message: str

    @property
    def failure(self) -> Failure:
        """Without its place."""
        return Failure(self.path, self.message)


class PartFacts(msgspec.Struct, frozen=True):
    """What a part says of itself.

    Attributes:
        explained: pictures that have rows.
        failures: those that have none.
        numbers: the pictures with rows, where the part is of some in between only.
    """

    explained: int
    failures: list[FailedPicture] = []
    numbers: list[int] = []


@dataclass(frozen=True, order=True)
class PartName:
    """The name of a part: the places ``start`` to ``stop`` of the list, and a digest of what stands there.

    Attributes:
        start: place of the first picture.
        stop: place after the last.
        digest: 16 hexadecimal digits of the pictures' names.
        again: only some of them, tried once more.
    """

    start: int
    stop: int
    digest: str
    again: bool = False

    @classmethod
    def read(cls, name: str) -> PartName | None:
        """The parts of a file's name; None for other files."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(int(found[2]), int(found[3]), found[4], found[1] == "again")

    def __str__(self) -> str:
        return f"{'again' if self.again else 'part'}-{self.start:012}-{self.stop:012}-{self.digest}.parquet"

    @property
    def path(self) -> str:
        """Its place in the folder of a run."""
        return f"{ROWS}/{self}"


@dataclass
class PartContent:
    """A part on its way: rows as they come, written at the end as one file.

    Attributes:
        schema: of the rows, a `pyarrow.Schema`.
    """

    schema: Any = field(default_factory=row_schema)
    _batches: list[Any] = field(default_factory=list)
    _rows: list[Row] = field(default_factory=list)

    def add(self, rows: Iterable[Row]) -> None:
        """Add the rows of a picture."""
        self._rows.extend(rows)
        if len(self._rows) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as arrow

        self._batches += arrow.Table.from_pylist(self._rows, schema=self.schema).to_batches()
        self._rows.clear()

    def save(self, store: Store, name: PartName, facts: PartFacts) -> None:
        """Write the part, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        self._flush()
        content = io.BytesIO()
        table = arrow.Table.from_batches(self._batches, schema=self.schema)
        table = table.replace_schema_metadata({MEMBER: msgspec.json.encode(facts)})
        parquet.write_table(table, content, compression="zstd")
        store.write(name.path, content.getvalue())


def part_names(store: Store) -> list[PartName]:
    """The parts that are there, in the order of the list."""
    return sorted(found for name in store.names(ROWS) if (found := PartName.read(name)) is not None)


def part_facts(store: Store, name: PartName) -> PartFacts:
    """What a part says of itself.

    Raises:
        OutputError: it cannot be read, or is damaged.
    """
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    def wrong(said: str) -> OutputError:
        return OutputError(f"{store.at(name.path)} is damaged: {said}; remove it and go on with --resume")

    try:
        with store.open(name.path) as file:
            members = (parquet.read_metadata(file).metadata or {}).get(MEMBER, b"")
    except FileNotFoundError as error:
        raise OutputError(f"{store.at(name.path)} is gone: go on with --resume") from error
    except ArrowException as error:
        raise wrong(str(error).splitlines()[0]) from error
    return checked_json(members, PartFacts, wrong)


def dataset_rows(store: Store, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """All rows of a dataset, part by part, at flat memory.

    Args:
        store: the folder of a run.
        columns: those that are read; None: all.

    Raises:
        OutputError: a part cannot be read, or is damaged.
    """
    for name in part_names(store):
        yield from part_rows(store, name, columns)


def part_rows(store: Store, name: PartName, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of one part.

    Raises:
        OutputError: it cannot be read, or is damaged.
    """
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        with store.open(name.path) as file, parquet.ParquetFile(file) as part:
            for batch in part.iter_batches(columns=columns):
                yield from batch.to_pylist()
    except (FileNotFoundError, ArrowException, KeyError) as error:
        said = str(error).splitlines()[0]
        raise OutputError(f"{store.at(name.path)} is damaged: {said}; remove it, go on with --resume") from error
