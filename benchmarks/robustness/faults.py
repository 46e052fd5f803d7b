"""Are all rows there once, and the same, whatever is killed?

    python -m benchmarks.robustness.faults [--kills 36] [--first 0] [--seed 0] [--pictures 600]
        [--disk 400k] [--only kills|disk|store]

One process explains a list of small pictures into a dataset. Then a Ray cluster of three nodes is started on this
machine, and the same list is explained by it again and again; each time one thing is killed (SIGKILL) at a random
moment before three quarters of the parts are there: a worker, a node with all that runs on it, or the driver, which
is then started again with --resume. After each kill the sorted rows must be those of the one process. Every third
round reads and writes an S3 server on loopback, which answers one request in ten with 503.

A full disk is a small tmpfs, where the machine lets this script mount one. A store falls silent (503 to everything)
until the run gives up; then it answers again.

Every round is a line of build/faults.jsonl as soon as it is over. What stands there of the same pictures and with the
same seed is not done again, so a campaign may be stopped and gone on with, or done in several goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.robustness.fault_places import Nodes, Server, small_disk, workers
from fsagn_onnx.data.store import Store
from fsagn_onnx.explanations.parts import dataset_rows, part_names
from fsagn_onnx.testing.synthetic import write_folder

ROOT = Path(__file__).resolve().parents[2]
EXPLAINER = ROOT / "models" / "demo_explainer.onnx"
RUN = "import sys; from fsagn_onnx.cli.main import run; sys.exit(run(sys.argv[1:]))"
KINDS = ("worker", "node", "driver")
PART = 20
SECTIONS = ("kills", "disk", "store")
LINES = Path("build/faults.jsonl")
STARTED: list[subprocess.Popen[str]] = []
"""Runs of `explain`; none outlives this script."""


def sorted_rows(where: str) -> list[str]:
    """All rows but their paths, as JSON, sorted."""
    return sorted(
        json.dumps({name: value for name, value in row.items() if name != "path"}, sort_keys=True)
        for row in dataset_rows(Store(where))
    )


def rows_digest(where: str) -> dict[str, Any]:
    """Number of rows, a hash of them, and the rows themselves."""
    lines = sorted_rows(where)
    return {"rows": len(lines), "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(), "lines": lines}


def differences(lines: list[str], expected: list[str]) -> list[dict[str, Any]]:
    """Of the first rows that are found in one of both only, the values that differ."""
    only, missing = sorted(set(lines) - set(expected)), sorted(set(expected) - set(lines))
    told = [{"rows": len(only), "rows_of_one_process": len(missing)}]
    for one, other in list(zip(only, missing, strict=False))[:3]:
        mine, theirs = json.loads(one), json.loads(other)
        told.append(
            {name: [str(mine[name])[:80], str(theirs[name])[:80]] for name in mine if mine[name] != theirs[name]}
        )
    return told


def explain(images: str, out: str, *words: str) -> subprocess.Popen[str]:
    options = ["--no-measure", "--providers", "cpu", "--overlays", "0", "--part-pictures", str(PART)]
    line = [sys.executable, "-c", RUN, "explain", str(EXPLAINER), images, "--out", out, *options, *words]
    STARTED.append(
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    )
    return STARTED[-1]


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=1800)[1]
    return process.returncode, said.strip().splitlines()[-1] if said.strip() else ""


def killed(kind: str, process: subprocess.Popen[str], nodes: Nodes, draw: random.Random) -> str:
    """Kill a thing; gives what it was, or nothing where there was none any more."""
    if kind == "driver":
        if process.poll() is not None:
            return ""
        os.killpg(process.pid, signal.SIGKILL)
        return f"process {process.pid}"
    if kind == "node":
        return nodes.kill_one(draw)
    there = workers()
    if not there:
        return ""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid := draw.choice(there), signal.SIGKILL)
        return f"process {pid}"
    return ""


def one_kill(kind: str, seed: int, images: str, out: str, nodes: Nodes, parts: int) -> dict[str, Any]:
    """One run with one kill; a run that is over before the moment came is done again with another moment."""
    draw = random.Random(seed)
    while True:
        at, pause = draw.randrange(parts * 3 // 4), draw.random() * 0.3  # what comes later is often over by then
        process = explain(images, out, "--cluster", nodes.cluster.address, "--overwrite")
        time.sleep(1)
        while process.poll() is None and (len(part_names(Store(out))) < max(1, at) or not workers()):
            time.sleep(0.02)
        time.sleep(pause)
        there = len(part_names(Store(out)))
        what = killed(kind, process, nodes, draw) if process.poll() is None and there < parts else ""
        status, said = finished(process)
        if what:
            break
    again = 0
    while status != 0 and again < 3:
        status, said = finished(explain(images, out, "--cluster", nodes.cluster.address, "--resume"))
        again += 1
    found = rows_digest(out)
    nodes.fill(3)
    return {
        "seed": seed, "kind": kind, "killed": what, "parts_there": there, "resumed": again, "status": status,
        "said": said, **found,
    }  # fmt: skip


def full_disk(images: str, address: str, size: str) -> dict[str, Any]:
    """A disk that fills in the middle; then it is enlarged, and the run goes on."""
    with small_disk(size) as disk:
        if disk is None:
            return {"tried": False}
        out = str(disk / "run")
        status, said = finished(explain(images, out, "--cluster", address))
        there = len(part_names(Store(out)))
        halves = [path.name for path in Path(out).rglob(".*")]
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        resumed, _ = finished(explain(images, out, "--cluster", address, "--resume"))
        return {"tried": True, "status": status, "said": said, "parts_there": there, "half_files": halves,
                "resumed": resumed, **rows_digest(out)}  # fmt: skip


def silent_store(server: Server, images: str, out: str, address: str) -> dict[str, Any]:
    """A store that answers nothing but 503 from some moment on; then it does again, and the run goes on."""
    process = explain(images, out, "--cluster", address, "--overwrite")
    while process.poll() is None and not part_names(Store(out)):
        time.sleep(0.1)
    server.refusing, before = 1.0, server.refused
    started = time.monotonic()
    status, said = finished(process)
    waited, refused = time.monotonic() - started, server.refused - before
    server.refusing = 0.0
    there = len(part_names(Store(out)))
    resumed, _ = finished(explain(images, out, "--cluster", address, "--resume"))
    return {"tried": True, "status": status, "said": said, "parts_there": there, "waited_s": round(waited, 1),
            "refused": refused, "resumed": resumed, **rows_digest(out)}  # fmt: skip


class Campaign:
    """The pictures, the rows that they must become, and the lines of what was tried.

    Attributes:
        lists: what to explain, on the disk and in the store.

    Args:
        folder: for pictures and runs.
        pictures: places of the list.
        server: the store.
    """

    def __init__(self, folder: Path, pictures: int, server: Server) -> None:
        self.folder, self.server, self.bucket = folder, server, server.bucket()
        write_folder(folder / "pictures", "val", max(1, pictures // 6))
        paths = sorted((folder / "pictures" / "images").iterdir())
        for path in paths:
            Store(f"{self.bucket}/in").write(path.name, path.read_bytes())
        names = {"disk": [str(path) for path in paths], "store": [f"{self.bucket}/in/{path.name}" for path in paths]}
        self.lists, self.parts = {}, -(-pictures // PART)
        for place, listed in names.items():
            file = folder / f"{place}.txt"
            file.write_text("\n".join(listed[n % len(paths)] for n in range(pictures)))
            self.lists[place] = f"@{file}"
        status, said = finished(explain(self.lists["disk"], str(folder / "alone")))
        assert status == 0, said
        alone = rows_digest(str(folder / "alone"))
        self.digest, self.expected = alone["digest"], alone["lines"]
        self.told = {"pictures": pictures, "part_pictures": PART, "alone_rows": alone["rows"]}

    def lines(self, section: str) -> list[dict[str, Any]]:
        """What was found of these pictures, in this go and in those before."""
        text = LINES.read_text(encoding="utf-8") if LINES.is_file() else ""
        found = [json.loads(line) for line in text.splitlines()]
        return [line for line in found if line["section"] == section and line["alone"] == self.digest]

    def note(self, section: str, found: dict[str, Any]) -> None:
        """Write a line; ``same`` says whether the rows are those of one process."""
        rows = found.pop("lines", None)
        line = {"section": section, **found, **self.told, "alone": self.digest}
        if rows is not None:
            line["same"] = rows == self.expected
            if rows != self.expected:
                line["differs"] = differences(rows, self.expected)
        with LINES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def kill(self, number: int, seed: int, nodes: Nodes) -> None:
        """A round of the campaign of kills."""
        place = "store" if number % 3 == 2 else "disk"
        self.server.refusing, before = 0.1 if place == "store" else 0.0, self.server.refused
        out = f"{self.bucket}/run" if place == "store" else str(self.folder / "run")
        found = one_kill(KINDS[(number + number // 3) % 3], seed, self.lists[place], out, nodes, self.parts)
        self.server.refusing = 0.0
        self.note("kills", {**found, "place": place, "refused": self.server.refused - before})


@contextlib.contextmanager
def three_nodes() -> Iterator[Nodes]:
    """A cluster; it ends with this script, whatever ends that."""
    nodes = Nodes(3)
    try:
        yield nodes
    finally:
        for process in STARTED:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        nodes.cluster.shutdown()


def told(campaign: Campaign, seeds: range) -> bool:
    """Print what all goes found; whether anything is missing or other than it should be."""
    kills = [line for line in campaign.lines("kills") if line["seed"] in seeds]
    same, kinds = sum(line["same"] for line in kills), dict.fromkeys(KINDS, 0)
    for line in kills:
        kinds[line["kind"]] += 1
    if kills:
        print(
            f"{len(kills)} kills ({kinds}), seeds {kills[0]['seed']} to {kills[-1]['seed']}: the same rows after "
            f"{same}; 503 {sum(line['refused'] for line in kills)} times"
        )
    failed = same != len(kills)
    for section in SECTIONS[1:]:
        for line in campaign.lines(section)[-1:]:
            print(f"{section}: " + (f"status {line['status']} ({line['said']}), {line['parts_there']} parts, then the "
                  f"same rows: {line['same']}" if line["tried"] else "could not be tried here"))  # fmt: skip
            failed = failed or not (line["tried"] and line["same"] and line["status"])
    return failed


@click.command()
@click.option("--kills", default=36, show_default=True, help="Rounds of the whole campaign.")
@click.option("--first", default=0, show_default=True, help="Round to begin with.")
@click.option("--seed", default=0, show_default=True, help="Round N has the seed 10,000 SEED + N.")
@click.option("--pictures", default=600, show_default=True, help="Places of the list; it repeats a sixth as many.")
@click.option("--disk", default="400k", show_default=True, help="Size of the disk that fills.")
@click.option("--only", type=click.Choice(SECTIONS), multiple=True, help="Do this only; more than once. [default: all]")
def main(kills: int, first: int, seed: int, pictures: int, disk: str, only: tuple[str, ...]) -> None:
    LINES.parent.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nodes and runs end too
    sections = only or SECTIONS
    seeds = range(seed * 10_000, seed * 10_000 + kills)
    with tempfile.TemporaryDirectory(dir="build") as temporary:
        campaign = Campaign(Path(temporary).resolve(), pictures, Server(seed))
        with three_nodes() as nodes:
            address = nodes.cluster.address
            if "kills" in sections:
                done = {line["seed"] for line in campaign.lines("kills")}
                for number, number_seed in enumerate(seeds):
                    if number >= first and number_seed not in done:
                        campaign.kill(number, number_seed, nodes)
            if "disk" in sections:
                campaign.note("disk", full_disk(campaign.lists["disk"], address, disk))
            if "store" in sections:
                out = f"{campaign.bucket}/silent"
                campaign.note("store", silent_store(campaign.server, campaign.lists["store"], out, address))
        sys.exit(told(campaign, seeds))


if __name__ == "__main__":
    main()
