"""One training step: pairs are drawn, masked, judged by the frozen CNN. Depends only on weights, seed and step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
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
from .pairs import Found, Pairs, flat, pairs_of, split_pairs
from .pictures import HostPictures, Pictures
from .schedule import input_size
from .share import ALONE, Rows, Share
from .teacher import teaching_loss

FSAGN_OFFSET = 2.0
"""Added to the saliency before the sigmoid of ``fsagn``: the log of a feature map lies in -4.6..0."""

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


class Seen(NamedTuple):
    """Pictures of a few steps, and what the frozen CNN makes of them unmasked.

    Attributes:
        key: the first of these steps, the input size, the options.
        pixels: as `Pictures` draws them, of all pictures of the step.
        taps: of the worker's own pictures, by value name, float32; the images themselves as ``image``.
        asked: classes asked about, and their questions, likewise; None where filters alone are.
        places: of all pictures in the pool.
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
        share: which pictures of a step are this worker's own; figures and losses are of all pictures.
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
        share: Share = ALONE,
    ) -> None:
        self.module, self.generator, self.pool = module, generator, pool
        self.network: nn.Module = generator  # what gives the gradients of all workers, see `Share.joined`
        self.spec, self.options, self.classes = spec, options, classes
        self.config = generator.config
        self.device = generator.get_buffer("kernel").device
        self.areas = torch.tensor(self.config.areas, device=self.device)
        held = DevicePictures if held_on(self.device, pool) else HostPictures
        self.source: Pictures = held(pool, spec, self.device, share) if source is None else source
        self.share = share
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
            drawn = Seen(key, pixels, {}, None, tuple(places))
            kept = self._seen = self._looked(drawn, rng)
        return kept

    def _looked(self, drawn: Seen, rng: np.random.Generator) -> Seen:
        """What the CNN makes of a worker's own pictures; where one of anybody's is no good, all look at all of them."""
        count, state = len(drawn.places), rng.bit_generator.state
        rows = self.share.rows(count)
        seen = self._look_asking(drawn, rng, rows)
        (finite,) = self.share.gather(rows, _finite(seen.taps))
        if not bool(finite.all()):
            if not self.share.alone:
                rng.bit_generator.state = state
                seen = self._look_asking(drawn, rng, ALONE.rows(count))
            seen = self._answered(seen, rows)
        return seen

    def _look_asking(self, drawn: Seen, rng: np.random.Generator, rows: Rows) -> Seen:
        images = self.source.normalise(drawn.pixels[rows.own])
        if self.classes is None:
            return drawn._replace(taps=self.look(images))
        if self.config.layout == "NCHW":
            images = images.contiguous(memory_format=torch.channels_last)
        taps, asked = self.classes.look(images, self.options.classes_per_image, rng, rows)
        return drawn._replace(taps={"image": images, **taps}, asked=asked)

    def pictures(self) -> list[str]:
        """The files of the pictures seen last."""
        return [] if self._seen is None else sorted({str(self.pool.paths[place]) for place in self._seen.places})

    def _answered(self, seen: Seen, rows: Rows) -> Seen:
        """The pictures with those that the CNN answers with NaN or infinity replaced by others of the same step.

        All of them come in, and the worker's own ones go out. They are reported once; since the exchange depends on the
        step alone, a resumed run makes the same.

        Raises:
            ImageError: the CNN answers none of them with numbers.
        """
        finite = _finite(seen.taps)
        good = torch.nonzero(finite).flatten().tolist()
        for row in torch.nonzero(~finite).flatten().tolist():
            self.pool.note(seen.places[row], "the model answers it, or a part of it, with NaN or infinity; left out")
        if not good:
            files = ", ".join(sorted({str(self.pool.paths[place]) for place in seen.places})[:5])
            raise ImageError(f"the model answers none of these pictures with numbers: {files}; check --preprocess")
        whole = [row if ok else good[row % len(good)] for row, ok in enumerate(finite.tolist())]
        order = torch.tensor(whole[rows.own], device=self.device)
        return Seen(
            seen.key,
            seen.pixels[whole],
            {name: value[order] for name, value in seen.taps.items()},
            None if seen.asked is None else seen.asked.rows(order),
            tuple(seen.places[row] for row in whole),
        )

    def __call__(self, step: int) -> StepResult:
        """Everything of one step but the optimiser's update."""
        rng = np.random.default_rng([self.options.seed, step])
        size = input_size(self.spec, self.options, step)
        _, pixels, taps, asked, _ = self.see(step, self.options, size)
        true_map, rows = taps[self.config.layer], self.share.rows(self.options.images_per_step)
        filters = self.source.filters(true_map, self.options.filters_per_image, self.options.active, rng, rows)
        generated = self.network(taps, filters, None if asked is None else asked.questions)
        pairs = self._pairs(rows, filters, asked)
        mask = self.mask(generated, step, rng, size, pairs)
        hidden = np.zeros(len(pairs.pictures), dtype=np.bool_)
        hidden[pairs.first :] = rng.random(len(hidden) - pairs.first) < REMOVED
        infills, verified = self.source.infills(pixels, pairs.pictures, self.options.mix, rng, pairs.own)
        shown = torch.where(self._on_device(hidden[pairs.own])[:, None, None], 1 - mask, mask)
        masked = blend(taps["image"][pairs.owners], infills, shown, self.config.layout)
        if self.config.layout == "NCHW":
            masked = masked.contiguous(memory_format=torch.channels_last)
        response = self.module(masked)
        others = filters.repeat_interleave(filters.shape[1], dim=0)  # (n K, K): all that are asked of the pair's image
        original = true_map[torch.arange(len(filters), device=self.device)[:, None], filters]  # (n, K, h, w)
        of_filter = torch.arange(filters.numel(), device=self.device)
        masked_maps = response[self.config.layer][of_filter[:, None], others].unflatten(0, tuple(filters.shape))
        changes, area = crosswise_change(masked_maps, original), mask.detach().mean(dim=(1, 2))
        found = Found(changes, original, area, self._judged(verified), generated)
        if self.options.objective.name == "fsagn":
            found = found._replace(mask=mask)
        if self.classes is not None and asked is not None:
            share, told = self.classes.shares(response, infills, asked, filters.numel())
            found = found._replace(share=share, told=told, teacher=asked.teacher)
        found = found.of_all(self.share, rows)
        return self._result(found, self._on_device(hidden[pairs.first :]), taps)

    def _on_device(self, drawn: NDArray[Any]) -> Tensor:
        return torch.from_numpy(drawn).to(self.device)

    def _pairs(self, rows: Rows, filters: Tensor, asked: AskedClasses | None) -> Pairs:
        return pairs_of(rows, filters.shape[1], 0 if asked is None else asked.ids.shape[1], self.device)

    def loss(self, crosswise: Tensor, original: Tensor, mask: Tensor | None) -> Tensor:
        """What is minimised, of changes ``(N, K, K)`` as `crosswise_change` gives them and masks ``(P, H, W)``."""
        objective, change = self.options.objective, torch.diagonal(crosswise, dim1=1, dim2=2).flatten()
        if mask is not None:
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
        true_map, rows = taps[self.config.layer], self.share.rows(self.options.images_per_step)
        filters = self.source.filters(true_map, self.options.filters_per_image, self.options.active, rng, rows)
        generated = self.network(taps, filters, None if asked is None else asked.questions)
        pairs, ids = self._pairs(rows, filters, asked), filters.flatten()
        columns = self._on_device(rng.integers(len(self.areas), size=len(pairs.pictures))[pairs.own])
        ranks = area_rank(flat(generated.saliency, generated.evidence).detach())
        mask = self.source.cut(ranks, self.areas[columns], self.spec.size)
        infills, _ = self.source.infills(pixels, pairs.pictures, {VERIFY: 1.0}, rng, pairs.own)
        response = self.look(blend(taps["image"][pairs.owners], infills, mask, self.config.layout))
        answers, of_filter = response[self.config.layer], torch.arange(len(ids), device=self.device)
        true = retention(relative_change(answers[of_filter, ids], true_map[pairs.owners[: len(ids)], ids]))
        told = torch.ones(len(columns), device=self.device)
        if self.classes is not None and asked is not None:
            share, told[len(ids) :] = self.classes.shares(response, infills, asked, len(ids))
            true = torch.cat((true, share.clamp_min(0)))
        predicted = flat(generated.retention, generated.kept)[torch.arange(len(columns), device=self.device), columns]
        split = [
            part for values in (true, told, predicted) for part in split_pairs(values, rows.number, filters.shape[1])
        ]
        gathered = self.share.gather(rows, *split)
        true, told, predicted = (flat(*gathered[at : at + 2]) for at in (0, 2, 4))
        error = told * (predicted - true)
        loss = functional.huber_loss(error, torch.zeros_like(error), delta=HUBER)
        figures = {"retention": true[: pairs.first].mean(), "area": mask.mean()}
        return StepResult(loss, {**figures, "calibration": error.abs().sum() / told.sum()})

    def mask(
        self, generated: Generated, step: int, rng: np.random.Generator, size: tuple[int, int], pairs: Pairs
    ) -> Tensor:
        """Soft masks ``(P, H, W)``: of drawn areas (``budget``), or the sigmoid of the saliency (``fsagn``)."""
        saliency, objective = flat(generated.saliency, generated.evidence), self.options.objective
        if objective.name == "fsagn":
            return torch.sigmoid(resize(saliency[:, None] + FSAGN_OFFSET, size)[:, 0])
        low, high = np.log(objective.area_range)
        together = generated.saliency.shape[1] if objective.contrast else 1  # pairs of one area
        drawn = rng.uniform(low, high, size=pairs.first // together).repeat(together)
        drawn = np.concatenate([drawn, rng.uniform(low, high, size=len(pairs.pictures) - len(drawn))])
        area = torch.from_numpy(np.exp(drawn[pairs.own]).astype(np.float32))
        done = step / max(1, self.options.steps)
        tau = objective.tau[0] * (objective.tau[1] / objective.tau[0]) ** done
        upsampled = standardise(resize(saliency[:, None], size)[:, 0])
        return soft_mask(upsampled, area.to(self.device), float(tau))

    def _judged(self, verified: Tensor) -> Tensor:
        """Which pairs teach the retention head: those under the infill of `--verify`; all where the mix has none."""
        return verified.float() if VERIFY in self.options.mix else torch.ones_like(verified, dtype=torch.float32)

    def _result(self, found: Found, gone: Tensor, taps: dict[str, Tensor]) -> StepResult:
        """The loss and the figures of all pairs; ``gone`` says which areas of classes were hidden."""
        mask, generated, judged = found.mask, found.generated, found.judged
        change = torch.diagonal(found.crosswise, dim1=1, dim2=2).flatten()
        of_filters = None if mask is None else mask[: len(change)]
        loss, true = self.loss(found.crosswise, found.original, of_filters), retention(change)
        figures = {"retention": true.mean(), "area": found.area[: len(change)].mean()}
        if found.share is not None and found.told is not None:
            of_classes = decision_loss(found.share, found.told, gone)
            if found.teacher is not None:
                of_classes = of_classes + self.options.teacher * teaching_loss(generated.evidence, found.teacher)
            loss = loss + self.options.classes_weight * of_classes
            if mask is not None:
                loss = loss + area_penalty(mask[len(change) :], self.options.objective)
            true = torch.cat((true, found.share.clamp_min(0)))
            judged[len(change) :] *= found.told * ~gone
            figures |= shares_by_kind(found.share, found.told, gone)
        predicted = flat(generated.retention, generated.kept)
        error = interpolate_retention(predicted, self.areas, found.area) - true.detach()
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
        predicted, true = self.share.gather(self.share.rows(self.options.images_per_step), predicted, true)
        return ((predicted - true) / encoder.get_buffer("unit")).square().mean()


def _finite(taps: Mapping[str, Tensor]) -> Tensor:
    """Which pictures the CNN answers with numbers, ``(N,)`` bool."""
    return torch.stack([torch.isfinite(value).flatten(1).all(dim=1) for value in taps.values()]).all(dim=0)


def read(figures: dict[str, Tensor]) -> dict[str, float]:
    """Figures as numbers, in one wait for the device; those of nothing (0 / 0) are left out."""
    values = torch.stack([value.detach() for value in figures.values()]).tolist()
    return {name: value for name, value in zip(figures, values, strict=True) if value == value}
