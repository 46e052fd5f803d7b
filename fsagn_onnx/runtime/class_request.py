"""Which classes the caller asks about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np

from ..errors import UsageError
from .classes import Classes
from .contract import STRONGEST

AskedClasses: TypeAlias = str | int | Sequence[str | int] | None
"""A class, or several: names or numbers, -1 for the highest score; ``top:J`` for the J highest."""

MOST_CLASSES: Final = 64
"""Classes that can be asked about at a time."""


def class_slots(asked: AskedClasses, classes: Classes) -> tuple[int, ...]:
    """Read what the caller asks about.

    Args:
        asked: see `AskedClasses`; None: nothing.
        classes: how the model's outputs are read.

    Returns:
        Class numbers, each once, and -1 for "the highest score not asked for by id".

    Raises:
        UsageError: the model does not classify, or has no such class; or too many are asked about.
    """
    if asked is None:
        return ()
    wanted = [asked] if isinstance(asked, str | int | np.integer) else asked
    if not isinstance(wanted, Iterable) or not all(isinstance(one, str | int | np.integer) for one in wanted):
        raise UsageError(f"classes must be names or numbers, one or several, but got {asked!r}")
    wanted = [one if isinstance(one, str) else int(one) for one in wanted]
    if wanted and not classes.decides:
        raise UsageError(f"no class can be asked about: the model does not classify ({classes.classifier.reason})")
    slots: list[int] = []
    for one in wanted:
        slots += _top(one) or [_number(one, classes)]
    apart = [slot for place, slot in enumerate(slots) if slot == STRONGEST or slot not in slots[:place]]
    count = classes.count
    spare = MOST_CLASSES if count is None else min(MOST_CLASSES, count)
    if sum(slot != STRONGEST for slot in apart) > MOST_CLASSES:
        raise UsageError(f"at most {MOST_CLASSES} classes can be asked about at a time, but got {len(apart)}")
    return tuple(apart[:spare])


def _top(one: str | int) -> list[int]:
    if not isinstance(one, str) or not one.strip().startswith("top:"):
        return []
    number = one.strip().removeprefix("top:")
    if not number.isascii() or not number.isdigit() or not 0 < int(number) <= MOST_CLASSES:
        raise UsageError(f"classes must be names, numbers or 'top:1' to 'top:{MOST_CLASSES}', but got '{one}'")
    return [STRONGEST] * int(number)


def _number(one: str | int, classes: Classes) -> int:
    if isinstance(one, str):
        found = STRONGEST if one.strip() == str(STRONGEST) else classes.number(one)
    else:
        found = int(one) if one == STRONGEST or 0 <= one < (classes.count or one + 1) else None
    if found is None:
        names = classes.names()
        few = f": {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""
        count = "" if classes.count is None else f"{classes.count:,} classes, 0..{classes.count - 1}"
        raise UsageError(f"no class {one!r}: the model has {count or 'other classes'}{few}")
    return found
