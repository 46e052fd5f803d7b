"""Are all rows there once, and the same, whatever is killed?

    python -m benchmarks.robustness.faults [--kills 36] [--seed 0] [--pictures 600]

One process explains a list of small pictures into a dataset. Then a Ray cluster of three nodes is started on this
machine, and the same list is explained by it again and again; each time one thing is killed (SIGKILL) at a random
moment before three quarters of the parts are there: a worker, a node with all that runs on it, or the driver, which
is then started again with --resume. After each kill the sorted rows must be those of the one process. Every third
round reads and writes an S3 server on loopback, which answers one request in ten with 503.

A full disk is a small tmpfs, where the machine lets this script mount one. Results: build/faults.json.
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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from fsagn_onnx.data.store import Store
from fsagn_onnx.explanations.parts import dataset_rows, part_names
from fsagn_onnx.testing.synthetic import write_folder

ROOT = Path(__file__).resolve().parents[2]
EXPLAINER = ROOT / "models" / "demo_explainer.onnx"
RUN = "import sys; from fsagn_onnx.cli.main import run; sys.exit(run(sys.argv[1:]))"
KINDS = ("worker", "node", "driver")
PART = 20
STORE_BYTES = 80 * 2**20


class Server:
    """An S3 server on loopback; a share of its answers is 503.

    Attributes:
        refusing: that share.
        refused: answers so far that were 503.
    """

    def __init__(self, seed: int) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:
                pass

        self.refusing, self.refused, self._draw = 0.0, 0, random.Random(seed)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=Quiet)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{self._server.server_port}", AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true",
        )  # fmt: skip

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        if self._draw.random() < self.refusing:
            self.refused += 1
            length = int(environ.get("CONTENT_LENGTH") or 0)
            environ["wsgi.input"].read(length)
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        return self._app(environ, start)

    def bucket(self) -> str:
        import boto3

        boto3.client("s3").create_bucket(Bucket="faults")
        return "s3://faults"


def rows_digest(where: str) -> tuple[int, str]:
    """Number of rows, and a hash of all but their paths, sorted."""
    lines = sorted(
        json.dumps({name: value for name, value in row.items() if name != "path"}, sort_keys=True)
        for row in dataset_rows(Store(where))
    )
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()


def explain(images: str, out: str, *words: str) -> subprocess.Popen[str]:
    options = ["--no-measure", "--providers", "cpu", "--overlays", "0", "--part-pictures", str(PART)]
    line = [sys.executable, "-c", RUN, "explain", str(EXPLAINER), images, "--out", out, *options, *words]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=1800)[1]
    return process.returncode, said.strip().splitlines()[-1] if said.strip() else ""


def workers() -> list[int]:
    """Processes of the pool: Ray calls them by their class."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if b"ray::MapWorker" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


class Nodes:
    """A head without cores, and nodes that come and go."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")
        os.environ.setdefault("RAY_worker_niceness", "0")
        options = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=options)
        self.nodes = [self._added() for _ in range(count)]

    def _added(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)

    def kill_one(self, draw: random.Random) -> str:
        node = self.nodes.pop(draw.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        return str(node.node_id)[:8]

    def fill(self, count: int) -> None:
        while len(self.nodes) < count:
            self.nodes.append(self._added())


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
    rows, digest = rows_digest(out)
    nodes.fill(3)
    return {
        "seed": seed, "kind": kind, "killed": what, "parts_there": there, "resumed": again, "status": status,
        "said": said, "rows": rows, "digest": digest,
    }  # fmt: skip


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path | None]:
    """A folder of a disk that is soon full; None where it cannot be made."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        if done.returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def full_disk(images: str, address: str) -> dict[str, Any]:
    """A disk that fills in the middle; then it is enlarged, and the run goes on."""
    with small_disk("400k") as disk:
        if disk is None:
            return {"tried": False}
        out = str(disk / "run")
        status, said = finished(explain(images, out, "--cluster", address))
        there = len(part_names(Store(out)))
        halves = [path.name for path in Path(out).rglob(".*")]
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        resumed, _ = finished(explain(images, out, "--cluster", address, "--resume"))
        return {"tried": True, "status": status, "said": said, "parts_there": there, "half_files": halves,
                "resumed": resumed, "digest": rows_digest(out)[1]}  # fmt: skip


