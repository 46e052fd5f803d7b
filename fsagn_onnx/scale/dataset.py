"""The folder of a large run: a manifest, the dataset of rows, what failed, and pages of a few pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from ..data.store import Store
from ..errors import OutputError, UsageError
from ..explanations.folder import About
from ..explanations.parts import FailedPicture, PartFacts, PartName, part_facts, part_names
from ..runs.folder import ROWS
from ..runs.manifest import MANIFEST, listed, parsed_manifest, require_same, versions
from ..runs.tables import csv_text
from .pictures import Unit
from .work import Outcome

FAILED: Final = "failed.csv"
SAMPLE: Final = "sample"
"""Folder of the pictures that have pages: an ordinary run of `explain`."""
_READERS: Final = 16


class DatasetFolder:
    """The folder that a large run of `explain` fills, on a disk or in a store.

    Attributes:
        store: where it is.
        about: what the run is.
        explained: pictures that have rows.
        failures: those that have none, by their places.

    Args:
        store: the folder.
        about: what the run is.
        resume: go on with the parts that are there.
        overwrite: remove them first.

    Raises:
        OutputError: the folder holds something else, or belongs to another run.
        UsageError: both ``resume`` and ``overwrite``.
    """

    def __init__(self, store: Store, about: About, *, resume: bool = False, overwrite: bool = False) -> None:
        if resume and overwrite:
            raise UsageError("--resume and --overwrite exclude each other: go on with the results, or replace them")
        self.store, self.about = store, about
        self.explained = 0
        self.failures: dict[int, FailedPicture] = {}
        self._parts: list[PartName] = []
        if store.names():
            self._prepare(resume, overwrite)
        self._write_state("running")

    def _prepare(self, resume: bool, overwrite: bool) -> None:
        where = self.store.where
        if not (resume or overwrite):
            raise OutputError(
                f"{where} is not empty: go on with --resume, replace its results with --overwrite, "
                "or choose another --out"
            )
        content = self.store.read(MANIFEST) or b""
        manifest = parsed_manifest(content, where, self.store.at(MANIFEST), "explain")
        self.store.remove_parts("")
        self.store.remove_parts(ROWS)
        if overwrite:
            for name in (ROWS, SAMPLE, FAILED, MANIFEST):
                self.store.remove(name)
            return
        written = {**manifest, **manifest["arguments"]}
        require_same(where, written, json.loads(json.dumps({**self.about.subject, **self.about.arguments})))
        self._parts = part_names(self.store)
        with ThreadPoolExecutor(_READERS) as pool:
            facts = list(pool.map(lambda name: part_facts(self.store, name), self._parts))
        pairs = sorted(zip(self._parts, facts, strict=True), key=lambda pair: pair[0].again)
        for _, found in pairs:
            self.note(found)

    def note(self, facts: PartFacts) -> None:
        """Count what a part holds; one of pictures tried again comes after the one in which they failed."""
        self.explained += facts.explained
        for failed in facts.failures:
            self.failures[failed.number] = failed
        for number in facts.numbers:
            self.failures.pop(number, None)

    def rest(self, units: Iterable[Unit]) -> Iterator[Unit]:
        """What is left of the units of the list: those without a part, and the pictures that failed.

        Raises:
            OutputError: the parts are of other pictures.
        """
        failed, after = sorted(self.failures), 0
        parts = [part for part in self._parts if not part.again]
        for unit, left in undone(units, parts, self.store.where):
            yield from left
            again = []
            while after < len(failed) and failed[after] < unit.stop:
                again.append(failed[after])
                after += 1
            if again:
                yield Unit(unit.start, unit.stop, unit.names, unit.file, unit.first, tuple(again))

    def take(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Count outcomes as they come."""
        for outcome in outcomes:
            self.note(outcome.facts)
            yield outcome

    @property
    def failed(self) -> list[FailedPicture]:
        """Pictures that could not be explained, in the order of the list."""
        return [self.failures[number] for number in sorted(self.failures)]

    def finish(self) -> None:
        """Write what failed, and the final manifest.

        Raises:
            OutputError: one cannot be written.
        """
        rows = [[failed.number, failed.path, failed.message] for failed in self.failed]
        text = csv_text(["number", "path", "message"], rows)
        self.store.write(FAILED, text.encode("utf-8"))
        self._write_state("done")

    def _write_state(self, state: str) -> None:
        self.store.write(MANIFEST, (json.dumps(self.members(state), indent=2, allow_nan=False) + "\n").encode("ascii"))

    def members(self, state: str = "done") -> dict[str, Any]:
        """What the manifest says."""
        return {
            "state": state,
            "versions": versions(),
            "source": self.about.source,
            **self.about.subject,
            "provider": self.about.provider,
            "arguments": dict(self.about.arguments),
            "dataset": ROWS,
            "counts": {"explained": self.explained, "failed": len(self.failures)},
            "failures": listed([failed.failure for failed in self.failed]),
        }


def undone(units: Iterable[Unit], parts: Sequence[PartName], where: str) -> Iterator[tuple[Unit, list[Unit]]]:
    """Every unit of a list, and what of it has no part.

    Args:
        units: of the whole list.
        parts: that are there, in order.
        where: what to call their folder.

    Raises:
        OutputError: the parts are of other pictures.
    """

    def others(now: str) -> OutputError:
        return OutputError(
            f"{where} was written for other pictures (now '{now}'): give the same pictures in the same order, or "
            "replace the results with --overwrite"
        )

    place = 0
    for unit in units:
        start, left = unit.start, []
        while place < len(parts) and parts[place].start < unit.stop:
            part = parts[place]
            inside = start <= part.start and part.stop <= unit.stop
            if not inside or unit.cut(part.start, part.stop).part != part:
                raise others(unit.name(max(part.start, unit.start)))
            if part.start > start:
                left.append(unit.cut(start, part.start))
            start, place = part.stop, place + 1
        if start < unit.stop:
            left.append(unit if start == unit.start else unit.cut(start, unit.stop))
        yield unit, left
    if place < len(parts):
        raise others(f"nothing at place {parts[place].start}")


def places(units: Sequence[Unit]) -> int:
    """Pictures of some units, as far as they are known before they are read."""
    return sum(len(unit.only) or unit.stop - unit.start for unit in units)
