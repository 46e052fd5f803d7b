"""What `explain` writes: the folder of results and its report. No torch."""

from __future__ import annotations
