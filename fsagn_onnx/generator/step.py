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
from .class_pairs import AskedClasses, ClassJudge, decision_loss, shares_by_kind
from .device_pictures import DevicePictures, held_on
from .infill import blend
from .network import Generated, Generator, resize
from .objective import (
    area_penalty,
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
from .teacher import teaching_loss

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


REMOVED = 0.5
"""How often the area of a class is hidden instead of shown."""


@dataclass(frozen=True)
class StepResult:
    """Figures of one step.

    Attributes:
        loss: the minimised sum, differentiable.
        figures: by name: ``retention`` and ``area``, means over the pairs of a filter under their masks;
            ``calibration``, mean |predicted - true| of the pairs under blur, where there are any; ``kept`` and
            ``removed``, mean shares of the decision with the area of a class alone and without it, likewise. Scalars on
            the device, so that nobody waits for it; NaN where there is nothing.
    """

    loss: Tensor
    figures: dict[str, Tensor]


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
        asked: classes asked about, and their questions; None where filters alone are.
        places: of the pictures in the pool.
    """

    key: tuple[int, tuple[int, int], TrainingOptions]
    pixels: Any
    taps: dict[str, Tensor]
    asked: AskedClasses | None
    places: tuple[int, ...]


class Stepper:
    """Draws and judges the pairs of a step.

    Args:
        module: the frozen CNN.
        generator: the network being trained.
        pool: training images.
        spec: the model's input.
        options: training options.
        classes: asks about classes and judges these pairs; None: filters alone are asked about.
        source: draws pictures, infills, filters and masks; None: made for the device of the generator.
    """

    def __init__(
        self,
        module: TappedModule,
        generator: Generator,
        pool: ImagePool,
        spec: InputSpec,
        options: TrainingOptions,
        classes: ClassJudge | None = None,
        source: Pictures | None = None,
    ) -> None:
        self.module, self.generator, self.pool = module, generator, pool
        self.spec, self.options, self.classes = spec, options, classes
        self.config = generator.config
        self.device = generator.get_buffer("kernel").device
        self.areas = torch.tensor(self.config.areas, device=self.device)
        held = DevicePictures if held_on(self.device, pool) else HostPictures
        self.source: Pictures = held(pool, spec, self.device) if source is None else source
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
            taps, asked = self._look_asking(self.source.normalise(pixels), rng)
            kept = self._seen = self._answered(Seen(key, pixels, taps, asked, tuple(places)))
        return kept

    def _look_asking(self, images: Tensor, rng: np.random.Generator) -> tuple[dict[str, Tensor], AskedClasses | None]:
        if self.classes is None:
            return self.look(images), None
        if self.config.layout == "NCHW":
            images = images.contiguous(memory_format=torch.channels_last)
        taps, asked = self.classes.look(images, self.options.classes_per_image, rng)
        return {"image": images, **taps}, asked

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
            None if seen.asked is None else seen.asked.rows(order),
            tuple(seen.places[row] for row in rows),
        )

    def __call__(self, step: int) -> StepResult:
        """Everything of one step but the optimiser's update."""
        rng = np.random.default_rng([self.options.seed, step])
        size = input_size(self.spec, self.options, step)
        _, pixels, taps, asked, _ = self.see(step, self.options, size)
        true_map = taps[self.config.layer]
        filters = self.source.filters(true_map, self.options.filters_per_image, self.options.active, rng)
        generated = self.generator(taps, filters, None if asked is None else asked.questions)
        owners, pairs = self._owners(filters, asked)
        mask = self.mask(generated, step, rng, size)
        hidden = torch.zeros(len(mask), dtype=torch.bool)
        hidden[len(pairs) :] = torch.from_numpy(rng.random(len(mask) - len(pairs)) < REMOVED)
        hidden = hidden.to(self.device)
        infills, verified = self.source.infills(pixels, owners, self.options.mix, rng)
        shown = torch.where(hidden[:, None, None], 1 - mask, mask)
        masked = blend(taps["image"][owners], infills, shown, self.config.layout)
        if self.config.layout == "NCHW":
            masked = masked.contiguous(memory_format=torch.channels_last)
        response = self.module(masked)
        others = filters.repeat_interleave(filters.shape[1], dim=0)  # (P, K): all that are asked of the pair's image
        original = true_map[torch.arange(len(filters), device=self.device)[:, None], filters]  # (N, K, h, w)
        masked_maps = response[self.config.layer][pairs[:, None], others].unflatten(0, tuple(filters.shape))
        crosswise = crosswise_change(masked_maps, original)
        change = torch.diagonal(crosswise, dim1=1, dim2=2).flatten()
        loss, judged, kept = self.loss(crosswise, original, mask[pairs]), self._judged(verified), retention(change)
        figures = {"retention": kept.mean(), "area": mask[pairs].mean()}
        if self.classes is not None and asked is not None:
            share, told = self.classes.shares(response, infills, asked, len(pairs))
            gone = hidden[len(pairs) :]
            loss = loss + decision_loss(share, told, gone)
            if asked.teacher is not None:
                pull = teaching_loss(generated.evidence, asked.teacher)
                loss = loss + self.options.teacher * pull
            if self.options.objective.name == "fsagn":
                loss = loss + area_penalty(mask[len(pairs) :], self.options.objective)
            kept = torch.cat((kept, share.clamp_min(0)))
            judged[len(pairs) :] *= told * ~gone
            figures |= shares_by_kind(share, told, gone)
        return self._result(loss, kept, mask, generated, taps, judged, figures)

    def _owners(self, filters: Tensor, asked: AskedClasses | None) -> tuple[Tensor, Tensor]:
        """The picture of every pair; and the numbers of the pairs of a filter, which come before those of a class."""
        pictures = torch.arange(len(filters), device=self.device)
        owners = pictures.repeat_interleave(filters.shape[1])
        if asked is not None:
            owners = torch.cat((owners, pictures.repeat_interleave(asked.ids.shape[1])))
        return owners, torch.arange(filters.numel(), device=self.device)

    def loss(self, crosswise: Tensor, original: Tensor, mask: Tensor) -> Tensor:
        """What is minimised, of changes ``(N, K, K)`` as `crosswise_change` gives them and masks ``(P, H, W)``."""
        objective, change = self.options.objective, torch.diagonal(crosswise, dim1=1, dim2=2).flatten()
        if objective.name == "fsagn":
            return fsagn_loss(change, mask, objective)
        loss = budget_loss(change)
        if objective.contrast:
            loss = loss + objective.contrast * contrast_loss(crosswise, original, objective.margin)
        return loss

    def judge(self, step: int) -> StepResult:
        """A step of the retention head alone, after the others: r under blur of masks cut as `explain` cuts them.

        On nearly whole pictures in their own colours, as they will be explained: details keep less than whole views.
        The loss has no gradient but the head's.
        """
        rng = np.random.default_rng([self.options.seed, step])
        whole = replace(self.options, crop=WHOLE, jitter=0.0)
        _, pixels, taps, asked, _ = self.see(step, whole, self.spec.size)
        true_map = taps[self.config.layer]
        filters = self.source.filters(true_map, self.options.filters_per_image, self.options.active, rng)
        generated = self.generator(taps, filters, None if asked is None else asked.questions)
        ids, (owners, pairs) = filters.flatten(), self._owners(filters, asked)
        columns = torch.from_numpy(rng.integers(len(self.areas), size=len(owners))).to(self.device)
        ranks = area_rank(_flat(generated.saliency, generated.evidence).detach())
        mask = self.source.cut(ranks, self.areas[columns], self.spec.size)
        infills, _ = self.source.infills(pixels, owners, {VERIFY: 1.0}, rng)
        response = self.look(blend(taps["image"][owners], infills, mask, self.config.layout))
        true = retention(relative_change(response[self.config.layer][pairs, ids], true_map[owners[pairs], ids]))
        told = torch.ones(len(owners), device=self.device)
        if self.classes is not None and asked is not None:
            share, told[len(pairs) :] = self.classes.shares(response, infills, asked, len(pairs))
            true = torch.cat((true, share.clamp_min(0)))
        predicted = _flat(generated.retention, generated.kept)[torch.arange(len(owners), device=self.device), columns]
        error = told * (predicted - true)
        loss = functional.huber_loss(error, torch.zeros_like(error), delta=HUBER)
        figures = {"retention": true[pairs].mean(), "area": mask.mean(), "calibration": error.abs().sum() / told.sum()}
        return StepResult(loss, figures)

    def mask(self, generated: Generated, step: int, rng: np.random.Generator, size: tuple[int, int]) -> Tensor:
        """Soft masks ``(P, H, W)``: of drawn areas (``budget``), or the sigmoid of the saliency (``fsagn``)."""
        saliency, objective = _flat(generated.saliency, generated.evidence), self.options.objective
        if objective.name == "fsagn":
            return torch.sigmoid(resize(saliency[:, None] + FSAGN_OFFSET, size)[:, 0])
        low, high = np.log(objective.area_range)
        count, filters = generated.saliency.shape[:2]
        together = filters if objective.contrast else 1  # pairs of one area
        drawn = rng.uniform(low, high, size=count * filters // together).repeat(together)
        drawn = np.concatenate([drawn, rng.uniform(low, high, size=len(saliency) - len(drawn))])
        area = torch.from_numpy(np.exp(drawn).astype(np.float32))
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
        true: Tensor,
        mask: Tensor,
        generated: Generated,
        taps: dict[str, Tensor],
        judged: Tensor,
        figures: dict[str, Tensor],
    ) -> StepResult:
        area = mask.detach().mean(dim=(1, 2))
        predicted = _flat(generated.retention, generated.kept)
        error = interpolate_retention(predicted, self.areas, area) - true.detach()
        count = judged.sum()
        total = loss + (judged * error.square()).sum() / count.clamp_min(1)
        if self.config.encoder == "own":
            total = total + self._regression(taps)
        return StepResult(total, {**figures, "calibration": (judged * error.abs()).sum() / count})

    def _regression(self, taps: dict[str, Tensor]) -> Tensor:
        """Mean squared error of the own encoder's feature map, in units of each filter's root mean square."""
        encoder = self.generator.encoder
        predicted: Tensor = encoder(taps).feature_map
        true = resize(taps[self.config.layer], (predicted.shape[-2], predicted.shape[-1]))
        return ((predicted - true) / encoder.get_buffer("unit")).square().mean()


def _flat(filters: Tensor, classes: Tensor) -> Tensor:
    """What is known of all pairs, those of a filter first: ``(N, K, ...)``, ``(N, J, ...)`` -> ``(N K + N J, ...)``."""
    return torch.cat((filters.flatten(0, 1), classes.flatten(0, 1)))


def read(figures: dict[str, Tensor]) -> dict[str, float]:
    """Figures as numbers, in one wait for the device; those of nothing (0 / 0) are left out."""
    values = torch.stack([value.detach() for value in figures.values()]).tolist()
    return {name: value for name, value in zip(figures, values, strict=True) if value == value}
