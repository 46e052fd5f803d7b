"""Feature maps of a model at one of its layers, and how much of them a change of the image leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
import onnx
from numpy.typing import NDArray

from ..data.closing import Closing
from ..errors import ModelError
from ..model.cut import cut
from ..model.input_spec import InputSpec
from ..model.model import Model
from ..model.outputs import find_outputs
from .session import Session

Array = NDArray[Any]
Maps = NDArray[np.float32]

DRAWN_AMONG: Final = 60
"""Filters of an image that are measured are drawn among so many, the strongest by peak."""

BATCH_SIZE: Final = 25
"""Images per pass, where the graph takes any number."""


class FeatureMaps(Closing):
    """The part of a model up to some of its values, in onnxruntime; a context manager.

    Attributes:
        provider: the onnxruntime provider that computes.
        batch_size: images per pass of `maps` and `of_pixels`.

    Args:
        proto: a graph that contains the model; it is not changed.
        spec: the model's input.
        values: the layer, or several values.
        providers: see `Session`.
        threads: see `Session`.
        keep_outputs: compute the graph's own outputs too; `run` gives them.
        batch_size: see above; a graph for a fixed batch takes its own.
        source: what to call the graph in errors.

    Raises:
        LayerError: no node makes one of the values.
        ModelError: the values need other inputs than the image.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        spec: InputSpec,
        values: str | Sequence[str],
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        *,
        keep_outputs: bool = False,
        batch_size: int = BATCH_SIZE,
        source: str | None = None,
    ) -> None:
        self._values = [values] if isinstance(values, str) else list(values)
        self._spec = spec
        self._proto = proto if keep_outputs else None
        self._session = Session(cut(proto, self._values, keep_outputs=keep_outputs), providers, threads, source=source)
        names = [port.name for port in self._session.inputs]
        if names != [spec.name]:
            self.close()
            raise ModelError(
                f"'{self._values[0]}' needs the inputs {', '.join(names)}, expected only '{spec.name}'; "
                "bind the others to constants (--feed NAME=VALUE)"
            )
        self._outputs = [port.name for port in self._session.outputs if port.dtype.startswith("tensor(")]
        self.provider = self._session.provider
        self.batch_size = self._session.batch or batch_size

    @classmethod
    def of_model(
        cls,
        model: Model,
        values: str | Sequence[str],
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
        **options: Any,
    ) -> Self:
        """Of a model as it was loaded; ``options`` as above."""
        return cls(model.proto, model.input_spec, values, providers, threads, source=str(model.path), **options)

    def run(self, batch: Array) -> dict[str, Array]:
        """All values, and the outputs where they are kept, of a preprocessed batch (N, ...) in one pass."""
        return self._session.run(self._outputs, {self._spec.name: batch}, lambda: self._axes)

    @cached_property
    def _axes(self) -> dict[str, int | None]:
        """The axis of the images of every output of the graph."""
        if self._proto is None:
            return {}
        return {item.name: item.axis for item in find_outputs(self._proto, self._spec.name, self._spec.sample_shape)}

    def maps(self, batch: Array, filters: Array | None = None) -> Maps:
        """Feature maps of a preprocessed batch.

        Args:
            batch: ``(N, ...)``, any number of images.
            filters: ``(K,)`` ids; None: all.

        Returns:
            ``(N, K, h, w)`` of the first of the values.
        """
        return np.concatenate([self._first(part, filters) for part in self._parts(batch)])

    def of_pixels(self, pixels: NDArray[np.uint8], filters: Array | None = None) -> Maps:
        """`maps` of fitted pixels ``(N, H, W, c)``."""
        parts = (np.asarray(self._spec.normalise(part), dtype=np.float32) for part in self._parts(pixels))
        return np.concatenate([self._first(part, filters) for part in parts])

    def _parts(self, images: Array) -> Iterator[Array]:
        for start in range(0, len(images), self.batch_size):
            yield images[start : start + self.batch_size]

    def _first(self, batch: Array, filters: Array | None) -> Maps:
        layer = self._values[0]
        maps = self._session.run([layer], {self._spec.name: batch})[layer]
        return (maps if filters is None else maps[:, filters]).astype(np.float32, copy=False)

    def close(self) -> None:
        """Free the session."""
        self._session.close()


def draw_filters(feature_map: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ids among the strongest living filters of one image: ``(C, h, w)`` -> at most ``(count,)``."""
    peaks = feature_map.max(axis=(1, 2))
    living = np.argsort(-peaks, kind="stable")[: min(DRAWN_AMONG, int((peaks > 0).sum()))]
    drawn: NDArray[np.int64] = rng.choice(living, size=min(count, living.size), replace=False).astype(np.int64)
    return drawn


def retained(masked: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.float64]:
    """Retention r = 1 - min(1, ‖F' - F‖₂ / ‖F‖₂) over the last two axes; NaN where F is zero.

    Args:
        masked: ``(..., h, w)``, F'.
        whole: ``(..., h, w)``, F; broadcast against ``masked``.

    Returns:
        ``(...)`` in [0, 1].
    """
    before = whole.astype(np.float64)
    change = np.sqrt(np.square(masked.astype(np.float64) - before).sum(axis=(-2, -1)))
    norm = np.broadcast_to(np.sqrt(np.square(before).sum(axis=(-2, -1))), change.shape)
    ratio = np.divide(change, norm, out=np.full(change.shape, np.nan), where=norm > 0)
    return np.asarray(1 - np.minimum(1, ratio))
