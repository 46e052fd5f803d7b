"""What a fuzzer is told on the command line, and what it prints and writes of its cases."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.networks import ROOT
from benchmarks.robustness.fuzz_processes import MAX_LINE, MAX_WAIT, Outcome

MIB = 2**20


def fuzz_options(about: str, name: str, cases: tuple[str, int, str]) -> argparse.ArgumentParser:
    """The options of every fuzzer.

    Args:
        about: the module's docstring; its first line describes the command.
        name: of the file of results in ``build``, without its ending.
        cases: option, number unless told, and explanation of how many cases there are.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    option, count, what = cases
    parser.add_argument(option, type=int, default=count, help=what)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=MAX_WAIT, help="a process that is there for longer hangs")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / f"{name}.json")
    parser.add_argument("--docs", type=Path, help="write the tables as Markdown too")
    parser.add_argument("--keep", type=Path, help="keep the cases in this folder")
    return parser


def explanation(about: str) -> str:
    """What a module's docstring says behind its first line and its commands."""
    return about.partition("\n\n")[2].partition("\n\n")[2].strip()


@contextmanager
def case_folder(keep: Path | None) -> Iterator[Path]:
    """The folder of the cases; gone afterwards unless it is to be kept, and where something failed."""
    folder = keep or Path(tempfile.mkdtemp(prefix="fuzz-cases-"))
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    if keep is None:
        shutil.rmtree(folder)


def preload(*packages: str) -> None:
    """Import what commands import, so that each process starts at once."""
    for package in packages:
        import_module(f"fsagn_onnx.{package}")


def print_faults(names: Mapping[int, str], outcomes: Mapping[int, Outcome]) -> int:
    """A line for each case that did what it may not; how many they are."""
    faulty = [(number, outcome) for number, outcome in sorted(outcomes.items()) if outcome.faults]
    for number, outcome in faulty:
        said = (outcome.err.strip().splitlines() or [""])[-1][:300]
        cost = f"{outcome.seconds:.1f} s, {outcome.grown / MIB:.0f} MiB"
        what = f"{', '.join(outcome.faults)}: status {outcome.status}, signal {outcome.signal}, {cost}: {said}"
        print(f"{number:4} {names[number]}: {what}")
    return len(faulty)


def rows(about: Mapping[int, Mapping[str, Any]], outcomes: Mapping[int, Outcome]) -> list[dict[str, Any]]:
    """What became of each case, for the file of results."""
    return [
        {"number": number, **about[number], "status": outcome.status, "signal": outcome.signal,
         "seconds": round(outcome.seconds, 2), "grown": outcome.grown, "faults": outcome.faults,
         "line": outcome.err[:MAX_LINE]}
        for number, outcome in sorted(outcomes.items())
    ]  # fmt: skip


def write_results(out: Path, document: Mapping[str, Any]) -> None:
    """The file of results."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
