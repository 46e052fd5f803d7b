"""Sanity: masks must change when the CNN forgets what it learned, with the generator retrained.

Adebayo et al. 2018, cascading randomisation.
`benchmarks/truth/sanity.py` runs the whole experiment: re-initialise, retrain the generator, compare the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ..data.images import read_image
from ..errors import ModelError
from ..methods import make_method
from ..model import Model
from ..runtime.engine import Engine
from ..runtime.feature_maps import draw_filters
from ..runtime.masks import area_rank, from_rank, to_common_granularity
from ..statistics.bootstrap import Interval, bootstrap_mean
from .metrics.per_image import mean_of_known
from .probe import Probe

OVERLAP_AREA: Final = 0.1
"""Area of the masks whose overlap is told beside the correlation, which the background takes part in."""


def reinitialise(proto: onnx.ModelProto, layers: int, seed: int = 0) -> onnx.ModelProto:
    """Draw the weights of the last conv layers anew: normal, with the standard deviation of the trained ones.

    Biases are permuted; everything else (batch norm, linear layers) stays. So the network keeps its shape and scale and
    loses what it learned, from the top.

    Args:
        proto: the model; not changed.
        layers: how many conv layers, counted from the output; at most all.
        seed: of the weights.

    Returns:
        The new model.

    Raises:
        ModelError: a weight is not an initializer, or there are fewer conv layers.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    convs = [node for node in made.graph.node if node.op_type == "Conv"]
    if not 1 <= layers <= len(convs):
        raise ModelError(f"the model has {len(convs)} conv layers, cannot re-initialise {layers}")
    rng = np.random.default_rng(seed)
    for node in convs[::-1][:layers]:
        for place, name in enumerate(node.input[1:]):
            if name not in stored:
                raise ModelError(f"weight '{name}' of '{node.name}' must be stored in the file, but is computed")
            old = numpy_helper.to_array(stored[name])
            new = rng.normal(0, old.std(), old.shape) if place == 0 else rng.permutation(old)
            stored[name].CopyFrom(numpy_helper.from_array(new.astype(old.dtype), name))
    return made


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Spearman's rank correlation of maps, brought to the common granularity by the caller.

    Args:
        first: ``(..., h, w)`` area ranks: permutations of the same numbers.
        second: likewise.

    Returns:
        ``(...)`` in [-1, 1].
    """
    a = first.reshape(*first.shape[:-2], -1).astype(np.float64)
    b = second.reshape(*second.shape[:-2], -1).astype(np.float64)
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    norm = np.sqrt(np.square(a).sum(axis=-1) * np.square(b).sum(axis=-1))
    return np.asarray((a * b).sum(axis=-1) / norm)


def overlap(
    first: NDArray[np.floating], second: NDArray[np.floating], area: float = OVERLAP_AREA
) -> NDArray[np.float64]:
    """Share of one mask of an area that another one of that area covers too; by chance the area itself.

    Args:
        first: ``(..., h, w)`` area ranks.
        second: likewise.
        area: of both masks.

    Returns:
        ``(...)`` in [0, 1].
    """
    a, b = first <= area, second <= area
    return np.asarray((a & b).sum(axis=(-2, -1)) / a.sum(axis=(-2, -1)))


def compare_masks(
    engines: tuple[Engine, Engine],
    models: tuple[Model, Model],
    images: Sequence[Path],
    filters: int = 5,
    seed: int = 0,
    methods: Sequence[str] = (),
) -> dict[str, Interval]:
    """Correlation of the masks of two explainers, and of what the two models alone give beside it.

    Args:
        engines: before and after; of the same layer.
        models: before and after.
        images: held-out images.
        filters: per image, drawn among the strongest that live in both models.
        seed: of the drawn filters.
        methods: training-free methods to compare likewise.

    Returns:
        Means over filters and images, with their intervals. ``generator``, ``activation`` and the methods:
        `rank_correlation` of before and after. ``generator, overlap at area .1``: `overlap` of before and after.
        ``generator, another filter``: `rank_correlation` of the masks of two filters before; so alike are
        masks of one explainer in one picture anyhow.
    """
    layer, spec = engines[0].metadata.layer, models[0].input_spec
    probes = [Probe(model, layer) for model in models]
    others = {name: [make_method(name, model, layer) for model in models] for name in methods}
    found: dict[str, list[float]] = {}
    for index, path in enumerate(images):
        pixels = spec.fit(read_image(path))[0]
        maps = [probe.features(pixels[None])[0] for probe in probes]
        both = np.where((maps[1].max(axis=(1, 2)) > 0)[:, None, None], maps[0], 0)
        ids = draw_filters(both, filters, np.random.default_rng([seed, index]))
        if not len(ids):
            continue
        batch = spec.normalise(pixels)[None]
        saliency = {
            "generator": [from_rank(engine.run(batch, ids[None]).area_rank[0]) for engine in engines],
            "activation": [single[ids] for single in maps],
        }
        for name, pair in others.items():
            whole = zip(pair, maps, strict=True)
            saliency[name] = [method.saliency(batch, single[None], ids[None])[0] for method, single in whole]
        for name, two in saliency.items():
            before, after = (area_rank(to_common_granularity(single, spec.size)) for single in two)
            found.setdefault(name, []).append(mean_of_known(rank_correlation(before, after)))
            if name == "generator":
                found.setdefault(f"{name}, overlap at area .1", []).append(mean_of_known(overlap(before, after)))
                between = rank_correlation(before[:, None], before[None])[~np.eye(len(ids), dtype=np.bool_)]
                found.setdefault(f"{name}, another filter", []).append(mean_of_known(between))
    for probe in probes:
        probe.close()
    return {name: bootstrap_mean(np.array(values)) for name, values in found.items()}
