"""The server under twice the load that it can take: statuses, latency, memory. Loopback only; it stops by itself.

    python -m benchmarks.speed.server [--clients 64] [--seconds 60] [--queue 32] [--explainer FILE]

First a few clients without pause measure what the server can take; then all clients together ask for twice that (and
for more, where it turns out to take more), each on a connection of its own. Counts answers by status (with and without
Retry-After), takes the latency of those that were served, and the server's memory before, five times in between and
after. Writes build/bench_serve.json.

Whoever is let in waits for those before him only, so the queue bounds the latency: by the time in which the queue's
answers are given, and two batches' (one handed out before the server reads the request, one before the client reads its
answer). The bound is the longest time in which so many answers in a row were given, so it holds however fast or slow
the machine is. How many answers others got while a request was under way is printed too. Fails where the p99 is above
the bound, where an answer is another than 200, 429 or 503 with Retry-After, and where memory grows.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import cv2
import numpy as np

from benchmarks.networks import DEMO_EXPLAINER
from fsagn_onnx.benchmark import machine
from fsagn_onnx.server.settings import Settings
from fsagn_onnx.testing.synthetic import SyntheticParts

CODE = "from fsagn_onnx.cli.main import main; main()"
MEASURE = 10.0
PARTS = 6
QUANTILES = (("median", 0.5), ("p99", 0.99), ("max", 1.0))
GROWTH = 1.05
"""Memory at the end over that after a third of the time, at most; until then threads and buffers are made."""


def request(path: str) -> bytes:
    """A request with one encoded picture as raw bytes, which asks for the areas as run lengths."""
    encoded = cv2.imencode(".jpg", cv2.resize(SyntheticParts("test", 1)[0].image, (320, 240))[..., ::-1])[1].tobytes()
    packed = len(encoded).to_bytes(4, "little") + encoded
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
    outputs = [{"name": "filter_ids"}]
    head = json.dumps({"inputs": [image], "outputs": outputs, "parameters": {"masks": "rle"}}).encode()
    body = head + packed
    lines = (
        f"POST {path}/infer HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        f"Inference-Header-Content-Length: {len(head)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Client:
    """One connection at a time; opened anew where the server closed it."""

    def __init__(self, host: str, port: int, content: bytes) -> None:
        self.where, self.content = (host, port), content
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self) -> tuple[int, bool]:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(*self.where)
        assert self.reader is not None
        self.writer.write(self.content)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        await self.reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return int(head.split()[1]), "retry-after: " in head

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Tally:
    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.served: list[tuple[float, float]] = []  # asked and answered

    async def one(self, client: Client) -> None:
        started = time.perf_counter()
        try:
            status, again = await asyncio.wait_for(client.ask(), 60)
        except (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.statuses[f"error: {type(error).__name__}"] += 1
            client.close()
            return
        self.statuses[f"{status}{' with Retry-After' if again else ''}"] += 1
        if status == 200:
            self.served.append((started, time.perf_counter()))


def bounds(served: list[tuple[float, float]], queue: int, batch: int) -> dict[str, Any]:
    """How many answers others got while a request was under way, how long it took, and what each may be."""
    asked, answered = np.array(served).T
    given = np.sort(answered)
    others = np.searchsorted(given, answered) - np.searchsorted(given, asked, side="right")
    allowed = queue + 2 * batch
    spans = given[allowed:] - given[:-allowed]
    return {
        "served_s": {name: round(float(np.quantile(answered - asked, q)), 3) for name, q in QUANTILES},
        "bound_s": round(float(spans.max()), 3),
        "answers_meanwhile": {name: float(np.quantile(others, q)) for name, q in QUANTILES},
        "bound_answers": allowed,
    }


async def flat_out(clients: list[Client], seconds: float) -> tuple[Tally, float]:
    """Every client asks again as soon as it is answered; answers per second."""
    tally, until, started = Tally(), time.perf_counter() + seconds, time.perf_counter()

    async def work(client: Client) -> None:
        while time.perf_counter() < until:
            await tally.one(client)

    await asyncio.gather(*map(work, clients))
    return tally, tally.statuses["200"] / (time.perf_counter() - started)


async def at_rate(clients: list[Client], rate: float, seconds: float, tally: Tally) -> None:
    """Together, the clients ask ``rate`` times a second; one that is late asks at once."""
    started = time.perf_counter()
    gap = len(clients) / rate

    async def work(place: int, client: Client) -> None:
        due = started + gap * place / len(clients)
        while due < started + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await tally.one(client)
            due = max(due + gap, time.perf_counter() - gap)

    await asyncio.gather(*(work(place, client) for place, client in enumerate(clients)))


def resident_mib(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def load(address: str, process: int, clients: int, seconds: float, queue: int) -> dict[str, Any]:
    url = urlsplit(address)
    content = request(url.path)
    everyone = [Client(str(url.hostname), int(url.port or 0), content) for _ in range(clients)]
    await flat_out(everyone[:8], 3)
    _, capacity = await flat_out(everyone[:8], MEASURE)
    tally, resident = Tally(), [resident_mib(process)]
    for _ in range(PARTS):
        before = tally.statuses["200"]
        await at_rate(everyone, 2 * capacity, seconds / PARTS, tally)
        resident.append(resident_mib(process))
        capacity = max(capacity, (tally.statuses["200"] - before) * PARTS / seconds)
    for client in everyone:
        client.close()
    return {
        "capacity_per_s": round(capacity, 1),
        "asked_per_s": round(sum(tally.statuses.values()) / seconds, 1),
        "answers": dict(tally.statuses),
        "served_per_s": round(tally.statuses["200"] / seconds, 1),
        **bounds(tally.served, queue, Settings().max_batch),
        "server_mib": [round(mib, 1) for mib in resident],
    }


@click.command()
@click.option("--clients", default=64, show_default=True)
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--queue", default=32, show_default=True)
@click.option("--explainer", type=click.Path(path_type=Path), default=DEMO_EXPLAINER)
def main(clients: int, seconds: float, queue: int, explainer: Path) -> None:
    words = [sys.executable, "-c", CODE, "serve", explainer, "--port", "0", "--json", "--queue", str(queue)]
    with subprocess.Popen(
        [*words, "--providers", "cpu", "--threads", "1"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            address = json.loads(server.stdout.readline())["url"]
            result = {
                "machine": machine(),
                "clients": clients,
                "seconds": seconds,
                "queue": queue,
                **asyncio.run(load(address, server.pid, clients, seconds, queue)),
            }
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(timeout=60)
    result["exit_status"] = status
    Path("build").mkdir(exist_ok=True)
    Path("build/bench_serve.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))
    failures = judged(result)
    print(f"p99 {result['served_s']['p99']} s, bounded by the queue: {result['bound_s']} s")
    print("\n".join(failures) or "every answer as it must be, memory flat")
    sys.exit(bool(failures or status))


def judged(result: dict[str, Any]) -> list[str]:
    """What must not be."""
    allowed = ("200", "429 with Retry-After", "503 with Retry-After")
    failures = [f"answers that must not be: {name}" for name in result["answers"] if name not in allowed]
    if result["served_s"]["p99"] > result["bound_s"]:
        failures.append(
            f"p99 {result['served_s']['p99']} s is above what the queue bounds it by, {result['bound_s']} s"
        )
    mib = result["server_mib"]
    if mib[-1] > GROWTH * mib[PARTS // 3]:
        failures.append(f"memory grew from {mib[PARTS // 3]} to {mib[-1]} MiB")
    return failures


if __name__ == "__main__":
    main()
