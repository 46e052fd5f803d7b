"""Training with the workers of a Ray cluster: Ray Train starts them, and each takes its share of every step."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from ..errors import FsagnError, UsageError, WorkerError
from .cluster import Cluster, connected

if TYPE_CHECKING:
    from ..generator.training_job import Listeners, TrainingJob

POLL: Final = 0.2
"""Seconds between looks at what the first worker told."""


def train_on_cluster(job: TrainingJob, listeners: Listeners, cluster: Cluster, workers: int | None = None) -> None:
    """Train with workers of a cluster; the checkpoint holds the result.

    Pictures and checkpoint have the same paths on all nodes, such as those of a shared disk.

    Args:
        job: what is trained.
        listeners: are told how far it is, in a thread of its own.
        cluster: where; with GPUs each worker trains on one of them.
        workers: how many; None: as many as there is room for, at most the pictures of a step.

    Raises:
        UsageError: there is no such cluster, it has no room, or Ray Train is not installed.
        WorkerError: a worker was lost; the last checkpoint stays.
        FsagnError: what a worker raised.
    """
    from ..generator.share import named_error

    try:
        from ray import train as ray_train
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.util.queue import Queue
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--cluster needs Ray Train ({reason}): pip install 'fsagn-onnx[scale]'") from error
    with connected(cluster) as room, _beside(job.checkpoint) as folder:
        count = min(workers or room, job.options.images_per_step)
        if count > room:
            raise UsageError(f"--devices {count}: the cluster has room for {room} workers")
        told = Queue()
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        trainer = TorchTrainer(
            _work,
            train_loop_config={"job": job, "told": told, "gpu": cluster.gpus > 0, "folder": str(Path.cwd())},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if cluster.gpus else "gloo"),
            scaling_config=ray_train.ScalingConfig(
                num_workers=count,
                use_gpu=cluster.gpus > 0,
                resources_per_worker={"GPU": cluster.gpus} if cluster.gpus else {"CPU": 1},
            ),
            run_config=ray_train.RunConfig(name=uuid.uuid4().hex, storage_path=str(folder)),
        )
        listening = _Listening(told, listeners)
        try:
            trainer.fit()
        except Exception as error:
            if not listening.end():
                reason = " ".join(str(error).split())[-300:]
                lost = WorkerError(f"the cluster gave training up ({reason}); go on with --resume")
                raise lost from error
        finally:
            listening.end()
        if listening.failed is not None:
            raise named_error(*listening.failed)
        if listening.problem is not None:
            raise listening.problem


@contextlib.contextmanager
def _beside(checkpoint: Path) -> Iterator[Path]:
    """A folder for what Ray Train keeps, where all nodes see it."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fsagn-ray-", dir=checkpoint.parent) as folder:
        yield Path(folder).absolute()


def _work(given: dict[str, Any]) -> None:
    """A worker's share; Ray Train has made the process group."""
    import torch
    from ray import train as ray_train

    from ..generator.devices import run_share
    from ..generator.memory import keep_freed_memory
    from ..generator.share import Share

    context, told = ray_train.get_context(), given["told"]
    share = Share(context.get_world_rank(), context.get_world_size())
    keep_freed_memory()
    device = "cpu"
    if given["gpu"]:
        device = f"cuda:{torch.cuda.current_device()}"
    else:
        torch.set_num_threads(1)
    try:
        _enter(given["folder"])
        run_share(given["job"], device, share, _Teller(told))
    except FsagnError as error:
        told.put(("failed", type(error).__name__, str(error)))
        raise


def _enter(folder: str) -> None:
    """Ray Train gives each worker a folder of its own; relative paths are meant from that of the command."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UsageError(
            f"{folder}: not on a node of the cluster ({error.strerror}); start in a folder of a shared disk"
        ) from error


class _Teller:
    """Puts what the first worker tells into a queue of the cluster."""

    def __init__(self, told: Any) -> None:
        self._told = told

    def send(self, what: Any) -> None:
        """One message."""
        self._told.put(what)


class _Listening:
    """A thread that passes on what the first worker tells.

    Attributes:
        failed: class and text of an error that a worker told.
        problem: what a listener raised.
    """

    def __init__(self, told: Any, listeners: Listeners) -> None:
        self.failed: tuple[str, str] | None = None
        self.problem: BaseException | None = None
        self._told, self._listeners, self._ended = told, listeners, threading.Event()
        self._thread = threading.Thread(target=self._listen, name="fsagn-train", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._ended.wait(POLL):
            self._pass_on()
        self._pass_on()

    def _pass_on(self) -> None:
        for name, *told in self._told.get_nowait_batch(self._told.qsize()):
            if name == "failed":
                self.failed = self.failed or (told[0], told[1])
            elif self.problem is None:
                try:
                    getattr(self._listeners, name)(*told)
                except BaseException as error:  # noqa: BLE001 - raised where the training was called
                    self.problem = error

    def end(self) -> bool:
        """Pass on what was told last; whether an error was among it."""
        self._ended.set()
        self._thread.join()
        return self.failed is not None or self.problem is not None
