"""The report of `evaluate`: every metric with the methods' intervals side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..report.sheet import framed, sheet


def evaluation_page(document: Mapping[str, Any]) -> Iterator[str]:
    """The pieces of the page.

    Args:
        document: what `Evaluation.to_dict` gives: layer, images, pairs, rows, curves, areas.
    """
    facts = {
        "layer": str(document["layer"]),
        "images": str(document["images"]),
        "methods": ", ".join(map(str, document["methods"])),
    }
    frame = framed(
        "evaluate",
        "How good the masks are",
        str(document["layer"]),
        lead="Methods side by side on the same images, filters, areas and infills: mean and 95 % bootstrap interval.",
        facts=facts,
        files="the JSON and Markdown tables",
        about={name: document[name] for name in ("rows", "curves", "areas")},
    )
    yield from sheet(frame, ())
