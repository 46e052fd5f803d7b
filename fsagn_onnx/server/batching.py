"""One thread computes; requests that wait at the same time share a batch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.classifier import Classifier
from ..runtime.engine import Pass
from ..runtime.file_engine import FileEngine
from .jobs import Job
from .metrics import Metrics
from .passes import joined_passes, part_of, rows_are_images
from .settings import Settings
from .tensors import RequestError

Array = NDArray[Any]

_log = logging.getLogger(__name__)


class _Thread:
    """One thread that computes, in the order asked; the interpreter does not wait for it at its end."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="fsagn-infer", daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    async def run(self, function: Callable[[], Pass]) -> Pass | BaseException:
        """What a function returns or raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Pass | BaseException] = loop.create_future()

        def tell(answer: Pass | BaseException) -> None:
            if not done.done():
                done.set_result(answer)

        def call() -> None:
            answer: Pass | BaseException
            try:
                answer = function()
            except BaseException as error:  # noqa: BLE001 - the request's own, told there
                answer = error
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, answer)

        self._calls.put(call)
        return await done

    def end(self) -> None:
        """Let the thread end after what it is at."""
        self._calls.put(None)


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
        shares: whether requests may share a batch, see `rows_are_images`.
        classifier: which outputs belong to the images, as the graph says; None: those with a row per image.
    """

    def __init__(
        self,
        engine: FileEngine,
        settings: Settings,
        metrics: Metrics,
        *,
        shares: bool = True,
        classifier: Classifier | None = None,
    ) -> None:
        self._engine, self._settings, self._metrics, self._shares = engine, settings, metrics, shares
        self._classifier = classifier
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = _Thread()
        self._worker: asyncio.Task[None] | None = None
        self._seconds_per_image = 0.05

    @property
    def seconds_ahead(self) -> float:
        """About how long what waits now will take."""
        return self._seconds_per_image * (1 + sum(len(item.job.values) for item in self._waiting))

    @property
    def works(self) -> bool:
        """Whether jobs are computed: the worker was started and has not ended."""
        return self._worker is not None and not self._worker.done()

    def start(self) -> None:
        """Start the worker."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish what waits, then stop; what comes or stays after `Settings.drain` seconds is told so."""
        until = time.monotonic() + self._settings.drain
        while any(not item.answer.done() for item in self._waiting) and self.works and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._fail(self._waiting, RequestError("the server is stopping", 503))
        self._waiting.clear()
        self._thread.end()

    async def run(self, job: Job) -> Pass:
        """The results of one job; several are computed together where they fit.

        One of more images than a pass takes goes in several passes, and lets others in between.

        Raises:
            FsagnError: onnxruntime failed.
        """
        if not self._shares or len(job.values) <= self._settings.max_batch:
            return await self._whole(job)
        passes = [await self._whole(part) for part in job.parts(self._settings.max_batch)]
        return joined_passes(passes, self._classifier)

    async def _whole(self, job: Job) -> Pass:
        item = _Waiting(job, asyncio.get_running_loop().create_future(), time.monotonic())
        self._waiting.append(item)
        self._arrived.set()
        return await item.answer

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            batch: list[_Waiting] = []
            try:
                batch = await self._collect()
                if batch:
                    await self._compute(batch)
            except asyncio.CancelledError:
                self._fail(batch, RequestError("the server is stopping", 503))
                raise
            except Exception as error:  # noqa: BLE001 - belongs to requests; others are to be answered
                _log.exception("a batch failed")
                self._fail(batch or self._waiting, error)
                if not batch:
                    self._waiting.clear()

    @staticmethod
    def _fail(items: Iterable[_Waiting], error: BaseException) -> None:
        for item in items:
            if not item.answer.done():
                item.answer.set_exception(error)

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
            alike = self._shares and item.job.kind == first.job.kind
            fits = alike and images + len(item.job.values) <= self._settings.max_batch
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
        asked = [item.job.classes for item in batch if item.job.classes is not None]
        classes = np.concatenate(asked) if asked else None
        started = time.monotonic()
        computed = await self._thread.run(lambda: self._answered(values, filters, classes))
        if isinstance(computed, BaseException) or (
            len(batch) > 1 and not rows_are_images(computed, len(values), self._classifier)
        ):
            await self._each_alone(batch, computed)
            return
        seconds = time.monotonic() - started
        self._seconds_per_image += 0.1 * (seconds / len(values) - self._seconds_per_image)
        self._metrics.batch(len(values), seconds)
        start = 0
        for item in batch:
            end = start + len(item.job.values)
            if not item.answer.done():
                rows = slice(start, end)
                item.answer.set_result(computed if len(batch) == 1 else part_of(computed, rows, self._classifier))
            start = end

    def _answered(self, values: Array, filters: Array, classes: Array | None) -> Pass:
        """One pass; about decisions too, where the file can be asked about them."""
        return self._engine.run(values, filters) if classes is None else self._engine.decide(values, filters, classes)

    async def _each_alone(self, batch: list[_Waiting], failure: Pass | BaseException) -> None:
        """Answer the requests of a batch that cannot be answered together: only those that fail alone fail."""
        if len(batch) > 1:
            self._shares = self._shares and isinstance(failure, BaseException)
            for item in batch:
                await self._compute([item])
        elif isinstance(failure, BaseException):
            known = isinstance(failure, Exception) and not isinstance(failure, StopIteration)  # no future takes that
            self._fail(batch, failure if known else RuntimeError(f"the computation ended with {failure!r:.200}"))
