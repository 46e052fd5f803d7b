"""By how much what is particular to a filter is brought out: as far as most of the gain is kept, on a few pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..runtime.infill import VERIFY
from ..runtime.masks import AUC_AREAS
from .area import area_rank
from .infill import blend
from .network import resize, smoothed
from .objective import relative_change, retention
from .options import TrainingOptions
from .step import WHOLE, Stepper

CANDIDATES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""The more of it, the less a mask keeps; so they are halved to find the last one that keeps enough."""

KEPT: Final = 0.85
"""Share of the gain over the feature map that is kept."""

MOST_PICTURES: Final = 32
FILTERS: Final = 4
PAIRS_PER_PICTURE: Final = 1250
"""Pairs of a training that pay for one picture: its 100 forward passes are under 5 % of theirs."""

LEAST_PICTURES: Final = 8
"""Fewer cannot tell; nothing is brought out then."""


def choose_particular(
    stepper: Stepper,
    options: TrainingOptions,
    most: int = MOST_PICTURES,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> float:
    """The largest of `CANDIDATES` with `KEPT` of the gain, 0 where none has.

    The gain is that of the mean retention over `AUC_AREAS`, under the infill of measuring, beyond what masks of the
    feature map keep, on nearly whole training pictures.

    Args:
        stepper: with the generator as it is trained, and all pictures of a step its own.
        options: of the training.
        most: pictures that may be looked at together.
        on_phase: is told where pictures are looked at, which takes a while.

    Returns:
        g of `told_apart`; 0 too where the training is too short to tell, or its masks are not made for areas.
    """
    count = min(MOST_PICTURES, most, options.pairs // PAIRS_PER_PICTURE)
    if count < LEAST_PICTURES or stepper.config.encoder != "shared" or options.objective.name != "budget":
        return 0.0
    on_phase("choosing how far what is particular to each filter is brought out")
    generator = stepper.generator
    config, training = generator.config, generator.training
    generator.eval()
    try:
        gain = _gains(stepper, options, count)
        least = KEPT * gain(0.0)
        if least <= 0:
            return 0.0
        low, high = 0, len(CANDIDATES)  # the first `low` candidates keep enough
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if gain(CANDIDATES[middle]) >= least else (low, middle)
        return CANDIDATES[low - 1] if low else 0.0
    finally:
        generator.config = config
        generator.train(training)


def _gains(stepper: Stepper, options: TrainingOptions, count: int) -> Callable[[float], float]:
    """The mean gain of the generator over the feature map, by how much is brought out."""
    source, generator, spec = stepper.source, stepper.generator, stepper.spec
    whole = replace(options, crop=WHOLE, jitter=0.0)
    rng = np.random.default_rng([options.seed, 0, 3])
    pixels, _ = source.draw(spec.size, count, whole, rng)
    taps = stepper.look(source.normalise(pixels))
    feature_map = taps[stepper.config.layer]
    ids = source.filters(feature_map, FILTERS, options.active, rng)
    own = feature_map[torch.arange(count, device=ids.device)[:, None], ids]
    nobody = torch.zeros(FILTERS, dtype=torch.int64, device=ids.device)

    def kept(saliency: Tensor) -> float:
        """Mean r over areas, pictures and filters."""
        ranks, found = area_rank(saliency), []
        for row in range(count):  # one by one: a picture may be large
            infills, _ = source.infills(pixels[row : row + 1], nobody, {VERIFY: 1.0}, rng)
            image = taps["image"][row : row + 1].expand_as(infills)
            for area in AUC_AREAS:
                mask = source.cut(ranks[row], torch.full((FILTERS,), area, device=ids.device), spec.size)
                answer = stepper.look(blend(image, infills, mask, spec.layout))[stepper.config.layer]
                shown = answer[torch.arange(FILTERS, device=ids.device), ids[row]]
                found.append(retention(relative_change(shown, own[row])).mean())
        return float(torch.stack(found).mean())

    free = kept(smoothed(resize(own, generator.config.grid), generator.get_buffer("kernel")))

    def gain(weight: float) -> float:
        generator.config = replace(generator.config, particular=weight)
        with torch.no_grad():
            return kept(generator(taps, ids).saliency) - free

    return gain
