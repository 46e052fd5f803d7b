"""Command line: ``python -m benchmarks.coverage``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from .rows import all_rows, sampled
from .running import run_stored, stored
from .table import summary, write_reports


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="rows at once, one thread each (1)")
    parser.add_argument("--only", metavar="TEXT", help="rows whose name contains TEXT; no report is written")
    parser.add_argument("--sample", metavar="SEED/PARTS", help="a seeded share of the cheap rows; no report is written")
    parser.add_argument("--results", type=Path, default=Path("build/coverage.jsonl"), help="a line per row; resumed")
    parser.add_argument("--report", action="store_true", help="run nothing; write the report of what was run")
    parser.add_argument("--again", action="store_true", help="repeat the rows that failed")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of coverage.md and coverage.json")
    return parser.parse_args()


def _report(result: dict[str, Any]) -> None:
    error = result.get("error", "")
    shown = f"{error:.1e}" if isinstance(error, float) else str(error)[:300]
    taken = result.get("built_s", 0), result.get("checked_s", 0)
    print(f"{result['status']:9} {result['id']:60} {taken[0]:6.1f} {taken[1]:6.1f} s  {shown}", flush=True)


def main() -> int:
    """0: every row that could be made passed."""
    given = _arguments()
    rows = all_rows()
    if given.sample:
        seed, parts = (int(part) for part in given.sample.split("/"))
        rows = sampled(rows, seed, parts)
    if given.only:
        rows = [row for row in rows if given.only in row.id or given.only == row.family]
    if given.list:
        print("\n".join(row.id for row in rows))
        return 0
    torch.set_num_threads(1)
    if given.report:
        known = stored(given.results)
        results = [known[row.id] for row in rows if row.id in known]
        write_reports(results, given.docs, len(rows))
        print(summary(results, len(rows)))
        return 0
    results = run_stored(rows, given.results, given.jobs, _report, again=given.again)
    print(summary(results, len(rows)))
    if not (given.only or given.sample):
        write_reports(results, given.docs, len(rows))
    return 0 if all(result["status"] in ("passed", "not made") for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
