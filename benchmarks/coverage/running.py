"""Runs rows, each in a process of its own: a crash, a hang or an exhausted memory is one row's result."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

from fsagn_onnx.conversion.ops import load_converters

from .check import check
from .rows import Row

Check = Callable[[Row], dict[str, Any]]
"""Makes a row's result: ``status`` and figures."""
TIME_LIMIT = 900
"""Seconds of the processor that a row may take: a busy machine makes none of them late."""
WAIT = 10 * TIME_LIMIT
"""Seconds of the clock after which a row hangs."""


@dataclass
class _Job:
    row: Row
    process: BaseProcess
    answer: Connection
    log: IO[bytes]
    started: float


def _child(row: Row, answer: Connection, log: int, examine: Check) -> None:
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT + 5))
    answer.send(examine(row))
    answer.close()


def _start(row: Row, examine: Check) -> _Job:
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _finish
    process = context.Process(target=_child, args=(row, theirs, log.fileno(), examine), daemon=False)
    process.start()
    theirs.close()
    return _Job(row, process, mine, log, time.monotonic())


_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Unsupported\w*|Invalid\w*|Fail)\b: ")


def _reason(lines: Sequence[str]) -> str:
    """The last line that names an exception: some exporters print whole graphs after it."""
    return next((line for line in reversed(lines) if _RAISED.match(line)), lines[-1])


def _finish(job: _Job, waited: bool) -> dict[str, Any]:
    result: dict[str, Any] | None = None
    if not waited and job.answer.poll():
        try:
            result = job.answer.recv()
        except EOFError:
            result = None
    if waited and job.process.pid is not None:
        os.kill(job.process.pid, signal.SIGKILL)
    job.process.join()
    job.log.seek(0)
    lines = [line for line in job.log.read().decode(errors="replace").splitlines() if line.strip()]
    job.log.close()
    if result is None and (waited or job.process.exitcode == -signal.SIGXCPU):
        result = {"status": "late", "error": f"over {WAIT} s" if waited else f"over {TIME_LIMIT} s of the processor"}
    elif result is None:
        text = _reason(lines) if lines else f"exit {job.process.exitcode}"
        ours = any("fsagn_onnx/" in line and "File" in line for line in lines)
        # what fails outside of our package is the exporter or the tool that made the file
        result = {"status": "crashed" if ours or job.process.exitcode != 1 else "not made"}
        result["error"] = " ".join(text.split())[:400]
    row = job.row
    columns = {"id": row.id, "network": row.network, "family": row.family, "exporter": row.exporter}
    return {**columns, "change": row.change, **result}


def run(rows: Sequence[Row], jobs: int, examine: Check = check) -> Iterator[dict[str, Any]]:
    """Results in the order in which rows finish."""
    load_converters()  # once, not in every process
    waiting, running = list(reversed(rows)), []
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_start(waiting.pop(), examine))
        wait([job.process.sentinel for job in running] + [job.answer for job in running], timeout=1)
        for job in list(running):
            late = time.monotonic() - job.started > WAIT
            if late or not job.process.is_alive() or job.answer.poll():
                running.remove(job)
                yield _finish(job, late and not job.answer.poll())


def stored(path: Path) -> dict[str, dict[str, Any]]:
    """Results of an earlier run by row; a line that was cut off is left out."""
    found = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                result = json.loads(line)
            except ValueError:
                continue
            found[result["id"]] = result
    return found


def run_stored(
    rows: Sequence[Row],
    path: Path,
    jobs: int,
    report: Callable[[dict[str, Any]], None],
    *,
    again: bool,
    examine: Check = check,
) -> list[dict[str, Any]]:
    """Run what `path` does not hold yet, a line per result appended at once; `again` repeats what failed."""
    known = stored(path)
    if again:
        known = {key: result for key, result in known.items() if result["status"] in ("passed", "not made")}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        for result in run([row for row in rows if row.id not in known], jobs, examine):
            stream.write(json.dumps(result) + "\n")
            stream.flush()
            known[result["id"]] = result
            report(result)
    sys.stdout.flush()
    return [known[row.id] for row in rows if row.id in known]
