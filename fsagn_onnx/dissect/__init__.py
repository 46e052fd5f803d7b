"""Filters x parts over a data set, and what happens when parts are disturbed. Needs the extra `dissect`."""

from __future__ import annotations

from .run import DissectRun, Request, dissect
from .table import Dissection, FilterRow

__all__ = ["DissectRun", "Dissection", "FilterRow", "Request", "dissect"]
