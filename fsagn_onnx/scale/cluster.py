"""Units on a cluster: Ray Data hands them to a pool of workers and does again what a killed one left undone."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .. import __version__
from ..data.store import Store
from ..errors import FsagnError, OutputError, UsageError
from ..explanations.parts import PartFacts
from .isolation import all_done
from .pictures import Unit
from .work import ExplainJob, Outcome, Work, open_writer, require_version

LOCAL: Final = "local"
"""The address of this machine's cores."""
RETRIES: Final = 1
"""Times that Ray gives a unit to another worker, before it is cut into smaller ones."""
STORE_BYTES: Final = 256 * 2**20
"""Object store of a cluster on this machine: units and outcomes are all that goes through it."""


@dataclass(frozen=True)
class Cluster:
    """Where units are done.

    Attributes:
        address: ``local``, ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``.
        gpus: GPUs of a worker, a share too; 0: it computes on a CPU.
    """

    address: str = LOCAL
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Check them."""
        if self.address not in (LOCAL, "auto") and ":" not in self.address:
            raise UsageError(
                f"--cluster {self.address}: expected no address (this machine's cores), auto (the running cluster), "
                "HOST:PORT or ray://HOST:PORT"
            )
        if self.gpus < 0:
            raise UsageError(f"--gpus-per-worker must be at least 0, but got {self.gpus}")


def require_ray() -> None:
    """Refuse where Ray is not installed.

    Raises:
        UsageError: it says what to install.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--cluster needs Ray ({error}): pip install 'fsagn-onnx[scale]'") from error


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[int]:
    """Connect to a cluster, or start one on this machine; gives the number of workers that it has room for.

    Raises:
        UsageError: no cluster there, Ray is not installed, or it has no room for a single worker.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what is lost is said by us, once
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a machine may be busy
    os.environ.setdefault("RAY_worker_niceness", "0")  # as nice as one process would be
    require_ray()
    import ray

    here = cluster.address == LOCAL
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": _cores(), "object_store_memory": STORE_BYTES}
    try:
        with _silent():
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, **(own if here else {}))
    except Exception as error:  # Ray raises bare ones
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"--cluster {cluster.address}: no Ray cluster can be reached there ({reason})") from error
    try:
        resources: Any = ray.cluster_resources  # without types where Ray is installed
        there: dict[str, float] = resources()
        room = int(there.get("GPU", 0) / cluster.gpus if cluster.gpus else there.get("CPU", 0))
        if room < 1:
            what = f"{cluster.gpus:g} GPU" if cluster.gpus else "a CPU"
            raise UsageError(f"--cluster {cluster.address}: no room for a worker with {what}; there is {there}")
        yield room
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on standard error, where Ray's C++ half says at which level it will say no more."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """An actor of the pool; its explainer is opened once. Where that fails, every unit says so."""

    def __init__(self, opening: Callable[[], Work], version: str, folder: str) -> None:
        self._failed = ""
        try:
            require_version(version)
            if os.path.isdir(folder):
                os.chdir(folder)  # names of pictures are as the driver's user gave them
            self._work = opening()
        except FsagnError as error:
            self._failed = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        outcomes = []
        for content in batch["unit"]:
            unit = msgspec.msgpack.decode(bytes(content), type=Unit)
            if self._failed:
                outcome = Outcome(unit.start, unit.stop, PartFacts(0), self._failed, unit.only)
            else:
                outcome = self._work.do(unit)
            outcomes.append(msgspec.msgpack.encode(outcome))
        return {"outcome": outcomes}


def done_by_workers(
    units: Sequence[Unit], opening: Callable[[], Work], cluster: Cluster, room: int, careful: bool = False
) -> Iterator[Outcome]:
    """Do units on a connected cluster; those that end their worker are left out.

    Args:
        units: what is to be done.
        opening: makes the work, in each worker.
        cluster: where.
        room: workers at a time.
        careful: give each to a worker once, and to none that has another one waiting.

    Yields:
        Outcomes as they come.

    Raises:
        OutputError: the cluster gave up, or is gone.
    """
    import ray.data
    import ray.exceptions

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what ends a worker is found out by what is missing
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources: dict[str, Any] = {"num_gpus": cluster.gpus} if cluster.gpus else {"num_cpus": 1}
    rows = [{"unit": msgspec.msgpack.encode(unit)} for unit in units]
    pool = ray.data.ActorPoolStrategy(size=min(room, len(rows)), max_tasks_in_flight_per_actor=1 if careful else 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # max_task_retries has no other way in (design page 0020)
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            fn_constructor_args=(opening, __version__, os.getcwd()),
            batch_size=None,
            compute=pool,
            max_task_retries=0 if careful else RETRIES,
            **resources,
        )
    try:
        for row in results.iter_rows():
            yield msgspec.msgpack.decode(row["outcome"], type=Outcome)
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = " ".join(str(error).split())[-300:]
        raise OutputError(f"the cluster gave up ({reason}): what is written is kept, go on with --resume") from error


def done_on_cluster(
    units: Sequence[Unit], opening: Callable[[], Work], cluster: Cluster, store: Store
) -> Iterator[Outcome]:
    """Connect, and do units until each is done or what ends its worker is known; see `done_by_workers`, `all_done`.

    Args:
        units: what is to be done; the cluster is not asked where there is nothing.
        opening: makes the work, in each worker.
        cluster: where.
        store: of the parts.

    Yields:
        Outcomes as they come.

    Raises:
        FsagnError: the run cannot go on.
    """
    if not units:
        return
    with connected(cluster) as room:

        def doing(some: Sequence[Unit], careful: bool) -> Iterator[Outcome]:
            return done_by_workers(some, opening, cluster, room, careful)

        yield from all_done(units, doing, store)


def opening_of(job: ExplainJob, cluster: Cluster) -> Callable[[], Work]:
    """What makes a worker's work: its own explainer, with one thread where it has one core."""
    shipped = job.shipped()
    threads = None if cluster.gpus else 1

    def opening() -> Work:
        return open_writer(shipped, threads)

    return opening
