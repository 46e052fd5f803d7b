"""What the campaign of faults happens to: a store that refuses, nodes that come and go, a disk that is soon full."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
