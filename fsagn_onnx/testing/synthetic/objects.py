"""Which part variants make up which class.

The ten classes are words over six part types with three variants each. No variant belongs to fewer than two
classes, so no single part decides; and for every part type there is a pair of classes that differ in that
part alone (`TWINS`), so none can be ignored: exchanging that part turns one class into the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Final

from ...errors import UsageError
from .shapes import VARIANTS

PARTS: Final = tuple(VARIANTS)  # body, head, wing, tail, wheel, emblem

_WORDS: Final = {
    "argo": "box crest leaf curl square star",
    "bumble": "egg crest delta fork round ring",
    "comet": "dart cube leaf fork round cross",
    "dodo": "box round bat fan gear star",
    "ember": "dart crest leaf curl square star",
    "finch": "egg crest delta fork gear ring",
    "gizmo": "dart cube delta fork round cross",
    "hopper": "box round bat fan gear ring",
    "ibis": "dart cube leaf fan round cross",
    "jester": "box round leaf curl square star",
}
CLASSES: Final = tuple(_WORDS)

_VARIANTS_OF: Final = {name: dict(zip(PARTS, word.split(), strict=True)) for name, word in _WORDS.items()}
_CLASS_OF: Final = {tuple(word.split()): number for number, word in enumerate(_WORDS.values())}


def variants_of(label: int) -> dict[str, str]:
    """The variants that make up class `label` (0..9): part type -> variant."""
    return dict(_VARIANTS_OF[CLASSES[label]])


def class_of(variants: Mapping[str, str]) -> int | None:
    """The class with exactly these variants, or None if they make up no class (or a part is missing)."""
    return _CLASS_OF.get(tuple(variants.get(part, "") for part in PARTS))


def _twins() -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for a, b in combinations(range(len(CLASSES)), 2):
        differing = [part for part in PARTS if variants_of(a)[part] != variants_of(b)[part]]
        if len(differing) == 1:
            found[differing[0]] = (a, b)
    return found


TWINS: Final = _twins()  # part type -> two classes that differ in this part alone


def check_part(part: str) -> str:
    """Return `part` if it is a part type.

    Raises:
        UsageError: it is not; the message lists the part types.
    """
    if part not in VARIANTS:
        raise UsageError(f"no part type {part!r} in the synthetic set; use one of {', '.join(PARTS)}")
    return part


def check_variant(part: str, variant: str) -> str:
    """Return `variant` if it is a variant of `part`.

    Raises:
        UsageError: there is no such part type, or it has no such variant; the message lists them.
    """
    known = VARIANTS[check_part(part)]
    if variant not in known:
        raise UsageError(f"no variant {variant!r} of part {part!r}; use one of {', '.join(known)}")
    return variant
