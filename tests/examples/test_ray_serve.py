"""The application of Ray Serve answers as the server does; skipped where Ray Serve is not installed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsagn_onnx.runtime import Explainer

ROOT = Path(__file__).resolve().parents[2]
EXPLAINER = ROOT / "models" / "demo_explainer.onnx"
PICTURE = np.random.default_rng(0).integers(256, size=(1, 40, 40, 3)).astype(np.uint8)
PATIENT = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "300"}
"""A proxy that a busy machine starts slowly is not killed for it."""
ASK = """
import json, logging, sys, urllib.request
import ray
from ray import serve
from examples.scale.serve_app import build

explainer, port, body = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
serve.run(build({"explainer": explainer, "replicas": "2", "name": "demo"}), route_prefix="/")
request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/models/demo/infer", body.encode())
print("answer", urllib.request.urlopen(request).read().decode())
print("ready", urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready").status)
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.slow
def test_the_application_of_ray_serve_answers_as_python_does() -> None:
    pytest.importorskip("ray")
    pytest.importorskip("fastapi", reason="ray[serve] is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ids: dict[str, Any] = {"name": "filters", "shape": [1, 2], "datatype": "INT64", "data": [3, 5]}
    image = {"name": "image", "shape": [1, 40, 40, 3], "datatype": "UINT8", "data": PICTURE.ravel().tolist()}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(EXPLAINER), str(port), json.dumps({"inputs": [image, ids]})],
        capture_output=True, text=True, cwd=ROOT, timeout=1800,
        env={**os.environ, **PATIENT, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("answer ", "ready ")))
    assert lines["ready"] == "200"
    outputs = {
        entry["name"]: np.array(entry["data"]).reshape(entry["shape"])
        for entry in json.loads(lines["answer"])["outputs"]
    }
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        (expected,) = explainer.explain(PICTURE[0], (3, 5), 0.1)
    assert outputs["filter_ids"].tolist() == [[3, 5]]
    np.testing.assert_allclose(outputs["area_rank"][0], [found.area_rank for found in expected.filters], atol=1e-6)
