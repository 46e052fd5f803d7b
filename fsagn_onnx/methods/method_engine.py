"""An engine for a plain model: a method's maps in the place of a trained generator's."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError
from ..model import InputSpec, Model
from ..runtime.classes import Classes, classes_of
from ..runtime.engine import Engine, Pass
from ..runtime.feature_maps import FeatureMaps
from ..runtime.masks import area_rank, grid_of, grid_stride, to_grid
from ..runtime.trust import Trust
from ..runtime.variant import Variant
from .interface import Method
from .registry import make_method

BACKWARD: Final = 2
"""Forward passes that a backward pass costs."""


@dataclass(frozen=True)
class PlainMetadata:
    """What a plain model with a method says about itself; see `EngineMetadata`."""

    content: str
    layer: str
    filters: int
    input: InputSpec
    labels: tuple[str, ...] | None
    areas: tuple[float, ...] = ()
    variant: Variant = field(default_factory=Variant)
    trust: Trust | None = None


def strongest(
    feature_map: NDArray[np.float32], filters: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Fill every -1 with the strongest filter not asked for by id: highest peak, then mean, then lowest id.

    Args:
        feature_map: ``(N, C, h, w)``.
        filters: ``(N, K)`` ids or -1.

    Returns:
        ids and peaks, ``(N, K)``; id -1 and peak 0 where no filter was left.
    """
    peaks, means = feature_map.max(axis=(2, 3)), feature_map.mean(axis=(2, 3))
    ids = filters.copy()
    for image, asked in enumerate(ids):
        order = np.lexsort((np.arange(peaks.shape[1]), -means[image], -peaks[image]))
        free = order[~np.isin(order, asked[asked >= 0])]
        slots = np.flatnonzero(asked < 0)
        filled = free[: len(slots)]
        asked[slots[: len(filled)]] = filled
    chosen = np.take_along_axis(peaks, np.maximum(ids, 0), axis=1)
    return ids, np.where(ids < 0, np.float32(0), chosen).astype(np.float32)


class MethodEngine(Engine):
    """Runs a plain model in onnxruntime and a method on top of it.

    Args:
        model: the CNN.
        layer: value name of the explained layer; the model's default where None.
        method: gives the maps.
        providers: see `Session`.
        threads: see `Session`.
    """

    def __init__(
        self,
        model: Model,
        layer: str | None,
        method: Method,
        providers: str | Sequence[str] = "auto",
        threads: int | None = None,
    ) -> None:
        model.require_one_input()
        found = model.layer(layer)
        model.require_size([found.value])
        self.method = method
        self.metadata = PlainMetadata(model.content, found.value, found.channels, model.input_spec, model.labels)
        self._model = model
        self._outputs = [value.name for value in model.outputs if value.dtype != "not a tensor"]
        self._maps = FeatureMaps.of_model(model, found.value, providers, threads, keep_outputs=True)
        self.provider = self._maps.provider
        self._grid = grid_of(model.input_spec.size, grid_stride(model.input_spec.size))

    @cached_property
    def classes(self) -> Classes:
        """How the model's outputs are read."""
        return classes_of(self._model)

    def run(self, batch: NDArray[np.float32], filters: NDArray[np.int64]) -> Pass:
        """Explain filters ``(N, K)`` of a preprocessed batch; retention is not predicted.

        Raises:
            ExplainerError: the layer gives another number of maps than there are images.
        """
        computed = self._maps.run(batch)
        feature_map = computed[self.metadata.layer].astype(np.float32, copy=False)
        if len(feature_map) != len(batch):
            raise ExplainerError(
                f"the layer '{self.metadata.layer}' gives {len(feature_map)} maps for {len(batch)} images: the graph "
                "holds the batch size that it was exported with; export it again with a dynamic batch"
            )
        ids, peaks = strongest(feature_map, filters)
        maps = self.method.saliency(batch, feature_map, np.maximum(ids, 0))
        return Pass(
            outputs={name: computed[name] for name in self._outputs},
            filter_ids=ids,
            filter_peaks=peaks,
            area_rank=area_rank(to_grid(maps, self._grid)),
            retention=None,
        )

    def seconds_per_image(self, filters: int) -> float:
        """About how long explaining that many filters of one image takes here, in seconds, by one timed pass."""
        blank = np.zeros((1, *self.metadata.input.sample_shape), dtype=np.float32)
        started = time.perf_counter()
        self._maps.run(blank)
        once = time.perf_counter() - started
        beyond = self.method.passes(filters)
        return once * (1 + beyond.forward + BACKWARD * beyond.backward)

    def model_graph(self) -> onnx.ModelProto:
        """The model's own."""
        return self._model.proto

    def close(self) -> None:
        """Free the session."""
        self._maps.close()


def engine_for(model: Model, layer: str | None = None, method: str | None = None, **session: Any) -> MethodEngine:
    """An engine that explains a plain model.

    Args:
        model: the CNN.
        layer: value name; the model's default where None.
        method: a name of `METHODS`; None: ``optimise`` where torch is installed, ``activation`` where not.
        **session: ``providers`` and ``threads``, see `Session`.

    Raises:
        LayerError: no such layer.
        UsageError: no such method, or it needs what is not installed.
    """
    if method is None:
        trainable = importlib.util.find_spec("torch") and importlib.util.find_spec("onnx2torch")
        method = "optimise" if trainable else "activation"
    return MethodEngine(model, layer, make_method(method, model, model.layer(layer).value), **session)
