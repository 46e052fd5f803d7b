"""How uvicorn listens: its settings with our limits, and a guard against headers that never end."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import Settings


class Listening(uvicorn.Config):
    """Uvicorn's settings, and ours; processes get it pickled.

    Args:
        app: the application, or what makes it.
        settings: limits.
        more: uvicorn's own.
    """

    def __init__(self, app: Any, settings: Settings, **more: Any) -> None:
        self.header_timeout = settings.header_timeout
        super().__init__(
            app,
            http=Guarded,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.drain)),
            **more,
        )


class Guarded(H11Protocol):
    """Uvicorn's HTTP protocol, which drops a connection whose headers do not arrive in time; uvicorn waits for ever."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, or stop: they are there."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        waiting = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
        if waiting and self._timer is None:
            seconds = self.config.header_timeout if isinstance(self.config, Listening) else Settings().header_timeout
            self._timer = self.loop.call_later(seconds, self.transport.close)
        elif not waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
