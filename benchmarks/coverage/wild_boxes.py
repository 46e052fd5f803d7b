"""The best box of a detector of the wild list, by numpy alone, and whether the program's is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SURE = 0.4
"""From this score on a detector is expected to show its best box."""
OVERLAP = 0.7
"""Intersection over union from which two boxes are the same."""


def best_box(layout: str, output: NDArray[Any], spec: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """The box of the highest score.

    Args:
        layout: "anchors": (1, 4 + classes, anchors), centre and size; "rows": (1, boxes, 6), corners, score, class.
        output: What the network answers.
        spec: The input spec, stretched or letterboxed.
        size: Width and height of the picture.

    Returns:
        index, score, and box (x0, y0, x1, y1) in pixels of the picture.
    """
    rows = output[0].astype(float)
    if layout == "anchors":
        scores = rows[4:]
        index, place = (int(axis) for axis in np.unravel_index(scores.argmax(), scores.shape))
        x, y, width, height = rows[:4, place]
        score, corners = (
            float(scores[index, place]),
            np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]),
        )
    else:
        best = rows[rows[:, 4].argmax()]
        corners, score, index = best[:4], float(best[4]), int(best[5])
    high, wide = spec["size"]
    ratios = np.array([wide / size[0], high / size[1]])
    if spec["resize"] != "stretch":
        ratios[:] = ratios.min()
    border = (np.array([wide, high]) - ratios * size) / 2
    box = (corners - np.tile(border, 2)) / np.tile(ratios, 2)
    return {"index": index, "score": round(score, 4), "box": [round(float(side), 1) for side in box]}


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    sides = [min(first[i + 2], second[i + 2]) - max(first[i], second[i]) for i in (0, 1)]
    inner = max(sides[0], 0.0) * max(sides[1], 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return inner / max(sum(areas) - inner, 1e-9)


def boxes_verdict(told: list[dict[str, Any]] | None, independent: dict[str, Any]) -> str:
    """ "right", or what is wrong with the best box that the program tells; None: it tells of no boxes at all."""
    if told is None:
        return "no boxes"
    if not told:
        return "right" if independent["score"] < SURE else f"no box of score {independent['score']:.2f}"
    first = told[0]
    if first["index"] != independent["index"]:
        return f"box of {first['index']} instead of {independent['index']}"
    same = overlap(first["box"], independent["box"]) >= OVERLAP
    return "right" if same else "another box"
