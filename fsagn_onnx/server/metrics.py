"""What a server tells Prometheus."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        folder: where the processes of a server add up what they count; None: it has one process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._registry = folder, CollectorRegistry()
        self._requests = Counter(
            "fsagn_requests", "Inference requests by HTTP status", ["code"], registry=self._registry
        )
        self._images = Counter("fsagn_images", "Images explained", registry=self._registry)
        self._in_hand = Gauge(
            "fsagn_requests_in_hand",
            "Inference requests in hand",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._seconds = Histogram(
            "fsagn_request_seconds", "Time from headers to answer", buckets=SECONDS, registry=self._registry
        )
        self._batches = Histogram(
            "fsagn_batch_images", "Images per pass", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self._registry
        )
        self._passes = Histogram(
            "fsagn_inference_seconds", "Time of one pass", buckets=SECONDS, registry=self._registry
        )

    def request(self, code: int, seconds: float) -> None:
        """An inference request was answered."""
        self._requests.labels(str(code)).inc()
        self._seconds.observe(seconds)

    def in_hand(self, count: int) -> None:
        """So many requests are in hand."""
        self._in_hand.set(count)

    def batch(self, images: int, seconds: float) -> None:
        """A batch was computed."""
        self._images.inc(images)
        self._batches.observe(images)
        self._passes.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus' text format, of all processes together."""
        if self._folder is None:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together, path=str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(together)
