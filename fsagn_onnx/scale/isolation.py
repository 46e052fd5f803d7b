"""What to do with units that end their worker: cut them into smaller ones until the picture that does it is alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from ..data.store import Store
from ..errors import OutputError
from ..explanations.parts import FailedPicture, PartContent, PartFacts
from ..explanations.rows import text_of
from .pictures import Unit
from .work import Outcome

PIECES: Final = 32
"""Into so many a unit is cut that ended its worker twice."""
ENDED: Final = "it ended the worker twice (out of memory, or in the decoder): skipped"

TRIES: Final = 2
"""Times that a picture is given to a worker alone before it is skipped."""
Doing = Callable[[Sequence[Unit], bool], Iterable[Outcome]]


def all_done(units: Sequence[Unit], doing: Doing, store: Store) -> Iterator[Outcome]:
    """Do units; those without an outcome are cut and done again, and a picture left alone so is a failure.

    Args:
        units: what is to be done.
        doing: does some; it leaves out those that ended their worker. The first time it may try one again by itself,
            then (True) each is tried just once, with nothing else waiting for the same worker.
        store: where the parts are.

    Yields:
        An outcome for every picture once.

    Raises:
        OutputError: a worker cannot go on.
    """
    tries: Counter[Unit] = Counter()
    careful = False
    while units:
        missing = {(unit.start, unit.stop, unit.only): unit for unit in units}
        for outcome in doing(units, careful):
            if outcome.stopped:
                raise OutputError(outcome.stopped)
            if missing.pop((outcome.start, outcome.stop, outcome.only), None) is not None:
                yield outcome
        smaller: list[Unit] = []
        for unit in missing.values():
            pieces = list(_pieces(unit))
            tries[unit] += careful  # before, what ended the worker may have been another one
            if len(pieces) > 1:
                smaller += pieces
            elif tries[unit] < TRIES:
                smaller.append(unit)
            else:
                yield _skipped(unit, store)
        units, careful = smaller, True


def _pieces(unit: Unit) -> Iterator[Unit]:
    if not unit.only:
        yield from unit.split(PIECES)
        return
    step = max(1, -(-len(unit.only) // PIECES))
    for first in range(0, len(unit.only), step):
        yield Unit(unit.start, unit.stop, unit.names, unit.file, unit.first, unit.only[first : first + step])


def _skipped(unit: Unit, store: Store) -> Outcome:
    """A part without rows that names the picture."""
    place = unit.only[0] if unit.only else unit.start
    name = text_of(unit.name(place))
    facts = PartFacts(0, [FailedPicture(place, name, f"{name!r}: {ENDED}")])
    PartContent().save(store, unit.part, facts)
    return Outcome(unit.start, unit.stop, facts, only=unit.only)