def silent_store(server: Server, images: str, out: str, address: str) -> dict[str, Any]:
    """A store that answers nothing but 503 from some moment on; then it does again, and the run goes on."""
    process = explain(images, out, "--cluster", address, "--overwrite")
    while process.poll() is None and len(part_names(Store(out))) < 3:
        time.sleep(0.1)
    server.refusing = 1.0
    status, said = finished(process)
    server.refusing = 0.0
    there = len(part_names(Store(out)))
    resumed, _ = finished(explain(images, out, "--cluster", address, "--resume"))
    return {"status": status, "said": said, "parts_there": there, "resumed": resumed, "digest": rows_digest(out)[1]}


@click.command()
@click.option("--kills", default=36, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--pictures", default=600, show_default=True, help="Places of the list; it repeats a sixth as many.")
def main(kills: int, seed: int, pictures: int) -> None:
    Path("build").mkdir(exist_ok=True)
    results: dict[str, Any] = {"kills": [], "pictures": pictures, "part_pictures": PART}
    with tempfile.TemporaryDirectory(dir="build") as temporary:
        folder = Path(temporary).resolve()
        write_folder(folder / "pictures", "val", max(1, pictures // 6))
        paths = sorted((folder / "pictures" / "images").iterdir())
        server = Server(seed)
        bucket = server.bucket()
        for path in paths:
            Store(f"{bucket}/in").write(path.name, path.read_bytes())
        lists = {"disk": folder / "disk.txt", "store": folder / "store.txt"}
        names = {"disk": [str(path) for path in paths], "store": [f"{bucket}/in/{path.name}" for path in paths]}
        for place, listed in lists.items():
            listed.write_text("\n".join(names[place][n % len(paths)] for n in range(pictures)))
        status, said = finished(explain(f"@{lists['disk']}", str(folder / "alone")))
        assert status == 0, said
        results["rows"], results["digest"] = rows_digest(str(folder / "alone"))
        nodes, parts = Nodes(3), -(-pictures // PART)
        for number in range(kills):
            place = "store" if number % 3 == 2 else "disk"
            server.refusing = 0.1 if place == "store" else 0.0
            out = f"{bucket}/run" if place == "store" else str(folder / "run")
            kind = KINDS[(number + number // 3) % 3]
            found = one_kill(kind, seed * 10_000 + number, f"@{lists[place]}", out, nodes, parts)
            found |= {"place": place, "same": found["digest"] == results["digest"]}
            results["kills"].append(found)
            print(json.dumps(found), flush=True)
            Path("build/faults.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        server.refusing = 0.0
        results["refused"] = server.refused
        address = nodes.cluster.address
        results["full_disk"] = full_disk(f"@{lists['disk']}", address)
        results["silent_store"] = silent_store(server, f"@{lists['store']}", f"{bucket}/silent", address)
        nodes.cluster.shutdown()
    for name in ("full_disk", "silent_store"):
        if "digest" in results[name]:
            results[name]["same"] = results[name]["digest"] == results["digest"]
        print(name, json.dumps(results[name]))
    Path("build/faults.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    same = sum(found["same"] for found in results["kills"])
    kinds = {kind: sum(found["kind"] == kind for found in results["kills"]) for kind in KINDS}
    print(
        f"{kills} kills ({kinds}), seeds {seed * 10_000} on: the same rows after {same}; 503 {results['refused']} times"
    )
    sys.exit(same != kills)


if __name__ == "__main__":
    main()
