"""Sends requests through the whole application of the server but its socket, one by one, and judges the answers."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robustness.fuzz_processes import Outcome, finished, resident, start
from benchmarks.robustness.fuzz_requests import LENGTH, REQUEST_KINDS, Ask, make_ask

MAX_SECONDS = 10.0
"""Seconds of the processor."""
MAX_WAIT = 100.0
MAX_ERROR = 1100


async def answered(app: Any, ask: Ask) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer of an ASGI application."""
    pieces, sent = [ask.body], []

    async def receive() -> dict[str, Any]:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in ask.headers.items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": ask.method, "scheme": "http",
        "path": ask.path, "raw_path": ask.path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    given = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in sent[0]["headers"]}
    return sent[0]["status"], given, b"".join(message.get("body", b"") for message in sent[1:])


def check(ask: Ask, status: int, headers: dict[str, str], content: bytes) -> Iterator[str]:
    """What is wrong with an answer."""
    if status >= 500:
        yield f"status {status}"
    if status >= 400:
        try:
            said = json.loads(content)["error"]
        except (ValueError, KeyError, TypeError):
            if ask.method != "HEAD":
                yield "no JSON"
            return
        if len(said) > MAX_ERROR or not said.isprintable():
            yield "unclear"
        if ask.whole:
            yield "refused"
        return
    if not ask.path.endswith("/infer") or not content:
        return
    length = int(headers.get(LENGTH, len(content)))
    document, behind = json.loads(content[:length]), content[length:]
    outputs = {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        count = math.prod(output["shape"])
        if size is None:
            outputs[output["name"]] = np.array(output["data"], dtype=object)
        else:
            kind = {"INT64": "<i8", "FP32": "<f4"}[output["datatype"]]
            outputs[output["name"]], behind = np.frombuffer(behind[:size], kind).astype(object), behind[size:]
        if len(outputs[output["name"]]) != count:
            yield "shape"
    if behind:
        yield "bytes left over"
    if ask.whole:
        shape = next(output["shape"] for output in document["outputs"] if output["name"] == "area_rank")
        cells = shape[2] * shape[3]
        ranks = np.sort(np.array(outputs["area_rank"], dtype=float).reshape(-1, cells), axis=1)
        if not np.allclose(ranks, np.arange(1, cells + 1) / cells, atol=1e-6):
            yield "ranks"
        if not set(outputs["filter_ids"]) <= set(range(-1, 1000)):
            yield "filters"


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.getMessage()} {record.exc_info}")


def serve_cases(numbers: list[int], seed: int, explainer: Path, results: Path, constant: int, times: int) -> int:
    """Start the application, send it requests one by one, and note a line for each; in a forked process."""
    from fsagn_onnx.runtime.file_engine import FileEngine
    from fsagn_onnx.server.app import make_app

    engine = FileEngine(explainer, "cpu", 1)
    spec, log = engine.metadata.input, _Records()
    logging.getLogger().addHandler(log)
    app = make_app(engine, "m")

    async def go() -> None:
        async with app.router.lifespan_context(app):
            with results.open("a", encoding="utf-8") as lines:
                for number in numbers:
                    kind, ask = make_ask(number, seed, spec.name, spec.sample_shape, engine.takes_pixels)
                    lines.write(json.dumps({"number": number, "kind": kind}) + "\n")
                    lines.flush()
                    Path("/proc/self/clear_refs").write_text("5")
                    before, started, log.texts = resident("VmRSS"), time.process_time(), []
                    outcome = Outcome()
                    try:
                        status, headers, content = await asyncio.wait_for(answered(app, ask), MAX_WAIT)
                        outcome.status = int(status >= 400)
                        outcome.err = content[:MAX_ERROR].decode("utf-8", "replace") if status >= 400 else ""
                        outcome.faults += check(ask, status, headers, content)
                    except TimeoutError:
                        outcome.faults.append("hang")
                    except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
                        outcome.faults.append("traceback")
                        outcome.err = f"{type(error).__name__}: {error}"
                    outcome.seconds, outcome.grown = time.process_time() - started, resident("VmHWM") - before
                    if log.texts:
                        outcome.faults.append("traceback")
                        outcome.err = log.texts[0]
                    if outcome.seconds > MAX_SECONDS:
                        outcome.faults.append("hang")
                    if outcome.grown > constant + times * len(ask.body):
                        outcome.faults.append("memory")
                    lines.write(json.dumps({"number": number, "outcome": asdict(outcome)}) + "\n")
                    lines.flush()

    asyncio.run(go())
    return 0


def ask_all(
    cases: int, seed: int, explainers: list[Path], folder: Path, constant: int, times: int
) -> tuple[dict[int, str], dict[int, Outcome]]:
    """Send requests to servers one after another; one that dies or hangs is started anew behind the case it met."""
    kinds: dict[int, str] = {}
    outcomes: dict[int, Outcome] = {}
    for k, explainer in enumerate(explainers):
        left = [number for number in range(cases) if number // len(REQUEST_KINDS) % len(explainers) == k]
        while left:
            results = folder / f"{k}-{left[0]}.jsonl"
            process = start(partial(serve_cases, left, seed, explainer, results, constant, times))
            seen, at, ended = 0, time.monotonic(), None
            while ended is None and time.monotonic() - at < 2 * MAX_WAIT:
                time.sleep(0.05)
                ended = finished(process, math.inf)
                size = results.stat().st_size if results.exists() else 0
                if size != seen:
                    seen, at = size, time.monotonic()
            if ended is None:
                os.kill(process.pid, 9)
                while (ended := finished(process, math.inf)) is None:
                    time.sleep(0.01)
                ended.faults.append("hang")
            for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else ():
                members = json.loads(line)
                if "kind" in members:
                    kinds[members["number"]] = members["kind"]
                else:
                    outcomes[members["number"]] = Outcome(**members["outcome"])
            met = [number for number in left if number in kinds and number not in outcomes]
            assert met or ended.status == 0, ended.err
            for number in met:
                outcomes[number] = Outcome(faults=ended.faults or ["crash"], err=ended.err, signal=ended.signal)
            left = [number for number in left if number not in outcomes]
    ordered = sorted(kinds, key=lambda number: REQUEST_KINDS.index(kinds[number]))
    return {number: kinds[number] for number in ordered}, outcomes
