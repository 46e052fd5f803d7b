"""A seeded share of the coverage zoo (`make coverage`), of rows that take about a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_seeded_sample_of_the_zoo_converts(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.coverage", "--sample", "1/10"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path / "rows.jsonl")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(100.0 %); 0 fail" in done.stdout
