"""The results of `explain` as a table and as one picture, read back from its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from ..data.files import read_lines
from ..data.images import read_image
from ..report.table import Table, write_formats
from ..runtime.stream import Pixels
from .folder import LINES, ExplanationFolder
from .json_document import json_pieces
from .page import MAX_IMAGES

MOST_PANELS: Final = 12
"""Images in the picture: the first ones."""
_WIDTH: Final = 1400
RETENTIONS: Final = ("predicted", "measured", "random")


def write_explained(folder: ExplanationFolder, formats: Sequence[str]) -> None:
    """Write ``report.json``, ``report.md`` and ``report.png`` of a finished run that explained something, as asked for.

    Raises:
        OutputError: one cannot be written.
    """
    if formats and folder.explained:
        path, layer = folder.path, folder.about.layer
        write_formats(
            path, formats, explained_table(path, layer), lambda: json_pieces(folder), lambda: contact_sheet(path)
        )


def explained_table(folder: Path, layer: str) -> Table:
    """A row per image and filter, for the first `MAX_IMAGES` images."""
    head = ("image", "answer", "score", "filter", "peak", "area", "predicted retention", "measured", "random area")
    rows = [row for line in islice(read_lines(folder / LINES), MAX_IMAGES) for row in _rows(json.loads(line))]
    return Table(f"Where the filters of layer {layer} look", head, tuple(rows))


def _rows(line: dict[str, Any]) -> Iterator[tuple[str | None, ...]]:
    found = line["predictions"] or line.get("detections")
    answer = found[0] if found else None
    named = None if answer is None else str(answer["label"] or f"class {answer['index']}")
    for explained in line["filters"]:
        yield (
            line["path"],
            named,
            None if answer is None else f"{answer['score']:.3f}",
            str(explained["id"]),
            f"{explained['peak']:.4g}",
            None if explained["area"] is None else f"{100 * explained['area']:.1f} %",
            *(None if value is None else f"{value:.2f}" for value in map(explained["retention"].get, RETENTIONS)),
        )


def contact_sheet(folder: Path) -> Pixels:
    """The overlays of the first images, one below the other, uint8 (h, w, 3) RGB."""
    names = [json.loads(line)["name"] for line in islice(read_lines(folder / LINES), MOST_PANELS)]
    panels = []
    for name in names:
        panel = read_image(folder / "overlays" / f"{name}.png")
        height = max(1, round(panel.shape[0] * _WIDTH / panel.shape[1]))
        panels.append(cv2.resize(panel, (_WIDTH, height), interpolation=cv2.INTER_AREA))
    return np.concatenate(panels).astype(np.uint8, copy=False) if panels else np.zeros((1, _WIDTH, 3), np.uint8)
