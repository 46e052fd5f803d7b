"""Filters x parts over a data set, and what happens when parts are disturbed. Needs the extra `dissect`."""

from __future__ import annotations

from .dissection import Dissection, FilterRow
from .run import DissectRun, Request, dissect

__all__ = ["DissectRun", "Dissection", "FilterRow", "Request", "dissect"]
