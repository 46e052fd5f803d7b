"""A seeded sample of the damaged files of `benchmarks/robustness/fuzz.py`, which says what may not happen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.robustness.fuzz"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and measured by Linux's means"),
]


def test_damaged_files_end_in_one_line(tmp_path: Path) -> None:
    results = tmp_path / "fuzz.json"
    options = ["--mutants", "25", "--seed", "4", "--workers", "2", "--seconds", "900", "--out", str(results)]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    mutants = json.loads(results.read_text())["mutants"]
    assert len(mutants) == 25
    assert len({mutant["kind"] for mutant in mutants}) > 10
    refused = [mutant for mutant in mutants if mutant["status"] == 1]
    assert len(refused) > 10
    assert all(mutant["line"].startswith("error: ") for mutant in refused)
