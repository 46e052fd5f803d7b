"""`compare`: what moved between two runs. Needs the extra `dissect`."""

from __future__ import annotations

from .comparison import Change, Comparison, compare, write_comparison

__all__ = ["Change", "Comparison", "compare", "write_comparison"]
