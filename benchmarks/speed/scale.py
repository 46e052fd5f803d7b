"""Is a cluster's path as fast as one process, is its memory flat, and what would millions of pictures take?

    python -m benchmarks.speed.scale [--pictures 200000] [--turns 1] [--dollars 0.09] [--go-on]

A list that repeats 2,000 small pictures is explained into a dataset by one process and by `--cluster` on this
machine's cores, in turns (`--turns`), each a process of its own. Wall time, CPU time of all processes together,
resident memory of each kind of process every half second, and what lies in the folder of Ray's session. The rows must
be the same. What millions of pictures would take is computed from these parts.

What a path costs before its first part is there (Ray's start, sessions that are opened) is told apart: it is the same
for any number of pictures. Every path is a line of build/bench_scale.jsonl as soon as it is done; with --go-on those
that stand there of as many pictures are not done again. Writes build/bench_scale.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.networks import DEMO_EXPLAINER
from fsagn_onnx.benchmark import machine
from fsagn_onnx.data.store import Store
from fsagn_onnx.explanations.parts import part_names
from fsagn_onnx.scale.pictures import units_of
from fsagn_onnx.testing.synthetic import write_folder

RUN = "import sys; from fsagn_onnx.cli.main import run; sys.exit(run(sys.argv[1:]))"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SESSIONS = Path("/tmp/ray")
S3_GETS = 5500
"""Reads a second that S3 promises for one prefix."""
PARTS = {10**6: 1000, 10**9: 10_000}
"""Pictures of a run -> pictures of a part."""
LISTED = 10**6
LINES = Path("build/bench_scale.jsonl")
PATHS = {"alone": [], "cluster": ["--cluster"]}


def tree(root: int) -> list[int]:
    """A process and all below it."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                children[int((entry / "stat").read_text().rpartition(")")[2].split()[1])].append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children[pid]
    return found


def seen(pid: int, root: int) -> tuple[str, float, int]:
    """Kind of a process, its CPU seconds, its resident bytes (of its own, not of shared memory)."""
    place = Path("/proc") / str(pid)
    fields = (place / "stat").read_text().rpartition(")")[2].split()
    resident, shared = (int(word) for word in (place / "statm").read_text().split()[1:3])
    line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    kind = "driver" if pid == root else "worker" if "ray::MapWorker" in line else "ray"
    return kind, (int(fields[11]) + int(fields[12])) / TICKS, (resident - shared) * PAGE


