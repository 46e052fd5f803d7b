"""A seeded sample of the damaged metadata, checkpoints and requests of `benchmarks/robustness/fuzz_entries.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.robustness.fuzz_entries"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked and measured by Linux's means")


@pytest.mark.parametrize(
    ("target", "cases", "most"),
    [("metadata", 18, 9), ("requests", 84, 21), pytest.param("checkpoints", 18, 18, marks=pytest.mark.slow)],
)
def test_what_comes_from_outside_ends_in_an_answer_or_one_line(
    target: str, cases: int, most: int, tmp_path: Path
) -> None:
    results = tmp_path / "fuzz.json"
    options = ["--of", target, "--cases", str(cases), "--seed", "5", "--workers", "1", "--out", str(results)]
    done = subprocess.run([*COMMAND, *options], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(results.read_text())["targets"][target]
    assert len(found) == cases
    assert len({case["kind"] for case in found}) == most
    statuses = [case["status"] for case in found]
    assert min(statuses.count(0), statuses.count(1)) > cases / 10
