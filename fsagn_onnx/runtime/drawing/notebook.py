"""An explanation as a notebook shows it: the picture, why the model decided so, and a table of the filters."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Final

from ..explained_area import Evidence
from ..findings import percent
from ..keeping import keeping, sized
from ..sentence import contributed, sentence
from .overlay import draw_panel, encode_png

if TYPE_CHECKING:
    from ..explanation import Explanation, FilterExplanation

__all__ = ["notebook_html"]

ROWS: Final = 12
"""Filters in the table."""
LONGEST: Final = 120
"""Pixels of the longest bar."""
FOR, AGAINST = "#2a7d2e", "#c2410c"
"""Colours of bars: what speaks for the class, and against it."""


def notebook_html(explanation: Explanation) -> str:
    """HTML without scripts and styles of its own: a notebook's page may hold many.

    Args:
        explanation: of an image, with its preview.

    Raises:
        UsageError: it has no preview.
    """
    picture = b64encode(encode_png(draw_panel(explanation))).decode("ascii")
    name = escape(explanation.name, quote=True)
    parts = [f'<img alt="{name}" style="max-width:100%" src="data:image/png;base64,{picture}">']
    for found in explanation.evidence:
        parts.append(f"<p>{escape(sentence(explanation, found) or _said(found))}</p>")
    if explanation.evidence:
        parts.append(_table(explanation))
    return "".join(parts)


def _said(found: Evidence) -> str:
    """A decision about which nothing was measured, or nothing was shown."""
    said = f"{found.title} ({percent(found.score)}): log-odds {found.decision:.2f}"
    if not found.suffices:
        return f"{said}, {keeping(found)}"
    kept = "" if found.retention is None else f", which keeps {percent(found.retention)} of it"
    return f"{said}, evidence on {percent(found.area)} of the picture{kept}"


def _table(explanation: Explanation) -> str:
    title = escape(explanation.evidence[0].title)
    head = f"<tr><th>filter</th><th>adds to {title}</th><th>share</th><th></th><th>area</th><th>peak</th></tr>"
    shown = explanation.filters[:ROWS]
    largest = max((found.share or 0.0 for found in shown), default=0.0) or 1.0
    rows = "".join(_row(found, (found.share or 0.0) / largest) for found in shown)
    more = len(explanation.filters) - ROWS
    rest = f"<tr><td colspan='6'>{more} more</td></tr>" if more > 0 else ""
    return f"<table style='white-space:nowrap'>{head}{rows}{rest}</table>"


def _row(found: FilterExplanation, length: float) -> str:
    """A row; its bar is ``length`` of the longest."""
    named = f"{found.id} · {found.part}" if found.part else str(found.id)
    added = found.contribution or 0.0
    colour = FOR if added >= 0 else AGAINST
    bar = f'<div style="height:.6em;width:{LONGEST * length:.0f}px;min-width:2px;background:{colour}"></div>'
    cells = (
        escape(named), f"{added:+.2f}", escape(contributed(found)), bar, sized(found), f"{found.peak:.2f}",
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
