"""README.md is short, and says what was measured; `test_docs.py` runs its examples."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_read_in_five_minutes() -> None:
    assert README.count("\n") <= 150


def test_what_converts_is_what_was_measured() -> None:
    from benchmarks.coverage.table import readme_row

    document = json.loads((ROOT / "docs" / "coverage.json").read_text(encoding="utf-8"))
    assert readme_row(document) in README