def held(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total


def watched(words: list[str], out: Path) -> dict[str, Any]:
    """Run `explain`; CPU seconds by kind of process, memory by kind, parts over time."""
    options = ["--no-measure", "--providers", "cpu", "--overlays", "0"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, "explain", str(DEMO_EXPLAINER), *words, "--out", str(out), *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    cpu: dict[tuple[int, str], float] = {}
    memory: dict[str, list[tuple[float, int]]] = defaultdict(list)
    files: list[tuple[float, int]] = []
    first, start_cpu = 0.0, {}
    while process.poll() is None:
        now, most = time.perf_counter() - start, defaultdict(int)
        for pid in tree(process.pid):
            with contextlib.suppress(OSError, IndexError, ValueError):
                kind, seconds, resident = seen(pid, process.pid)
                cpu[pid, kind] = seconds
                most[kind] = max(most[kind], resident)
        for kind, resident in most.items():
            memory[kind].append((now, resident))
        if not first and part_names(Store(out)):
            first, start_cpu = now, summed(cpu)
        if len(files) < now / 10:
            files.append((now, sum(held(folder) for folder in SESSIONS.glob(f"session_*_{process.pid}"))))
        time.sleep(0.5)
    wall = time.perf_counter() - start
    assert process.returncode == 0, process.communicate()[1]
    by_kind = summed(cpu)
    return {
        "wall_s": wall, "cpu_s": sum(by_kind.values()), "cpu_by_kind_s": by_kind, "first_part_s": first,
        "cpu_at_first_part_s": start_cpu,
        "memory": {kind: halves(points, first, wall) for kind, points in memory.items()},
        "temporary_files": halves(files, first, wall),
        "parts": len(part_names(Store(out))), "digest": digest(out), "bytes": held(out / "rows"),
    }  # fmt: skip


def summed(cpu: dict[tuple[int, str], float]) -> dict[str, float]:
    """CPU seconds by kind of process."""
    by_kind: dict[str, float] = defaultdict(float)
    for (_, kind), seconds in cpu.items():
        by_kind[kind] += seconds
    return dict(by_kind)


def halves(points: list[tuple[float, int]], first: float, last: float) -> dict[str, float]:
    """Median MiB in the first and in the second half of the time since the first part, and their ratio."""
    middle = (first + last) / 2
    early = [value for at, value in points if first <= at < middle] or [points[0][1]]
    late = [value for at, value in points if at >= middle] or [points[-1][1]]
    one, other = float(np.median(early)), float(np.median(late))
    return {"first_half_mib": one / 2**20, "second_half_mib": other / 2**20, "ratio": other / max(one, 1.0)}


def digest(out: Path) -> str:
    """Of all rows, part by part."""
    import pyarrow.parquet as parquet

    told = hashlib.sha256()
    for name in part_names(Store(out)):
        for batch in parquet.ParquetFile(out / name.path).iter_batches():
            for row in batch.to_pylist():
                told.update(repr(row).encode())
    return told.hexdigest()


def listing(folder: Path) -> dict[str, dict[str, float]]:
    """What a million names cost the driver: as lines of a text, and as rows of a Parquet file."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    names = [f"s3://bucket/pictures/{number:09}.jpg" for number in range(LISTED)]
    (folder / "million.txt").write_text("\n".join(names))
    parquet.write_table(arrow.table({"path": names}), folder / "million.parquet")
    del names
    costs = {}
    for kind, asked in (("text", f"@{folder / 'million.txt'}"), ("parquet", str(folder / "million.parquet"))):
        start = time.process_time()
        units = list(units_of([asked], PARTS[10**6]))
        seconds = time.process_time() - start
        assert units[-1].stop == LISTED
        size = sum(sys.getsizeof(unit) + sum(map(sys.getsizeof, (unit.names, *unit.names))) for unit in units)
        costs[kind] = {"us_per_picture": 1e6 * seconds / LISTED, "bytes_per_picture": size / LISTED}
    return costs


def on_paper(result: dict[str, Any], dollars: float) -> list[dict[str, Any]]:
    """Pictures a second, hours and dollars of very many pictures, and what limits.

    CPU seconds are those after the first part was there: what a run costs before is the same for any number.
    """
    cluster, listed = result["cluster"], result["listing"]
    cores, pictures = result["machine"]["cores"], result["pictures"]
    spent = {kind: seconds - cluster["cpu_at_first_part_s"].get(kind, 0.0)
             for kind, seconds in cluster["cpu_by_kind_s"].items()}  # fmt: skip
    parts = cluster["parts"] - 1
    worker_s = (spent["worker"] + spent.get("ray", 0.0)) / (parts * pictures / cluster["parts"])
    rows = []
    for count, part in PARTS.items():
        for nodes in (1, 10, 100):
            limits = {
                "the workers' cores": nodes * cores / worker_s,
                "the driver's core": part * parts / spent["driver"],
                "reading one prefix of S3": float(S3_GETS),
            }
            rate = min(limits.values())
            hours = count / rate / 3600
            rows.append({
                "pictures": count, "nodes": nodes, "pictures_per_s": rate, "hours": hours,
                "dollars": hours * nodes * dollars, "limit": min(limits, key=lambda name: limits[name]),
                "rows_gib": count * cluster["bytes"] / pictures / 2**30, "parts": count // part,
                **{f"{kind}_list_gib": count * cost["bytes_per_picture"] / 2**30 for kind, cost in listed.items()},
                **{f"{kind}_list_s": count * cost["us_per_picture"] / 1e6 for kind, cost in listed.items()},
            })  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    head = ("pictures", "nodes", "pictures a second", "hours", "dollars", "limited by", "rows", "parts",
            "names in the driver: text, Parquet")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += [
        f"| {row['pictures']:,} | {row['nodes']} | {row['pictures_per_s']:,.0f} | {row['hours']:,.1f} | "
        f"{row['dollars']:,.2f} | {row['limit']} | {row['rows_gib']:,.1f} GiB | {row['parts']:,} | "
        f"{row['text_list_gib']:,.2f} GiB, {row['parquet_list_gib']:,.3f} GiB |"
        for row in rows
    ]
    return "\n".join(lines)


def kept(pictures: int) -> dict[tuple[int, str], dict[str, Any]]:
    """Paths of an earlier go, by turn and name."""
    text = LINES.read_text(encoding="utf-8") if LINES.is_file() else ""
    found = [json.loads(line) for line in text.splitlines()]
    return {(line["turn"], line["path"]): line["found"] for line in found if line["pictures"] == pictures}


def after_start(found: dict[str, Any], what: str) -> float:
    """Wall or CPU seconds since the first part was there."""
    before = found["first_part_s"] if what == "wall_s" else sum(found["cpu_at_first_part_s"].values())
    return float(found[what] - before)


@click.command()
@click.option("--pictures", default=20_000, show_default=True)
@click.option("--turns", default=1, show_default=True)
@click.option("--dollars", default=0.09, show_default=True, help="Price of a node with this machine's cores, an hour.")
@click.option("--go-on", is_flag=True, help="Take what an earlier go has measured of as many pictures.")
def main(pictures: int, turns: int, dollars: float, go_on: bool) -> None:
    LINES.parent.mkdir(exist_ok=True)
    there = kept(pictures) if go_on else {}
    result: dict[str, Any] = {"machine": machine(), "pictures": pictures, "turns": []}
    with tempfile.TemporaryDirectory(dir="build") as temporary:
        folder = Path(temporary).resolve()
        write_folder(folder / "pictures", "val", min(2000, pictures))
        paths = [str(path) for path in sorted((folder / "pictures" / "images").iterdir())]
        listed = folder / "list.txt"
        listed.write_text("\n".join(paths[n % len(paths)] for n in range(pictures)))
        result["listing"] = listing(folder)
        for turn in range(turns):
            found = {}
            for name, more in PATHS.items():
                if (turn, name) in there:
                    found[name] = there[turn, name]
                    continue
                found[name] = watched([f"@{listed}", *more], folder / f"{name}-{turn}")
                line = {"pictures": pictures, "turn": turn, "path": name, "found": found[name]}
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)
            assert found["alone"]["digest"] == found["cluster"]["digest"], "the rows differ"
            result["turns"].append(found)
    result["cluster"] = result["turns"][-1]["cluster"]
    for name in ("wall_s", "cpu_s"):
        ratios = [turn["cluster"][name] / turn["alone"][name] for turn in result["turns"]]
        later = [after_start(turn["cluster"], name) / after_start(turn["alone"], name) for turn in result["turns"]]
        result[f"{name}_ratio"], result[f"{name}_ratio_after_start"] = float(np.median(ratios)), float(np.median(later))
    result["on_paper"] = on_paper(result, dollars)
    Path("build/bench_scale.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    last = result["turns"][-1]
    print(
        f"{pictures} pictures, the same rows; cluster / one process: {result['wall_s_ratio']:.3f} wall, "
        f"{result['cpu_s_ratio']:.3f} CPU (bar 1.15); one process {last['alone']['wall_s']:.1f} s"
    )
    print(
        f"after the first part: {result['wall_s_ratio_after_start']:.3f} wall, "
        f"{result['cpu_s_ratio_after_start']:.3f} CPU; it was there after {last['alone']['first_part_s']:.1f} s, "
        f"with a cluster after {last['cluster']['first_part_s']:.1f} s"
    )
    for name, found in last.items():
        spent = {kind: round(1e3 * seconds / pictures, 2) for kind, seconds in found["cpu_by_kind_s"].items()}
        print(f"{name}: CPU ms a picture by kind of process: {spent}")
    for kind, memory in last["cluster"]["memory"].items():
        print(f"memory of the {kind}, second half / first: {memory['ratio']:.3f} (bar 1.05)")
    print(f"temporary files, second half / first: {last['cluster']['temporary_files']['ratio']:.3f}")
    print(table(result["on_paper"]))


if __name__ == "__main__":
    main()
