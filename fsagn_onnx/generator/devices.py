"""Training on several devices of one machine: a process for each, started and watched by torch's own launcher."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..errors import FsagnError, UsageError, WorkerError
from .checkpoint import load_checkpoint
from .memory import keep_freed_memory
from .share import Share, named_error
from .training_job import Listeners, TrainingJob, run_job

HANDLED: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
"""Signals that the launcher takes over while it runs."""

GRACE: Final = 3.0
"""Seconds that a worker with an error stays: one that was killed is then found first, and named as the cause."""


def check_devices(job: TrainingJob, devices: int) -> None:
    """Refuse what cannot be shared out among so many devices.

    Raises:
        LayerError: there is no such layer.
        UsageError: there are not so many devices, or not so many pictures in a step.
    """
    job.model.layer(job.layer)
    kind, _, index = job.device.partition(":")
    if index:
        raise UsageError(f"--devices {devices} chooses the devices itself: give --device {kind}, not {job.device}")
    if devices > job.options.images_per_step:
        raise UsageError(
            f"a step has {job.options.images_per_step} pictures, so at most as many devices can share it, not {devices}"
        )
    if kind != "cpu" and devices > (found := torch.accelerator.device_count()):
        raise UsageError(f"--devices {devices} needs {devices} devices of kind '{kind}', but torch finds {found}")


def run_on_devices(job: TrainingJob, devices: int, listeners: Listeners) -> None:
    """Train in so many processes of this machine; the checkpoint holds the result.

    A process that dies ends the training; the last checkpoint stays.

    Args:
        job: what is trained; ``device`` without a number.
        devices: how many.
        listeners: are told how far it is, in a thread of its own.

    Raises:
        WorkerError: a process was killed.
        FsagnError: what a worker raised.
    """
    threads = max(1, torch.get_num_threads() // devices)
    ours, theirs = get_context("spawn").Pipe(duplex=False)
    listening = _Listening(ours, listeners)
    problem: Exception | None = None
    with tempfile.TemporaryDirectory(prefix="fsagn-train-") as folder, _surroundings(threads):
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=devices, run_id=uuid.uuid4().hex, max_restarts=0,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
            logs_specs=DefaultLogsSpecs(log_dir=str(Path(folder) / "launcher")), signals_to_handle=",".join(HANDLED),
        )  # fmt: skip
        try:
            elastic_launch(config, work)(job, threads, Path(folder), theirs)
        except ChildFailedError as error:
            failed = {rank: failure.exitcode for rank, failure in error.failures.items()}
            problem = _problem(failed, Path(folder), devices, job.checkpoint)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            raise SystemExit(128 + error.sigval) from error
        finally:
            theirs.close()
            listening.end()
    if listening.problem is not None:
        raise listening.problem
    if problem is not None:
        raise problem


def work(job: TrainingJob, threads: int, folder: Path, teller: Connection) -> None:
    """One process: its share of the training.

    Args:
        job: what is trained.
        threads: of torch.
        folder: takes what goes wrong.
        teller: takes what the listeners are told; the first worker alone writes.
    """
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    rank, workers = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        torch.set_num_threads(threads)
        keep_freed_memory()
        device = job.device
        if device == "cuda":
            device = f"cuda:{int(os.environ['LOCAL_RANK'])}"
            torch.cuda.set_device(device)
        dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
        run_share(job, device, Share(rank, workers), teller)
        dist.destroy_process_group()
    except BaseException as error:
        known = isinstance(error, FsagnError)
        told = {"kind": type(error).__name__ if known else "", "text": str(error) if known else traceback.format_exc()}
        (folder / f"{rank}.json").write_text(json.dumps(told), encoding="utf-8")
        if not known:
            time.sleep(GRACE)
        raise


def run_share(job: TrainingJob, device: str, share: Share, teller: Teller) -> None:
    """A worker's share of a training, where the process group is there already.

    Args:
        job: what is trained.
        device: of this worker.
        share: which worker it is.
        teller: takes what the listeners are told; the first worker alone writes.
    """
    listeners = Listeners()
    if share.first:
        listeners = Listeners(
            lambda progress: teller.send(("on_step", progress)),
            lambda path, message: teller.send(("on_failure", path, message)),
            lambda phase: teller.send(("on_phase", phase)),
        )
    run_job(TrainingJob(**{**vars(job), "device": device}), listeners, share)


class Teller(Protocol):
    """Takes what the first worker tells: the name of a listener's call, and what it is given."""

    def send(self, what: Any, /) -> None:
        """One message."""


class _Listening:
    """A thread that passes on what the first worker tells; an error of a listener ends the training."""

    def __init__(self, source: Connection, listeners: Listeners) -> None:
        self.problem: BaseException | None = None
        self._source, self._listeners = source, listeners
        self._thread = threading.Thread(target=self._listen, name="fsagn-train", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with self._source, contextlib.suppress(EOFError, OSError):
            while True:
                name, *told = self._source.recv()
                try:
                    getattr(self._listeners, name)(*told)
                except BaseException as error:  # noqa: BLE001 - raised where the training was called
                    self.problem = error
                    return

    def end(self) -> None:
        """Wait for what was told last; nobody writes any more."""
        self._thread.join()


@contextlib.contextmanager
def _surroundings(threads: int) -> Iterator[None]:
    """What the processes are to find in their environment; signals and the launcher's log are as before afterwards."""
    wanted = {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    if sys.platform == "linux":
        wanted["GLOO_SOCKET_IFNAME"] = "lo"  # these processes talk to each other only
    added = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in added})
    logs = [logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing")]
    levels, main = [log.level for log in logs], threading.current_thread() is threading.main_thread()
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in HANDLED if main and hasattr(signal, name)}
    for log in logs:
        log.setLevel(logging.CRITICAL)  # what went wrong is said in one line
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)
        for name in added:
            os.environ.pop(name, None)


def _problem(failed: Mapping[int, int], folder: Path, devices: int, checkpoint: Path) -> Exception:
    """What went wrong: an error that a worker told, a killed process, or a defect with its traceback."""
    told: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(ValueError):
            told[int(path.stem)] = json.loads(path.read_text(encoding="utf-8"))
    for document in told.values():
        if document["kind"]:
            return named_error(document["kind"], document["text"])
    rank, code = min(failed.items())
    if code >= 0 and rank in told:
        return RuntimeError(f"worker {rank + 1} of {devices} failed:\n{told[rank]['text']}")
    how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return WorkerError(f"worker {rank + 1} of {devices} {how}, so training stops; {_kept(checkpoint)}")


def _kept(checkpoint: Path) -> str:
    try:
        step = load_checkpoint(checkpoint).description["step"]
    except FsagnError:
        return "there is no checkpoint yet"
    return f"{checkpoint} holds its first {step} steps: go on with --resume, on any number of devices"
