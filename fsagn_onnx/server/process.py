"""Runs the server until it is told to stop: SIGINT or SIGTERM let requests in hand finish."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import OutputError
from ..runtime.file_engine import FileEngine
from .app import make_app
from .settings import Settings


def guarded_protocol(seconds: float) -> type[H11Protocol]:
    """Uvicorn's HTTP protocol, which drops a connection whose headers do not arrive in time; uvicorn waits for ever."""

    class Guarded(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._timer is not None:
                self._timer.cancel()

        def _watch(self) -> None:
            waiting = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
            if waiting and self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.close)
            elif not waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Guarded


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
        threads: see `Session`.
        on_ready: is told the URL once requests are answered.

    Raises:
        ExplainerError: no usable explainer.
        OutputError: the address is taken or not allowed.
    """
    settings = settings or Settings()
    engine = FileEngine(explainer, providers, threads)
    try:
        try:
            bound = socket.create_server((host, port), backlog=256)
        except OSError as error:
            raise OutputError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port"
            ) from error
        with bound:
            called = name or explainer.stem
            config = uvicorn.Config(
                make_app(engine, called, settings),
                http=guarded_protocol(settings.header_timeout),
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain)),
            )
            server = uvicorn.Server(config)
            started = server.startup

            async def startup(sockets: list[socket.socket] | None = None) -> None:
                await started(sockets=sockets)
                on_ready(f"http://{host}:{bound.getsockname()[1]}/v2/models/{called}")

            server.startup = startup  # type: ignore[method-assign]
            with _own_end():
                server.run(sockets=[bound])
    finally:
        engine.close()
