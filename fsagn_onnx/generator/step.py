"""One training step: pairs are drawn, masked, judged by the frozen CNN. Depends only on weights, seed and step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..conversion import TappedModule
from ..errors import ImageError
from ..model import InputSpec
from ..runtime.infill import VERIFY
from .area import area_rank, soft_mask, standardise
from .batches import ImagePool
from .device_pictures import DevicePictures, held_on
from .infill import blend
from .network import Generated, Generator, resize
from .objective import (
    budget_loss,
    contrast_loss,
    crosswise_change,
    fsagn_loss,
    interpolate_retention,
    relative_change,
    retention,
)
from .options import TrainingOptions
from .pictures import HostPictures, Pictures

FSAGN_OFFSET = 2.0
"""Added to the saliency before the sigmoid of ``fsagn``: the log of a feature map lies in -4.6..0."""

SMALLEST = 128
"""Least edge in pixels of a smaller input: a layer of stride 32 then still has 4 cells each way."""


PICTURES = 1
"""Third number of the seed of a step's pictures, whose other draws have a stream of their own."""

WHOLE = 0.8
"""Smallest crop that the retention head learns on, as a share of the picture."""

HUBER = 0.05
"""Errors of the predicted retention above this count by their absolute value, which is what calibration reports."""


@dataclass(frozen=True)
class StepResult:
    """Figures of one step.

    Attributes:
        loss: the minimised sum, differentiable.
        retention: mean retention of the step's pairs under their soft masks.
        area: mean area of those masks.
        calibration: mean |predicted - true| retention of the pairs under blur; None where there are none.
    """

    loss: Tensor
    retention: float
    area: float
    calibration: float | None


def input_sizes(spec: InputSpec, options: TrainingOptions) -> tuple[tuple[int, int], ...]:
    """All input sizes of a run, the model's own first, each once."""
    return tuple(dict.fromkeys([spec.size, *(_scaled(spec, scale) for share, scale in options.ramp if share > 0)]))


def _scaled(spec: InputSpec, scale: float) -> tuple[int, int]:
    height, width = (max(SMALLEST, round(edge * scale / 32) * 32) for edge in spec.size)
    return min(height, spec.size[0]), min(width, spec.size[1])


def input_size(spec: InputSpec, options: TrainingOptions, step: int) -> tuple[int, int]:
    """Fewer pixels first: this step's input, a multiple of 32 and at least 128 each way, or the model's own size."""
    end = 0.0
    for share, scale in options.ramp:
        end += share * options.steps
        if step < end:
            return _scaled(spec, scale)
    return spec.size


class Seen(NamedTuple):
    """Pictures of a few steps, and what the frozen CNN makes of them unmasked.

    Attributes:
        key: the first of these steps, the input size, the options.
        pixels: as `Pictures` draws them.
        taps: by value name, float32; the images themselves as ``image``.
        places: of the pictures in the pool.
    """

    key: tuple[int, tuple[int, int], TrainingOptions]
    pixels: Any
    taps: dict[str, Tensor]
    places: tuple[int, ...]


