"""One thread computes; requests that wait at the same time share a batch."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..runtime.engine import FileEngine, Pass
from .jobs import Job
from .metrics import Metrics
from .settings import Settings


@dataclass(eq=False)
class _Waiting:
    job: Job
    answer: asyncio.Future[Pass]
    since: float


class Batcher:
    """Collects jobs and runs them through the engine; use it within one event loop.

    Args:
        engine: the explainer.
        settings: largest batch, longest wait.
        metrics: is told batches.
    """

    def __init__(self, engine: FileEngine, settings: Settings, metrics: Metrics) -> None:
        self._engine, self._settings, self._metrics = engine, settings, metrics
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fsagn-infer")
        self._worker: asyncio.Task[None] | None = None
        self._seconds_per_image = 0.05

    @property
    def seconds_ahead(self) -> float:
        """About how long what waits now will take."""
        return self._seconds_per_image * (1 + sum(len(item.job.values) for item in self._waiting))

    def start(self) -> None:
        """Start the worker."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish what waits, then stop."""
        while self._waiting:
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown()

    async def run(self, job: Job) -> Pass:
        """The results of one job; several are computed together where they fit.

        Raises:
            FsagnError: onnxruntime failed.
        """
        item = _Waiting(job, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(item)
        self._arrived.set()
        return await item.answer

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch = await self._collect()
            if batch:
                await self._compute(batch)

    async def _collect(self) -> list[_Waiting]:
        """The first job and those of its kind that fit beside it; waits for more, but not for long."""
        if not self._waiting:
            self._arrived.clear()
            return []
        deadline = self._waiting[0].since + self._settings.max_delay
        while self._images_of_first_kind() < self._settings.max_batch and (left := deadline - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                break
        first = self._waiting.popleft()
        batch, images, rest = [first], len(first.job.values), deque[_Waiting]()
        while self._waiting:
            item = self._waiting.popleft()
            fits = item.job.kind == first.job.kind and images + len(item.job.values) <= self._settings.max_batch
            if fits:
                batch.append(item)
                images += len(item.job.values)
            else:
                rest.append(item)
        self._waiting = rest
        if rest:
            self._arrived.set()
        else:
            self._arrived.clear()
        return [item for item in batch if not item.answer.cancelled()]

    def _images_of_first_kind(self) -> int:
        kind = self._waiting[0].job.kind
        return sum(len(item.job.values) for item in self._waiting if item.job.kind == kind)

    async def _compute(self, batch: list[_Waiting]) -> None:
        values = np.concatenate([item.job.values for item in batch])
        filters = np.concatenate([item.job.filters for item in batch])
        started = time.monotonic()
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._engine.run, values, filters)
        await asyncio.wait([running])
        if error := running.exception():  # whatever it is, it belongs to the requests of this batch
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        computed = running.result()
        seconds = time.monotonic() - started
        self._seconds_per_image += 0.1 * (seconds / len(values) - self._seconds_per_image)
        self._metrics.batch(len(values), seconds)
        start = 0
        for item in batch:
            end = start + len(item.job.values)
            if not item.answer.done():
                item.answer.set_result(_part(computed, slice(start, end)))
            start = end


def _part(computed: Pass, rows: slice) -> Pass:
    return Pass(
        outputs={name: values[rows] for name, values in computed.outputs.items()},
        filter_ids=computed.filter_ids[rows],
        filter_peaks=computed.filter_peaks[rows],
        area_rank=computed.area_rank[rows],
        retention=None if computed.retention is None else computed.retention[rows],
    )
