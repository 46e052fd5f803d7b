"""Runs the server until it is told to stop: SIGINT or SIGTERM let requests in hand finish."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from ..errors import OutputError
from ..runtime.file_engine import FileEngine
from .app import make_app
from .listening import Listening
from .settings import Settings
from .workers import AppMaker, serve_together


@contextlib.contextmanager
def _own_end() -> Iterator[None]:
    """Uvicorn raises the signal that stopped it once more at its end; here it is the wanted end, no failure."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(
    explainer: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str | None = None,
    settings: Settings | None = None,
    providers: str | Sequence[str] = "auto",
    threads: int | None = None,
    workers: int = 1,
    on_ready: Callable[[str], Any] = lambda address: None,
) -> None:
    """Serve an explainer file over HTTP until SIGINT or SIGTERM.

    Args:
        explainer: the file.
        host: address to listen on.
        port: 0 for any that is free.
        name: what clients call the model; the file's stem unless told.
        settings: limits and batching.
        providers: see `Session`.
        threads: see `Session`; with several processes a share of the cores each, unless told.
        workers: processes that serve on one socket, each with the explainer in memory; limits are of each.
        on_ready: is told the URL once requests are answered, by every process.

    Raises:
        ExplainerError: no usable explainer.
        OutputError: the address is taken or not allowed.
    """
    settings, called = settings or Settings(), name or explainer.stem
    engine = FileEngine(explainer, providers, threads)
    try:
        with _socket(host, port) as bound:
            address = f"http://{host}:{bound.getsockname()[1]}/v2/models/{called}"
            if workers > 1:
                threads = threads or max(1, (os.cpu_count() or 1) // workers)
                maker = AppMaker(explainer, called, settings, providers, threads)
                engine.close()  # it was opened to find out whether it can be
                serve_together(maker, bound, workers, lambda: on_ready(address))
                return
            server = uvicorn.Server(Listening(make_app(engine, called, settings), settings))
            started = server.startup

            async def startup(sockets: list[socket.socket] | None = None) -> None:
                await started(sockets=sockets)
                on_ready(address)

            server.startup = startup  # type: ignore[method-assign]
            with _own_end():
                server.run(sockets=[bound])
    finally:
        engine.close()


def _socket(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=256)
    except OSError as error:
        raise OutputError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
