"""Processes that serve together on one socket: each says when it is warm, and all know when every one is."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import multiprocess

WARM = ".warm"
"""Ending of the file that says that a process is warm; the process's number stands before it."""


@dataclass(frozen=True)
class WorkerGroup:
    """The processes of one server, as each sees them.

    Attributes:
        folder: theirs alone.
        workers: how many are to serve.
    """

    folder: Path
    workers: int

    def join(self) -> None:
        """Say that this process is warm; what a dead one left is forgotten."""
        for path in self.folder.glob(f"*{WARM}"):
            if not _lives(int(path.stem)):
                path.unlink(missing_ok=True)
                multiprocess.mark_process_dead(int(path.stem), str(self.folder))  # type: ignore[no-untyped-call]
        (self.folder / f"{os.getpid()}{WARM}").touch()

    def leave(self) -> None:
        """Say that this process serves no longer."""
        with contextlib.suppress(OSError):
            (self.folder / f"{os.getpid()}{WARM}").unlink(missing_ok=True)

    @property
    def is_warm(self) -> bool:
        """Whether every process is: a request is answered at once, whichever takes it."""
        return sum(_lives(int(path.stem)) for path in self.folder.glob(f"*{WARM}")) >= self.workers


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
