"""What `compare` says on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ..comparison.comparison import Comparison
from ..runtime.drawing.typeface import printable
from .dissection import MOST_ROWS


def comparison_json(comparison: Comparison) -> str:
    """One JSON document: all changes."""
    return json.dumps({**asdict(comparison), "drifted": len(comparison.drifted)}, allow_nan=False)


def comparison_lines(comparison: Comparison, out: Path | None) -> Iterator[str]:
    """What drifted, the largest changes first."""
    first, second = comparison.images
    how = "the same images" if comparison.paired else "different images"
    compared = len(comparison.changes)
    yield f"two runs of {comparison.kind}, {first} and {second} images ({how}), {compared} things compared"
    if not comparison.drifted:
        yield "nothing drifted"
    for change in comparison.drifted[:MOST_ROWS]:
        if change.change is None:
            yield f"  {change.what:<22} {printable(change.of):<14} {change.before} -> {change.after}"
            continue
        interval = f"{change.change:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        surely = "" if change.q is None else f"  q {change.q:.3f}"
        yield f"  {printable(change.what):<22} {printable(change.of):<14} {interval}{surely}"
    if len(comparison.drifted) > MOST_ROWS:
        yield f"  ... {len(comparison.drifted) - MOST_ROWS} more"
    if out is not None:
        yield f"report    {out / 'report.html'}"