class Stepper:
    """Draws and judges the pairs of a step.

    Args:
        module: the frozen CNN.
        generator: the network being trained.
        pool: training images.
        spec: the model's input.
        options: training options.
    """

    def __init__(
        self,
        module: TappedModule,
        generator: Generator,
        pool: ImagePool,
        spec: InputSpec,
        options: TrainingOptions,
    ) -> None:
        self.module, self.generator, self.pool = module, generator, pool
        self.spec, self.options = spec, options
        self.config = generator.config
        self.device = generator.get_buffer("kernel").device
        self.areas = torch.tensor(self.config.areas, device=self.device)
        held = DevicePictures if held_on(self.device, pool) else HostPictures
        self.source: Pictures = held(pool, spec, self.device)
        self._seen: Seen | None = None

    def look(self, images: Tensor) -> dict[str, Tensor]:
        """The CNN's taps for a batch, float32, with the image itself as ``image``."""
        if self.config.layout == "NCHW":
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            taps = self.module(images)
        return {"image": images, **taps}

    def see(self, step: int, options: TrainingOptions, size: tuple[int, int]) -> Seen:
        """The pictures of a step at an input size, and their taps: those of the step before, as long as visits last."""
        key = (step - step % options.visits, size, options)
        kept = self._seen
        if kept is None or kept.key != key:
            rng = np.random.default_rng([options.seed, key[0], PICTURES])
            pixels, places = self.source.draw(size, options.images_per_step, options, rng)
            taps = self.look(self.source.normalise(pixels))
            kept = self._seen = self._answered(Seen(key, pixels, taps, tuple(places)))
        return kept

    def pictures(self) -> list[str]:
        """The files of the pictures seen last."""
        return [] if self._seen is None else sorted({str(self.pool.paths[place]) for place in self._seen.places})

    def _answered(self, seen: Seen) -> Seen:
        """The pictures with those that the CNN answers with NaN or infinity replaced by others of the same step.

        They are reported once; since the exchange depends on the step alone, a resumed run makes the same.

        Raises:
            ImageError: the CNN answers none of them with numbers.
        """
        finite = torch.stack([torch.isfinite(value).flatten(1).all(dim=1) for value in seen.taps.values()]).all(dim=0)
        if bool(finite.all()):
            return seen
        good = torch.nonzero(finite).flatten().tolist()
        for row in torch.nonzero(~finite).flatten().tolist():
            self.pool.note(seen.places[row], "the model answers it, or a part of it, with NaN or infinity; left out")
        if not good:
            files = ", ".join(sorted({str(self.pool.paths[place]) for place in seen.places})[:5])
            raise ImageError(f"the model answers none of these pictures with numbers: {files}; check --preprocess")
        rows = [row if ok else good[row % len(good)] for row, ok in enumerate(finite.tolist())]
        order = torch.tensor(rows, device=self.device)
        return Seen(
            seen.key,
            seen.pixels[rows],
            {name: value[order] for name, value in seen.taps.items()},
            tuple(seen.places[row] for row in rows),
        )

    def __call__(self, step: int) -> StepResult:
        """Everything of one step but the optimiser's update."""
        rng = np.random.default_rng([self.options.seed, step])
        size = input_size(self.spec, self.options, step)
        _, pixels, taps, _ = self.see(step, self.options, size)
        true_map = taps[self.config.layer]
        filters = self.source.filters(true_map, self.options.filters_per_image, self.options.active, rng)
        generated = self.generator(taps, filters)
        ids = filters.flatten()
        owners = torch.arange(len(pixels), device=self.device).repeat_interleave(self.options.filters_per_image)
        mask = self.mask(generated, step, rng, size)
        infills, verified = self.source.infills(pixels, owners, self.options.mix, rng)
        masked = blend(taps["image"][owners], infills, mask, self.config.layout)
        if self.config.layout == "NCHW":
            masked = masked.contiguous(memory_format=torch.channels_last)
        response = self.module(masked)[self.config.layer]
        others = filters.repeat_interleave(filters.shape[1], dim=0)  # (P, K): all that are asked of the pair's image
        pairs = torch.arange(len(ids), device=self.device)
        crosswise = crosswise_change(
            response[pairs[:, None], others].unflatten(0, tuple(filters.shape)),
            true_map[owners[:: filters.shape[1], None], filters],
        )
        change = torch.diagonal(crosswise, dim1=1, dim2=2).flatten()
        loss = self.loss(crosswise, change, mask)
        return self._result(loss, change, mask, generated, taps, self._judged(verified))

    def loss(self, crosswise: Tensor, change: Tensor, mask: Tensor) -> Tensor:
        """What is minimised, of changes ``(N, K, K)`` as `crosswise_change` gives them and masks ``(P, H, W)``."""
        objective = self.options.objective
        if objective.name == "fsagn":
            return fsagn_loss(change, mask, objective)
        loss = budget_loss(change)
        return loss + objective.contrast * contrast_loss(crosswise, objective.margin) if objective.contrast else loss

    def judge(self, step: int) -> StepResult:
        """A step of the retention head alone, after the others: r under blur of masks cut as `explain` cuts them.

        On nearly whole pictures in their own colours, as they will be explained: details keep less than whole views.
        The loss has no gradient but the head's.
        """
        rng = np.random.default_rng([self.options.seed, step])
        whole = replace(self.options, crop=WHOLE, jitter=0.0)
        _, pixels, taps, _ = self.see(step, whole, self.spec.size)
        true_map = taps[self.config.layer]
        filters = self.source.filters(true_map, self.options.filters_per_image, self.options.active, rng)
        generated = self.generator(taps, filters)
        ids, pairs = filters.flatten(), torch.arange(filters.numel(), device=self.device)
        owners = pairs // self.options.filters_per_image
        columns = torch.from_numpy(rng.integers(len(self.areas), size=len(ids))).to(self.device)
        mask = self.source.cut(
            area_rank(generated.saliency.detach()).flatten(0, 1), self.areas[columns], self.spec.size
        )
        infills, _ = self.source.infills(pixels, owners, {VERIFY: 1.0}, rng)
        response = self.look(blend(taps["image"][owners], infills, mask, self.config.layout))
        change = relative_change(response[self.config.layer][pairs, ids], true_map[owners, ids])
        true = retention(change)
        error = generated.retention.flatten(0, 1)[pairs, columns] - true
        loss = functional.huber_loss(error, torch.zeros_like(error), delta=HUBER)
        return StepResult(loss, float(true.mean()), float(mask.mean()), float(error.detach().abs().mean()))

    def mask(self, generated: Generated, step: int, rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
        """Soft masks ``(P, H, W)``: of drawn areas (``budget``), or the sigmoid of the saliency (``fsagn``)."""
        saliency = generated.saliency.flatten(0, 1)
        objective = self.options.objective
        if objective.name == "fsagn":
            return torch.sigmoid(resize(saliency[:, None] + FSAGN_OFFSET, size)[:, 0])
        low, high = np.log(objective.area_range)
        together = saliency.shape[0] // generated.saliency.shape[0] if objective.contrast else 1  # pairs of one area
        drawn = np.exp(rng.uniform(low, high, size=len(saliency) // together)).repeat(together)
        area = torch.from_numpy(drawn.astype(np.float32))
        done = step / max(1, self.options.steps)
        tau = objective.tau[0] * (objective.tau[1] / objective.tau[0]) ** done
        upsampled = standardise(resize(saliency[:, None], size)[:, 0])
        return soft_mask(upsampled, area.to(self.device), float(tau))

    def _judged(self, verified: Tensor) -> Tensor:
        """Which pairs teach the retention head: those under the infill of `--verify`; all where the mix has none."""
        return verified.float() if VERIFY in self.options.mix else torch.ones_like(verified, dtype=torch.float32)

    def _result(
        self,
        loss: Tensor,
        change: Tensor,
        mask: Tensor,
        generated: Generated,
        taps: dict[str, Tensor],
        judged: Tensor,
    ) -> StepResult:
        true = retention(change.detach())
        area = mask.detach().mean(dim=(1, 2))
        error = interpolate_retention(generated.retention.flatten(0, 1), self.areas, area) - true
        count = judged.sum()
        total = loss + (judged * error.square()).sum() / count.clamp_min(1)
        if self.config.encoder == "own":
            total = total + self._regression(taps)
        calibration = (judged * error.detach().abs()).sum() / count
        told = torch.stack([true.mean(), area.mean(), calibration, count]).tolist()  # one wait for the device
        return StepResult(total, told[0], told[1], told[2] if told[3] else None)

    def _regression(self, taps: dict[str, Tensor]) -> Tensor:
        """Mean squared error of the own encoder's feature map, in units of each filter's root mean square."""
        encoder = self.generator.encoder
        predicted: Tensor = encoder(taps).feature_map
        true = resize(taps[self.config.layer], (predicted.shape[-2], predicted.shape[-1]))
        return ((predicted - true) / encoder.get_buffer("unit")).square().mean()
