"""The contents of one image's files: masks, overlay, its line and its place in the report."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..runtime.drawing.overlay import OUTLINED, draw_panel, encode_png
from ..runtime.explanation import Explanation
from ..runtime.masks import area_rank, upsample
from .page import Detail, article

HALF_PRECISION_CELLS: Final = 2048
"""Grids of up to this many cells keep every rank apart in float16."""


@dataclass(frozen=True)
class Place:
    """Where one image's results go: the stem of its files, and how much of it the report shows (None: nothing)."""

    name: str
    detail: Detail | None


@dataclass(frozen=True)
class Rendered:
    """The contents of one image's files, and its line in the report."""

    name: str
    path: str
    line: bytes
    masks: bytes
    overlay: bytes
    article: str | None


def render_result(explanation: Explanation, place: Place, *, full_size: bool, style: str = OUTLINED) -> Rendered:
    """Make the contents of one image's files; safe to call in several threads."""
    members = {"path": explanation.name, "name": place.name, **explanation.to_dict()}
    return Rendered(
        name=place.name,
        path=explanation.name,
        line=json.dumps(members, allow_nan=False).encode("ascii") + b"\n",
        masks=_masks(explanation, full_size=full_size),
        overlay=encode_png(draw_panel(explanation, style)),
        article=None if place.detail is None else article(explanation, place.name, place.detail),
    )


def _masks(explanation: Explanation, *, full_size: bool) -> bytes:
    """The npz file: ``area_rank`` (K, h, w), ``filter_ids`` (K,), ``area`` (K,), ``affine`` (2, 3), ``size`` (2,).

    ``affine`` takes (x, y, 1) in cells of ``area_rank`` to (x, y) in pixels of the original. At full size it is the
    identity, ranks are those of the pixels of the model's input, and what the model did not see is infinite:
    never kept. Where classes were asked about also ``evidence_rank`` (J, h, w), on its grid at any size,
    ``evidence_class`` (J,), ``evidence_area`` (J,) and ``evidence_affine`` (2, 3).
    """
    filters = explanation.filters
    ranks = np.stack([f.area_rank for f in filters]) if filters else np.zeros((0, 1, 1), np.float32)
    affine = explanation.geometry.grid_matrix(*ranks.shape[1:])
    if full_size:
        geometry = explanation.geometry
        pixels = area_rank(-upsample(ranks, geometry.size))
        full = [geometry.mask_to_original(single) for single in pixels]
        ranks = np.stack(full) if full else np.zeros((0, *explanation.size), np.float32)
        ranks[ranks == 0] = np.inf
        affine = np.eye(2, 3)
    small = ranks.shape[1] * ranks.shape[2] <= HALF_PRECISION_CELLS and not full_size
    content = io.BytesIO()
    decisions: dict[str, Any] = {}
    if explanation.evidence:
        evidence = np.stack([found.area_rank for found in explanation.evidence])
        decisions = {
            "evidence_rank": evidence.astype(np.float32),
            "evidence_class": np.array([found.index for found in explanation.evidence], dtype=np.int64),
            "evidence_area": np.array([found.area for found in explanation.evidence], dtype=np.float32),
            "evidence_affine": explanation.geometry.grid_matrix(*evidence.shape[1:]),
        }
    np.savez_compressed(
        content,
        area_rank=ranks.astype(np.float16 if small else np.float32),
        filter_ids=np.array([f.id for f in filters], dtype=np.int64),
        area=np.array([f.area for f in filters], dtype=np.float32),
        affine=affine,
        size=np.array(explanation.size, dtype=np.int64),
        **decisions,
    )
    return content.getvalue()
