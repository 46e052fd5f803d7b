"""How much an area keeps, in words: what was measured as a number, what is predicted no sharper than it is known."""

from __future__ import annotations

from .explained_area import Area
from .findings import percent
from .trust import SHAKY

__all__ = ["FLAT_MAP", "NO_SMALL_AREA", "keeping", "kept", "kept_how", "sized"]

NO_SMALL_AREA = "no small area suffices"
FLAT_MAP = "saturated: the map is flat"


def sized(found: Area) -> str:
    """The size of an area: ``12%``, ``no small area``, ``not active``, `FLAT_MAP`."""
    if not found.active:
        return "not active"
    if found.flat:
        return FLAT_MAP
    return percent(found.area) if found.suffices else "no small area"


def kept(found: Area) -> str:
    """The retention of an area: ``41%``; ``24-58%`` where it is predicted by an explainer that errs by over `SHAKY`.

    Empty where nothing is known.
    """
    if found.retention_measured is not None:
        return percent(found.retention_measured)
    predicted, error = found.retention_predicted, found.prediction_error
    if predicted is None:
        return ""
    if error is None or error <= SHAKY:
        return percent(predicted)
    low, high = max(0.0, predicted - error), min(1.0, predicted + error)
    return f"{100 * low:.0f}-{100 * high:.0f}%"


def kept_how(found: Area) -> str:
    """``measured`` or ``predicted``; empty where nothing is known."""
    if found.retention_measured is not None:
        return "measured"
    return "" if found.retention_predicted is None else "predicted"


def keeping(found: Area, whose: str = "the filter's answer") -> str:
    """What an area does, in a sentence without its subject.

    For example ``keeps 41% of the filter's answer with 12% of the picture (a random area of that size: 5%)``.
    """
    if not found.active:
        return "not active in this image"
    if not found.suffices:
        return FLAT_MAP if found.flat else NO_SMALL_AREA
    if not (share := kept(found)):
        return f"{percent(found.area)} of the picture"
    notes = ["predicted"] * (kept_how(found) == "predicted")
    if found.retention_random is not None:
        notes.append(f"a random area of that size: {percent(found.retention_random)}")
    said = f" ({'; '.join(notes)})" if notes else ""
    return f"keeps {share} of {whose} with {percent(found.area)} of the picture{said}"
