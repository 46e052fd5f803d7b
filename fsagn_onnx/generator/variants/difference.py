"""How far a variant's answers are from the float32 file's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ExplainerError
from ...runtime.contract import CLASS_IDS, CLASSES, DECISION, DECISION_RESULTS, EVIDENCE_RANK, FILTERS, RESULTS

AREAS = (0.05, 0.1, 0.2)
SLOTS = 5
LEAST_OVERLAP = 0.4
"""A variant whose areas overlap less with the float32 file's is not written. Two random areas of .1 overlap by .05."""

Run = Callable[[bytes, dict[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""Computes all outputs of a graph: content, feeds -> name -> array."""


def measure_loss(plain: bytes, variant: bytes, batch: NDArray[np.float32], image: str, run: Run) -> dict[str, float]:
    """Compare a variant with the float32 file on images.

    Args:
        plain: the float32 explainer.
        variant: the other one, with the same inputs.
        batch: (n, ...) preprocessed images.
        image: name of the image input.
        run: computes a graph.

    Returns:
        ``filters``: share of the float32 file's strongest filters that the variant finds too; ``overlap``: mean IoU,
        over images, the same filters and the areas .05, .1, .2, of the kept cells; ``retention``: mean absolute
        difference of the predicted retention; ``images``: n. Of files that answer questions about classes also
        ``evidence``: mean IoU of the evidence areas; ``decision``: mean absolute difference of the decision values.

    Raises:
        ExplainerError: something is not finite, or the areas hardly overlap.
    """
    slots = np.full((len(batch), SLOTS), -1, dtype=np.int64)
    feeds: dict[str, NDArray[Any]] = {image: batch, FILTERS: slots, CLASSES: slots[:, :1]}
    first = run(plain, feeds)
    found = run(variant, feeds)
    ids, other_ids = first[RESULTS[0]], found[RESULTS[0]]
    shared = [len(set(a[a >= 0]) & set(b)) / max(1, int((a >= 0).sum())) for a, b in zip(ids, other_ids, strict=True)]
    same = run(variant, {**feeds, FILTERS: ids})
    filled = ids >= 0 if ids.shape == same[RESULTS[0]].shape else np.ones(ids.shape, dtype=bool)
    filled &= same[RESULTS[0]] == ids  # a fixed request may answer other filters: they cannot be compared
    for name in RESULTS[1:]:
        if not np.isfinite(same[name][filled].astype(np.float64)).all():
            raise ExplainerError(f"{name} of the variant is not finite: float16 may have overflowed; no file written")
    overlaps = []
    for area in AREAS:
        a, b = first[RESULTS[2]] <= area, same[RESULTS[2]] <= area
        overlaps.append(((a & b).sum(axis=(-2, -1)) / np.maximum((a | b).sum(axis=(-2, -1)), 1))[filled])
    overlap = float(np.mean(overlaps)) if filled.any() else 0.0
    if overlap < LEAST_OVERLAP:
        raise ExplainerError(
            f"the variant's areas overlap with the float32 file's by {overlap:.2f} only (IoU); no file written: "
            "calibrate on more and more typical images (--calibrate), or use --precision fp16"
        )
    losses = _of_evidence(first, same) if EVIDENCE_RANK in same else {}
    gap = np.abs(same[RESULTS[3]].astype(np.float64) - first[RESULTS[3]].astype(np.float64))[filled]
    return {
        "images": len(batch),
        "filters": round(float(np.mean(shared)), 4),
        "overlap": round(overlap, 4),
        "retention": round(float(gap.mean()), 5),
        **losses,
    }


def _of_evidence(first: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Mean IoU of the evidence areas of the same classes, and how far their decisions are apart.

    Raises:
        ExplainerError: something is not finite.
    """
    for name in DECISION_RESULTS[1:]:
        if not np.isfinite(found[name].astype(np.float64)).all():
            raise ExplainerError(f"{name} of the variant is not finite: float16 may have overflowed; no file written")
    same = first[CLASS_IDS] == found[CLASS_IDS]  # a variant may see another class at the top
    if not same.any():
        return {}
    overlaps = []
    for area in AREAS:
        a, b = first[EVIDENCE_RANK] <= area, found[EVIDENCE_RANK] <= area
        overlaps.append(((a & b).sum(axis=(-2, -1)) / np.maximum((a | b).sum(axis=(-2, -1)), 1))[same])
    gap = np.abs(first[DECISION].astype(np.float64) - found[DECISION].astype(np.float64))[same]
    return {"evidence": round(float(np.mean(overlaps)), 4), "decision": round(float(gap.mean()), 5)}
