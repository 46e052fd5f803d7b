"""A case of a fuzzer in a process of its own: forked from one that has imported everything, limited and judged."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAX_SECONDS = 30.0
"""Seconds of the processor."""
MAX_WAIT = 10 * MAX_SECONDS
"""Seconds of the clock, on a machine that has other work too."""
MAX_LINE = 1200
ADDRESS_SPACE = 6 * 2**30
"""Bytes a process may ask for beyond what it has when it starts: a runaway ends, and is counted."""

Work = Callable[[], int]
"""What a process does; its exit status."""


@dataclass
class Outcome:
    """What became of one file."""

    status: int = 0
    signal: int = 0
    seconds: float = 0.0  # of the processor
    grown: int = 0  # bytes of resident memory beyond an idle process
    out: str = ""
    err: str = ""
    faults: list[str] = field(default_factory=list)


def resident(what: str = "VmRSS") -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most since the last reset."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{what}:")[2].split()[0]) * 1024


def child(work: Work, folder: Path) -> None:
    """Become the process that does the work; never returns."""
    code = 99
    try:
        os.setsid()
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        (folder / "before").write_text(str(resident("VmHWM")))
        limit = resident("VmSize") + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(MAX_SECONDS), math.ceil(MAX_SECONDS) + 1))
        code = work()
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


def start(work: Work) -> Running:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    pid = os.fork()
    if pid == 0:
        child(work, folder)
    return Running(pid, time.monotonic(), folder)


def finished(running: Running, most: float = MAX_WAIT) -> Outcome | None:
    """The outcome, or None while it runs; a process that runs too long is killed."""
    pid, status, usage = os.wait4(running.pid, os.WNOHANG)
    killed = False
    if pid == 0:
        if time.monotonic() - running.started < most:
            return None
        os.killpg(running.pid, signal.SIGKILL)
        pid, status, usage = os.wait4(running.pid, 0)
        killed = True
    texts = [(running.folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")]
    before = int((running.folder / "before").read_text())  # what it has from the process that it was forked from
    shutil.rmtree(running.folder)
    ended, spent = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
    outcome = Outcome(max(ended, 0), max(-ended, 0), spent, max(0, usage.ru_maxrss * 1024 - before), *texts)
    if killed or -ended == signal.SIGXCPU:
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


def alone(work: Work) -> Outcome:
    running = start(work)
    while (outcome := finished(running)) is None:
        time.sleep(0.002)
    return outcome


def run_all(cases: Iterable[tuple[int, Work, int]], workers: int, seconds: float) -> dict[int, Outcome]:
    """Run cases, some at a time.

    Args:
        cases: (number, work, bytes that it may grow by), made one by one.
        workers: processes at a time.
        seconds: a process that runs longer hangs.

    Returns:
        Number -> what became of it.
    """
    outcomes: dict[int, Outcome] = {}
    waiting, ended = iter(cases), False
    running: list[tuple[int, Running, int]] = []
    while running or not ended:
        while len(running) < workers and not ended:
            case = next(waiting, None)
            ended = case is None
            if case is not None:
                running.append((case[0], start(case[1]), case[2]))
        for item in list(running):
            number, process, allowed = item
            outcome = finished(process, seconds)
            if outcome is not None:
                running.remove(item)
                judge(outcome, allowed)
                outcomes[number] = outcome
        time.sleep(0.002)
    return outcomes


def table(kinds: Mapping[int, str], outcomes: Mapping[int, Outcome]) -> list[str]:
    """What became of each kind of damage, as Markdown."""
    lines = [
        "| damage | cases | refused in one line | taken | crash | hang | traceback | other fault | slowest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in (*dict.fromkeys(kinds.values()), "all"):
        mine = [outcome for number, outcome in outcomes.items() if kind in (kinds[number], "all")]
        faults = Counter(fault for outcome in mine for fault in outcome.faults)
        other = sum(count for fault, count in faults.items() if fault not in ("crash", "hang", "traceback"))
        refused = sum(outcome.status == 1 and not outcome.faults for outcome in mine)
        taken = sum(outcome.status == 0 and not outcome.signal and not outcome.faults for outcome in mine)
        lines.append(
            f"| {kind} | {len(mine)} | {refused} | {taken} | {faults['crash']} | {faults['hang']} | "
            f"{faults['traceback']} | {other} | {max(outcome.seconds for outcome in mine):.1f} s |"
        )
    return lines


def write_section(path: Path, title: str, lines: Iterable[str]) -> None:
    """Write a section of a page, in place of one of the same title."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    parts = text.split("\n## ")
    head = parts[0].strip() or "# Damaged files and requests"
    sections = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts[1:]}
    sections[title] = "\n".join(lines).strip()
    path.write_text("\n\n".join([head, *(f"## {name}\n\n{body}" for name, body in sections.items())]) + "\n", "utf-8")
