"""Measures what a `Trust` says: an explainer against its own network, on pictures that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ..data.images import read_image
from ..errors import ImageError
from ..statistics.bootstrap import bootstrap_mean
from .engine import Engine
from .feature_maps import FeatureMaps, draw_filters, retained
from .infill import HELD_OUT, VERIFY, masked_images
from .masks import AUC_AREAS, FloatMap, Mask, area_rank, from_rank, pixel_mask, to_common_granularity
from .stream import Pixels
from .trust import Trust
from .verifier import random_masks

FILTERS: Final = 4
"""Of a picture."""
MOST_PICTURES: Final = 40
LEAST_PICTURES: Final = 4
"""Fewer give no interval worth the name."""
PAIRS_PER_PICTURE: Final = 1000
"""Pairs of a training that pay for one measured picture: its about 100 forward passes are under 5 % of theirs."""


def affordable_pictures(pairs: int) -> int:
    """How many pictures may be measured after a training of so many pairs."""
    count = min(MOST_PICTURES, pairs // PAIRS_PER_PICTURE)
    return count if count >= LEAST_PICTURES else 0


def measure_trust(
    engine: Engine, proto: onnx.ModelProto, pictures: Sequence[Path], source: str = "left-out pictures"
) -> Trust | None:
    """Measure an explainer on pictures.

    AUC, gain and specificity are taken as `evaluate` takes them: common granularity, the areas `AUC_AREAS`, the infill
    that no training sees. Error and random retention are taken under the infill of measuring, at the areas of the
    metadata, on the masks as `explain` cuts them.

    Args:
        engine: the explainer; it must predict retention and take any filter.
        proto: a graph that contains the model.
        pictures: that it was not trained on; those that cannot be read, or have fewer living filters, are left out.
        source: what they are, in a few words.

    Returns:
        The figures; None where fewer than `LEAST_PICTURES` can be measured.

    Raises:
        FsagnError: the graph does not compute the layer from the image.
    """
    about = engine.metadata
    rows: list[tuple[float, float, float, float]] = []
    random: list[NDArray[np.float64]] = []
    with FeatureMaps(proto, about.input, about.layer) as maps:
        for number, path in enumerate(pictures):
            try:
                pixels = about.input.fit(read_image(path))[0]
            except ImageError:
                continue
            measured = _measured(engine, maps, pixels, np.random.default_rng([0, number]))
            if measured is not None:
                rows.append(measured[0])
                random.append(measured[1])
    if len(rows) < LEAST_PICTURES:
        return None
    auc, gain, specificity, error = np.array(rows).T
    return Trust(
        pictures=len(rows),
        filters=FILTERS,
        random=tuple(_rounded(value) for value in np.mean(random, axis=0)),
        error=_rounded(error.mean()),
        auc=_spread(auc),
        gain=_spread(gain),
        specificity=_spread(specificity),
        infill=HELD_OUT,
        source=source,
    )


def _spread(values: NDArray[np.float64]) -> tuple[float, float, float]:
    found = bootstrap_mean(values)
    return _rounded(found.mean), _rounded(found.low), _rounded(found.high)


def _measured(
    engine: Engine, maps: FeatureMaps, pixels: Pixels, rng: np.random.Generator
) -> tuple[tuple[float, float, float, float], NDArray[np.float64]] | None:
    """AUC, gain, specificity and error of one picture, and what random areas keep (A,)."""
    about = engine.metadata
    whole = maps.of_pixels(pixels[None])[0]
    ids = draw_filters(whole, FILTERS, rng)
    if len(ids) < FILTERS:
        return None
    asked = engine.run(engine_input(engine, pixels), ids[None])
    rank, own = asked.area_rank[0], whole[ids]
    theirs = _swept(maps, pixels, from_rank(rank), own, ids)
    free = np.einsum("aii->ia", _swept(maps, pixels, own, own, ids)).mean()
    kept = np.einsum("aii->ia", theirs)
    others = (theirs.sum(axis=1).T - kept) / (FILTERS - 1)
    cut = [pixel_mask(single, area, about.input.size) for single in rank for area in about.areas]
    under = _retained(maps, pixels, cut, VERIFY, own, ids).reshape(FILTERS, len(about.areas), FILTERS)
    measured = np.stack([under[k, :, k] for k in range(FILTERS)])
    predicted = measured if asked.retention is None else asked.retention[0]
    scattered = [mask for draw in random_masks(about.input.size, about.areas) for mask in draw]
    chance = _retained(maps, pixels, scattered, VERIFY, own, ids).reshape(-1, len(about.areas), FILTERS)
    figures = (kept.mean(), kept.mean() - free, (kept - others).mean(), np.abs(predicted - measured).mean())
    auc, gain, specificity, error = map(float, figures)
    return (auc, gain, specificity, error), chance.mean(axis=(0, 2))


def engine_input(engine: Engine, pixels: Pixels) -> NDArray[np.generic]:
    """A batch of one fitted picture, as the engine takes it."""
    return pixels[None] if engine.takes_pixels else np.asarray(engine.metadata.input.normalise(pixels[None]))


def _swept(
    maps: FeatureMaps, pixels: Pixels, saliency: FloatMap, own: FloatMap, ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(A, K, K): at each of `AUC_AREAS`, under the mask of the first filter, r of the second."""
    size = (pixels.shape[0], pixels.shape[1])
    ranks = area_rank(to_common_granularity(saliency, size))
    cut = [pixel_mask(rank, area, size) for area in AUC_AREAS for rank in ranks]
    return _retained(maps, pixels, cut, HELD_OUT, own, ids).reshape(len(AUC_AREAS), len(ids), len(ids))


def _retained(
    maps: FeatureMaps, pixels: Pixels, cut: Sequence[Mask], kind: str, own: FloatMap, ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(M, K): under each mask, r of each filter."""
    parts = []
    for start in range(0, len(cut), maps.batch_size):
        pictures = masked_images(pixels, cut[start : start + maps.batch_size], kind)
        parts.append(retained(maps.of_pixels(pictures, ids), own))
    return np.concatenate(parts)


def _rounded(value: float) -> float:
    return round(float(value), 4)
