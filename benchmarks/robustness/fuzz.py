"""Damaged ONNX files through `fsagn-onnx inspect`: load, list the layers, convert, compare (and open an explainer).

    python -m benchmarks.robustness.fuzz     500 mutants of 10 models; writes build/fuzz.json, with --docs docs/fuzz.md
    python -m benchmarks.robustness.fuzz --mutants 25

Each mutant runs in a process of its own, forked from one that has imported everything, under limits of time and
address space. It must end by itself within 30 s, with exit status 0 and one JSON document, or 1 and one line of at
most 1,200 characters, without control characters; and its memory may not grow by more than 4 times the files that it
reads plus 512 MiB (what interpreter, onnxruntime, torch, the two probe images and the trial of an explainer take; an
undamaged one takes up to two thirds).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.robustness.fuzz_models import BUILDERS
from benchmarks.robustness.fuzz_mutants import KINDS, Mutant, make_mutant

ROOT = Path(__file__).resolve().parents[2]
ABOUT = __doc__.partition("\n\n")[2].partition("\n\n")[2].strip()
MAX_SECONDS = 30.0
MAX_LINE = 1200
TIMES_FILE = 4
CONSTANT = 512 * 2**20
"""Bytes that the command may take for any file."""
ADDRESS_SPACE = 6 * 2**30
"""Bytes a process may ask for beyond what it has when it starts: a runaway ends, and is counted."""


@dataclass
class Outcome:
    """What became of one file."""

    status: int = 0
    signal: int = 0
    seconds: float = 0.0
    grown: int = 0  # bytes of resident memory beyond an idle process
    out: str = ""
    err: str = ""
    faults: list[str] = field(default_factory=list)


def work(path: Path) -> int:
    """The command, in the forked process."""
    from fsagn_onnx.cli.main import run
    from fsagn_onnx.errors import FsagnError

    status = run(["inspect", str(path), "--json"])
    if status == 0 and path.name.startswith("demo_explainer"):
        from fsagn_onnx.explanations.subject import open_explainer

        try:
            open_explainer(path, method="activation", providers="cpu", threads=1).explainer.close()
        except FsagnError as error:
            if "\n" in str(error):
                sys.stderr.write(f"error: {error}\n")
                return 1
    return status


def child(path: Path | None, folder: Path) -> None:
    """Become the process that does the work; never returns."""
    code = 99
    try:
        os.setsid()
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        if path is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + ADDRESS_SPACE
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = work(path)
        else:
            code = 0
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001  # whatever it is, the parent must see it
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


@dataclass
class Running:
    """A process at work."""

    pid: int
    started: float
    folder: Path
    mutant: Mutant | None


def start(path: Path | None, mutant: Mutant | None = None) -> Running:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    pid = os.fork()
    if pid == 0:
        child(path, folder)
    return Running(pid, time.monotonic(), folder, mutant)


def finished(running: Running, idle: int, most: float = MAX_SECONDS) -> Outcome | None:
    """The outcome, or None while it runs; a process that runs too long is killed."""
    seconds = time.monotonic() - running.started
    pid, status, usage = os.wait4(running.pid, os.WNOHANG)
    killed = False
    if pid == 0:
        if seconds < most:
            return None
        os.killpg(running.pid, signal.SIGKILL)
        pid, status, usage = os.wait4(running.pid, 0)
        killed = True
    texts = [(running.folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")]
    shutil.rmtree(running.folder)
    ended = os.waitstatus_to_exitcode(status)
    outcome = Outcome(max(ended, 0), max(-ended, 0), seconds, max(0, usage.ru_maxrss * 1024 - idle), *texts)
    if killed:
        outcome.faults.append("hang")
    return outcome


def judge(outcome: Outcome, allowed: int) -> None:
    """Note what may not happen."""
    lines = outcome.err.splitlines()
    if outcome.signal and "hang" not in outcome.faults:
        outcome.faults.append("crash")
    if "Traceback" in outcome.err:
        outcome.faults.append("traceback")
    if outcome.status not in (0, 1) and not outcome.signal:
        outcome.faults.append("status")
    if outcome.status == 1 and (len(lines) != 1 or outcome.out or not lines[0].startswith("error: ")):
        outcome.faults.append("lines")
    if any(len(line) > MAX_LINE or not line.isprintable() for line in lines):
        outcome.faults.append("unclear")
    if outcome.status == 0 and not outcome.faults:
        try:
            json.loads(outcome.out)
        except ValueError:
            outcome.faults.append("no JSON")
        if lines:
            outcome.faults.append("lines")
    if outcome.grown > allowed or "not enough memory" in outcome.err:
        outcome.faults.append("memory")


def preload() -> None:
    """Import what the command imports, so that each process starts at once."""
    for package in (
        "conversion",
        "explanations.subject",
        "generator.trial",
        "inspection",
        "methods",
        "terminal.inspection",
    ):
        import_module(f"fsagn_onnx.{package}")


def alone(path: Path | None, idle: int) -> Outcome:
    running = start(path)
    while (outcome := finished(running, idle)) is None:
        time.sleep(0.002)
    return outcome


def read_bytes(mutant: Mutant) -> int:
    """Bytes of all files beside and of the mutant."""
    return sum(path.stat().st_size for path in mutant.path.parent.iterdir() if path.is_file() and not path.is_symlink())


def fuzz(
    count: int, seed: int, workers: int, seconds: float, folder: Path
) -> tuple[dict[Mutant, Outcome], dict[str, int]]:
    models = {name: build() for name, build in BUILDERS.items()}
    preload()
    idle = alone(None, 0).grown
    base = {}
    for name, proto in models.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString())
        outcome = alone(path, idle)
        judge(outcome, 2**40)
        assert not outcome.faults, f"{name}, undamaged: {outcome.faults} {outcome.err}"
        converted = json.loads(outcome.out)["convertible"]
        assert converted or name in ("demo_explainer",), f"{name}, undamaged: {json.loads(outcome.out)['conversion']}"
        base[name] = outcome.grown
    outcomes: dict[Mutant, Outcome] = {}
    waiting, running = iter(range(count)), []
    ended = False
    while running or not ended:
        while len(running) < workers and not ended:
            number = next(waiting, None)
            ended = number is None
            if number is not None:
                mutant = make_mutant(number, seed, models, folder)
                running.append(start(mutant.path, mutant))
        for item in list(running):
            outcome = finished(item, idle, seconds)
            if outcome is not None and item.mutant is not None:
                running.remove(item)
                judge(outcome, TIMES_FILE * read_bytes(item.mutant) + CONSTANT)
                outcomes[item.mutant] = outcome
        time.sleep(0.002)
    return outcomes, base


def table(outcomes: dict[Mutant, Outcome]) -> list[str]:
    lines = [
        "| damage | mutants | refused in one line | described | crash | hang | traceback | other fault | slowest |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for kind in (*KINDS, "all"):
        mine = [outcome for mutant, outcome in outcomes.items() if kind in (mutant.kind, "all")]
        if not mine:
            continue
        faults = Counter(fault for outcome in mine for fault in outcome.faults)
        other = sum(count for fault, count in faults.items() if fault not in ("crash", "hang", "traceback"))
        refused = sum(outcome.status == 1 and not outcome.faults for outcome in mine)
        described = sum(outcome.status == 0 and not outcome.signal and not outcome.faults for outcome in mine)
        lines.append(
            f"| {kind} | {len(mine)} | {refused} | {described} | {faults['crash']} | {faults['hang']} | "
            f"{faults['traceback']} | {other} | {max(outcome.seconds for outcome in mine):.1f} s |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=MAX_SECONDS, help="a process that runs longer hangs")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "fuzz.json")
    parser.add_argument("--docs", type=Path, help="write the table as Markdown too")
    parser.add_argument("--keep", type=Path, help="keep the mutants in this folder")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="fuzz-mutants-"))
    folder.mkdir(parents=True, exist_ok=True)
    outcomes, base = fuzz(options.mutants, options.seed, options.workers, options.seconds, folder)
    for mutant, outcome in sorted(outcomes.items(), key=lambda item: item[0].number):
        if outcome.faults:
            what = f"{', '.join(outcome.faults)}: signal {outcome.signal}, status {outcome.status}"
            cost = f"{outcome.seconds:.1f} s, {outcome.grown / 2**20:.0f} MiB"
            said = (outcome.err.strip().splitlines() or [""])[-1][:300]
            print(f"{mutant.number:4} {mutant.model}, {mutant.kind}: {what}, {cost}: {said}")
    lines = table(outcomes)
    faulty = sum(bool(outcome.faults) for outcome in outcomes.values())
    grown = max(outcome.grown for outcome in outcomes.values()) / 2**20
    lines.append("")
    least, most = (end(base.values()) / 2**20 for end in (min, max))
    lines.append(
        f"Undamaged, the same command grows by {least:.0f} to {most:.0f} MiB; the hungriest mutant by {grown:.0f}."
    )
    lines.append(f"{faulty} of {len(outcomes)} mutants did what they may not.")
    print("\n".join(lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = [
        {"number": mutant.number, "model": mutant.model, "kind": mutant.kind, "status": outcome.status,
         "signal": outcome.signal, "seconds": round(outcome.seconds, 2), "grown": outcome.grown,
         "faults": outcome.faults, "line": outcome.err[:MAX_LINE]}
        for mutant, outcome in sorted(outcomes.items(), key=lambda item: item[0].number)
    ]  # fmt: skip
    options.out.write_text(json.dumps({"seed": options.seed, "base": base, "mutants": results}, indent=1) + "\n")
    if options.docs:
        command = f"`python -m benchmarks.robustness.fuzz --mutants {options.mutants} --seed {options.seed}`"
        head = f"# Damaged files\n\n{command}. What is done to each:\n\n{ABOUT}\n\n"
        options.docs.write_text(head + "\n".join(lines) + "\n")
    if not options.keep:
        shutil.rmtree(folder)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
