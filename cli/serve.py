"""`fsagn-onnx serve`: Serve an explainer over HTTP by the KServe v2 protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import PATH, json_option, session_options


@click.command()
@click.argument("explainer", type=PATH)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--name", help="What clients call the model; the file's name unless told.")
@click.option("--max-batch", type=click.IntRange(1), default=8, show_default=True, help="Images per pass.")
@click.option("--max-delay", type=float, default=2.0, show_default=True, help="Milliseconds that a batch waits.")
@click.option("--queue", type=click.IntRange(1), default=64, show_default=True, help="Requests in hand at a time.")
@click.option("--max-body", type=click.IntRange(1), default=32, show_default=True, help="MiB of a request.")
@click.option("--timeout", type=float, default=10.0, show_default=True, help="Seconds for headers and for the body.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes on one socket.")
@click.option("--triton", type=PATH, help="Write a Triton model repository, and serve nothing.")
@session_options
@json_option
def command(explainer: Path, triton: Path | None, as_json: bool, **options: Any) -> None:
    """Serve EXPLAINER over HTTP by the KServe v2 inference protocol, until it is interrupted."""
    if triton is not None:
        from fsagn_onnx.server.triton import write_repository

        model = write_repository(explainer, triton, name=options["name"], max_batch=options["max_batch"])
        click.echo(
            json.dumps({"model": str(model)}) if as_json else f"{model}\nnext: tritonserver --model-repository {triton}"
        )
        return
    from fsagn_onnx.server import Settings, serve

    timeout = options.pop("timeout")
    settings = Settings(
        max_batch=options.pop("max_batch"),
        max_delay=options.pop("max_delay") / 1000,
        queue=options.pop("queue"),
        max_body=options.pop("max_body") * 2**20,
        body_timeout=timeout,
        header_timeout=timeout,
    )

    def ready(url: str) -> None:
        if as_json:
            click.echo(json.dumps({"url": url}))
        else:
            click.echo(f"serving {explainer}\nnext: curl {url}    (POST {url}/infer, stop with Ctrl-C)")

    serve(explainer, settings=settings, on_ready=ready, **options)
