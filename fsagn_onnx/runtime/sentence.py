"""One sentence about one decision, in which every number was measured on the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .explained_area import Evidence, Intervention
from .findings import percent

if TYPE_CHECKING:
    from .explanation import Explanation, FilterExplanation

NAMED: Final = 3
"""Filters that a sentence names, at most."""


def sentence(explanation: Explanation, evidence: Evidence | None = None) -> str | None:
    """Why the model decided so, in words.

    For example: ``short (99%): it rests on this 4.0% of the picture; without it: good (93%), without another 4.0%
    still short (99%); 71% of the support comes from filters 12 (short), 48 and 7``.

    Args:
        explanation: of the image.
        evidence: one of its decisions; None: the first.

    Returns:
        The sentence; None where nothing was measured, or measuring does not show that the decision rests on the area.
    """
    if evidence is None:
        if not explanation.evidence:
            return None
        evidence = explanation.evidence[0]
    removed, control = evidence.removed, evidence.control
    if removed is None or control is None or not evidence.shown:
        return None
    area = percent(evidence.area)
    answered = bool(explanation.predictions) and explanation.predictions[0].index == evidence.index
    carried = _carriers(explanation.filters) if evidence is explanation.evidence[0] else ""
    return (
        f"{evidence.title} ({percent(evidence.score)}): it rests on this {area} of the picture; without it: "
        f"{_answer(evidence, removed, answered)}, without another {area}: "
        f"{_answer(evidence, control, answered)}{carried}"
    )


def contributed(found: FilterExplanation) -> str:
    """What a filter adds to the decision: ``31% of the support``, or ``12% of what speaks against``."""
    if found.contribution is None:
        return ""
    whose = "of the support" if found.contribution >= 0 else "of what speaks against"
    return f"adds {found.contribution:.2f}" if found.share is None else f"{percent(found.share)} {whose}"


def _answer(evidence: Evidence, found: Intervention, answered: bool) -> str:
    """The answer after an intervention; of a class that never was the answer, how likely it is now."""
    if not answered:
        return f"{evidence.title} {percent(found.asked)}"
    return f"{'still ' if found.index == evidence.index else ''}{found.title} ({percent(found.score)})"


def _carriers(filters: Sequence[FilterExplanation]) -> str:
    """The filters with the largest shares of the support, and their sum."""
    speaking = [found for found in filters if found.contribution is not None and found.contribution > 0]
    best = sorted(speaking, key=lambda found: -(found.share or 0.0))[:NAMED]
    total = sum(found.share or 0.0 for found in best)
    if total <= 0:
        return ""
    names = [f"{found.id} ({found.part})" if found.part else str(found.id) for found in best]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"; {percent(total)} of the support comes from filter{'s' if len(names) > 1 else ''} {listed}"
