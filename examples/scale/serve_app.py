"""An explainer behind Ray Serve: replicas on a cluster answer the KServe v2 protocol of `fsagn-onnx serve`.

pip install 'fsagn-onnx[serve]' 'ray[serve]'
serve run examples.scale.serve_app:build explainer=/models/explainer.onnx replicas=4

Ray Serve starts, watches and replaces the replicas and shares requests out among them; batching, limits and answers are
those of the server. The file must lie at the same path on every node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from starlette.applications import Starlette

from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.server import Settings, make_app


def build(arguments: dict[str, str]) -> serve.Application:
    """The application.

    Args:
        arguments: ``explainer``, a file; ``name``, what clients call it (the file's stem); ``replicas`` (1); of each
            ``threads`` (1) and ``gpus``, a share too (0).
    """
    explainer = Path(arguments["explainer"]).absolute()
    name, gpus = arguments.get("name", explainer.stem), float(arguments.get("gpus", 0))
    threads, settings = int(arguments.get("threads", 1)), Settings()

    def app() -> Starlette:  # called in each replica
        return make_app(FileEngine(explainer, "cuda" if gpus else "cpu", threads), name, settings)

    @serve.deployment(
        num_replicas=int(arguments.get("replicas", 1)),
        max_ongoing_requests=settings.queue,
        ray_actor_options={"num_cpus": threads, "num_gpus": gpus},
    )
    @serve.ingress(app)
    class Explaining:
        """Ray Serve's handle on the application."""

    bound: Any = Explaining.bind()
    made: serve.Application = bound
    return made
