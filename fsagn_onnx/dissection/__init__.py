"""Filters x parts over a data set, and what happens when parts are disturbed. Needs the extra `dissect`."""

from __future__ import annotations

from .dissection import Dissection, FilterRow
from .run import DissectRequest, DissectRun, dissect

__all__ = ["DissectRequest", "DissectRun", "Dissection", "FilterRow", "dissect"]
