"""Several processes that serve on one socket, started and watched by uvicorn's own supervisor."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from ..errors import WorkerError
from ..runtime.file_engine import FileEngine
from .app import make_app
from .listening import Listening
from .settings import Settings
from .worker_group import WorkerGroup

METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client has the processes of a server count; it looks when it is imported."""
PATIENCE: Final = 60
"""Seconds that a busy process has for uvicorn's question whether it lives."""
POLL: Final = 0.1
_PARENT_DEATH: Final = 1  # prctl's PR_SET_PDEATHSIG


@dataclass(frozen=True)
class AppMaker:
    """Makes the application in a process of its own.

    Attributes:
        explainer: the file.
        name: what clients call the model.
        settings: limits and batching.
        providers: see `Session`.
        threads: see `Session`.
        group: the processes that serve together.
    """

    explainer: Path
    name: str
    settings: Settings
    providers: str | Sequence[str]
    threads: int | None
    group: WorkerGroup | None = None

    def __call__(self) -> Starlette:
        """Open the explainer; the process ends with the one that started it."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)
        engine = FileEngine(self.explainer, self.providers, self.threads)
        return make_app(engine, self.name, self.settings, self.group)


class _Supervisor(Multiprocess):
    """Uvicorn's supervisor, which tells when all processes are warm."""

    def __init__(
        self, config: Listening, bound: socket.socket, group: WorkerGroup, on_ready: Callable[[], Any]
    ) -> None:
        super().__init__(config, [bound])
        self._group, self._on_ready = group, on_ready

    def init_processes(self) -> None:
        """Start them, and wait in a thread until they are warm."""
        super().init_processes()
        threading.Thread(target=self._wait, name="fsagn-ready", daemon=True).start()

    def _wait(self) -> None:
        while not self.should_exit.wait(POLL):
            if self._group.is_warm:
                self._on_ready()
                return


def serve_together(maker: AppMaker, bound: socket.socket, workers: int, on_ready: Callable[[], Any]) -> None:
    """Serve with so many processes until SIGINT or SIGTERM; one that dies is replaced.

    Args:
        maker: makes the application in each of them.
        bound: the socket.
        workers: how many.
        on_ready: is called once every process answers requests.

    Raises:
        WorkerError: a process cannot even start.
    """
    with tempfile.TemporaryDirectory(prefix="fsagn-serve-") as folder:
        group = WorkerGroup(Path(folder), workers)
        config = Listening(
            replace(maker, group=group),
            maker.settings,
            factory=True,
            workers=workers,
            timeout_worker_healthcheck=PATIENCE,
        )
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        kept = os.environ.get(METRICS)
        os.environ[METRICS] = folder
        try:
            supervisor = _Supervisor(config, bound, group, on_ready)
            supervisor.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.environ.pop(METRICS)
            if kept is not None:
                os.environ[METRICS] = kept
    if failed := [code for process in supervisor.processes if (code := process.exitcode) and code > 0]:
        raise WorkerError(f"a process of the server ended with status {failed[0]}; what it said stands above")
