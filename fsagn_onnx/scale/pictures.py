"""The list of pictures of a large run, cut into units: files, lists, Parquet, WebDataset shards, object stores."""

from __future__ import annotations

import glob
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from ..data.images import IMAGE_SUFFIXES, MAX_FILE_BYTES, list_images, list_lines
from ..data.opening import is_url, open_regular
from ..data.store import file_system, open_in_store, patiently, read_content
from ..errors import ImageError
from ..explanations.parts import PART_PICTURES, PartName

SHARD_PLACES: Final = 2**20
"""Places in the list that a WebDataset shard takes: how many pictures it has is not known before it is read."""
PARQUET, SHARD = ".parquet", ".tar"


class Unit(msgspec.Struct, frozen=True):
    """Pictures that one worker explains in one go, and writes as one part.

    Attributes:
        start: place of the first in the list.
        stop: place after the last.
        names: of the pictures, where the list has them.
        file: else the Parquet file or shard that holds them.
        first: place in it of the first.
        only: places of those that are to be done; empty: all.
    """

    start: int
    stop: int
    names: tuple[str, ...] = ()
    file: str = ""
    first: int = 0
    only: tuple[int, ...] = ()

    @property
    def part(self) -> PartName:
        """The part that it becomes."""
        told = [*self.names, "", self.file, str(self.first), *map(str, self.only)]
        text = "\0".join(told).encode("utf-8", "surrogatepass")
        return PartName(self.start, self.stop, blake2b(text, digest_size=8).hexdigest(), bool(self.only))

    def cut(self, start: int, stop: int) -> Unit:
        """The pictures at some of its places."""
        first = self.first + start - self.start
        names = self.names[start - self.start : stop - self.start]
        return Unit(start, stop, names, self.file, first if self.file else 0)

    def split(self, pieces: int) -> Iterator[Unit]:
        """So many smaller units, or one for each picture."""
        stop = self.stop
        if self.file.endswith(SHARD):
            stop = min(stop, self.start + sum(1 for _ in _shard(self.file)) - self.first)
        step = max(1, -(-(stop - self.start) // pieces))
        for start in range(self.start, stop, step):
            yield self.cut(start, start + step if start + step < stop else self.stop)

    def name(self, place: int) -> str:
        """What to call the picture at a place of the list, without reading it."""
        return self.names[place - self.start] if self.names else f"{self.file}#{self.first + place - self.start}"

    def contents(self) -> Iterator[tuple[int, str, bytes | None]]:
        """Place, name and content of each picture to be done; None: it lies where the name says.

        Raises:
            ImageError: the file that holds them cannot be read.
        """
        wanted = set(self.only)
        if self.names:
            held: Iterable[tuple[str, bytes | None]] = ((name, None) for name in self.names)
        elif self.file.endswith(SHARD):
            held = islice(_shard(self.file), self.first, self.first + self.stop - self.start)
        else:
            held = _parquet_rows(self.file, self.first, self.first + self.stop - self.start)
        for place, (name, content) in enumerate(held, start=self.start):
            if not wanted or place in wanted:
                yield place, name, content


def units_of(images: Sequence[str], size: int = PART_PICTURES) -> Iterator[Unit]:
    """The pictures of a request, in their order, cut into units.

    Args:
        images: files, folders, globs, ``-``, ``@LIST``; the same in stores by URL; ``.parquet`` files with a column
            ``path``, or ``image`` or ``bytes`` with the file's content; ``.tar`` shards of WebDataset; folders.
        size: pictures of a unit.

    Raises:
        ImageError: a list, a folder or a Parquet file cannot be read.
        UsageError: no such store.
    """
    start, waiting = 0, []
    for name in _listed(images):
        suffix = _suffix(name)
        if suffix not in (PARQUET, SHARD):
            waiting.append(name)
            if len(waiting) < size:
                continue
        if waiting:
            yield Unit(start, start + len(waiting), tuple(waiting))
            start, waiting = start + len(waiting), []
        if suffix == PARQUET:
            rows = _row_count(name)
            for first in range(0, rows, size):
                stop = start + min(size, rows - first)
                yield Unit(start, stop, file=name, first=first)
                start = stop
        elif suffix == SHARD:
            yield Unit(start, start + SHARD_PLACES, file=name)
            start += SHARD_PLACES
    if waiting:
        yield Unit(start, start + len(waiting), tuple(waiting))


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _listed(images: Iterable[str]) -> Iterator[str]:
    """Names of pictures, of Parquet files and of shards."""
    for item in images:
        if item.startswith("@") and not os.path.lexists(item):
            yield from _in_list(item[1:])
        elif item == "-":
            yield from _listed(line for line in (line.rstrip("\r\n") for line in sys.stdin) if line and line != "-")
        elif is_url(item):
            yield from _in_store(item)
        elif os.path.isdir(item):
            held = [path for path in sorted(Path(item).rglob("*")) if path.suffix.lower() in (PARQUET, SHARD)]
            yield from map(str, held)
            yield from map(str, list_images([item]))
        elif glob.has_magic(item) and _suffix(item) in (PARQUET, SHARD):
            yield from sorted(glob.iglob(item, recursive=True)) or [item]
        else:
            yield from map(str, list_images([item]))


def _in_list(name: str) -> Iterator[str]:
    if not is_url(name):
        lines: Iterable[str] = list_lines(name)
    else:
        try:
            lines = read_content(name).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ImageError(f"list of images {name!r} is no UTF-8 text: {error}") from error
    yield from _listed(line for line in lines if line and line != "-" and not line.startswith("@"))


def _in_store(url: str) -> Iterator[str]:
    """A thing in a store, or all pictures, Parquet files and shards of a folder there."""
    if _suffix(url) in (*IMAGE_SUFFIXES, PARQUET, SHARD):
        yield url
        return
    from pyarrow import fs

    system, path = file_system(url)
    scheme = url.partition("://")[0]
    try:
        listed = patiently(lambda: system.get_file_info(fs.FileSelector(path, recursive=True)))
        found = [info.path for info in listed if info.is_file]
    except OSError as error:
        raise ImageError(f"{url} cannot be listed: {' '.join(str(error).split())[:300]}") from error
    for name in sorted(found):
        if _suffix(name) in (*IMAGE_SUFFIXES, PARQUET, SHARD):
            yield f"{scheme}://{name}"


def _open(name: str) -> Any:
    return open_in_store(name) if is_url(name) else open_regular(name)


def _row_count(name: str) -> int:
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        with _open(name) as file:
            return int(parquet.read_metadata(file).num_rows)
    except (OSError, ArrowException) as error:
        raise ImageError(f"{name!r} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _parquet_rows(name: str, first: int, stop: int) -> Iterator[tuple[str, bytes | None]]:
    """Rows of a Parquet file: a path, or the content of a file (``image`` may have both, as datasets do)."""
    import pyarrow.parquet as parquet
    from pyarrow import ArrowException

    try:
        with _open(name) as file, parquet.ParquetFile(file) as table:
            columns = [column for column in ("path", "image", "bytes") if column in table.schema_arrow.names]
            if not columns:
                raise ImageError(f"{name!r} has none of the columns path, image, bytes")
            row = 0
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                if row + count > first and row < stop:
                    place = row
                    for batch in table.iter_batches(batch_size=64, row_groups=[group], columns=columns):
                        if place + len(batch) > first and place < stop:
                            cut = batch.slice(max(0, first - place), min(stop, place + len(batch)) - max(first, place))
                            for offset, members in enumerate(cut.to_pylist()):
                                yield _picture(name, max(first, place) + offset, members)
                        place += len(batch)
                row += count
    except (OSError, ArrowException) as error:
        raise ImageError(f"{name!r} cannot be read: {' '.join(str(error).split())[:300]}") from error


def _picture(name: str, row: int, members: dict[str, Any]) -> tuple[str, bytes | None]:
    image = members.get("image")
    held = image if isinstance(image, dict) else {"bytes": image}
    content, path = held.get("bytes") or members.get("bytes"), members.get("path") or held.get("path")
    if content is None:
        return str(path) if path else f"{name}#{row}", None if path else b""
    return str(path) if path else f"{name}#{row}", bytes(content)


def _shard(name: str) -> Iterator[tuple[str, bytes | None]]:
    """The pictures of a tar file, in its order."""
    try:
        with _open(name) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                if member.isreg() and _suffix(member.name) in IMAGE_SUFFIXES:
                    if member.size > MAX_FILE_BYTES:
                        yield f"{name}/{member.name}", b""
                        continue
                    held = archive.extractfile(member)
                    yield f"{name}/{member.name}", b"" if held is None else held.read()
    except (OSError, tarfile.TarError) as error:
        raise ImageError(f"{name!r} cannot be read: {' '.join(str(error).split())[:300]}") from error
