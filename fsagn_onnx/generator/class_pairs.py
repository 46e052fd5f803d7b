"""Pairs of a picture and a class in training: which classes, their gradients, and what a mask keeps of the decision.

A class is judged by the decision itself: share kept = (d(x') - d(b)) / (d(x) - d(b)), b the wholly infilled picture.
Half of the pairs show the area alone (the share should be high), half hide it (the share should be low).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..conversion import TappedModule
from .decision import DecisionValue
from .questions import Questions, ask
from .share import ALONE, Rows
from .teacher import GradientTeacher

PLAUSIBLE: Final = 5
"""Classes are drawn among so many with the highest scores."""

FIRST: Final = 0.6
"""How often the class with the highest score is drawn."""

SMALLEST_GAP: Final = 1.0
"""A class whose decision the infilled picture moves by less (in log-odds) teaches nothing."""

LEAST_SHARE, MOST_SHARE = -0.2, 1.0
"""Shares beyond these give no gradient."""


class AskedClasses(NamedTuple):
    """Classes drawn for the pictures of a step.

    Attributes:
        ids: ``(N, J)`` int64.
        decision: ``(N, J)``, d_c of the whole pictures.
        questions: about them.
        teacher: ``(N, J, h, w)`` what teaches the evidence maps, on their grid; None without.
    """

    ids: Tensor
    decision: Tensor
    questions: Questions
    teacher: Tensor | None

    def rows(self, order: Tensor) -> AskedClasses:
        """The same of some pictures, by number."""
        maps, weights, phi = self.questions
        teacher = None if self.teacher is None else self.teacher[order]
        questions = Questions(maps[order], weights[order], None if phi is None else phi[order])
        return AskedClasses(self.ids[order], self.decision[order], questions, teacher)


def joined_classes(parts: Sequence[AskedClasses]) -> AskedClasses:
    """What was asked of several groups of pictures, as of one."""
    asked = [part.questions for part in parts]
    shares = [found.contributions for found in asked if found.contributions is not None]
    teachers = [part.teacher for part in parts if part.teacher is not None]
    return AskedClasses(
        torch.cat([part.ids for part in parts]),
        torch.cat([part.decision for part in parts]),
        Questions(
            torch.cat([found.maps for found in asked]),
            torch.cat([found.weights for found in asked]),
            torch.cat(shares) if shares else None,
        ),
        torch.cat(teachers) if teachers else None,
    )


def _filled_up(rows: Tensor, size: int) -> Tensor:
    """So many rows: the last one repeated."""
    return torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])


def draw_classes(numbers: Tensor, count: int, rng: np.random.Generator, rows: Rows | None = None) -> Tensor:
    """Draw J classes for every picture: the best one, or one of those behind it.

    Args:
        numbers: ``(N, classes)`` decision values.
        count: J.
        rng: source of randomness.
        rows: which of a step's pictures these are; None: all.

    Returns:
        ``(N, J)`` int64; without repetition where there are as many classes.
    """
    most = min(PLAUSIBLE, numbers.shape[1])
    order = numbers.topk(most, dim=1).indices.cpu()
    chances = np.array([FIRST, *[(1 - FIRST) / max(1, most - 1)] * (most - 1)])
    chances /= chances.sum()
    rows = rows or ALONE.rows(len(numbers))
    drawn = [rng.choice(most, size=count, replace=most < count, p=chances) for _ in range(rows.pictures)]
    places = drawn[rows.own]
    return order.gather(1, torch.from_numpy(np.stack(places))).to(numbers.device)


def fill_classes(numbers: Tensor, classes: Tensor) -> Tensor:
    """Fill every -1 with the class of the highest score not asked for by id.

    Args:
        numbers: ``(N, classes)`` decision values.
        classes: ``(N, J)`` int64.
    """
    free = classes < 0
    struck = F.pad(numbers, (0, 1)).scatter(1, torch.where(free, numbers.shape[1], classes), -torch.inf)
    ranked = torch.sort(struck[:, :-1], dim=1, descending=True, stable=True).indices
    slot = (free.long().cumsum(dim=1) - 1).clamp(0, numbers.shape[1] - 1)
    return torch.where(free, ranked.gather(1, slot), classes)


class ClassJudge:
    """Asks about classes of whole pictures, and judges masked ones by the decision.

    Args:
        module: the frozen CNN; gives the taps and the decision's value.
        decision: where the decision is read.
        layer: the explained layer.
        teacher: which gradients teach the evidence maps; None: the decision alone.
    """

    def __init__(
        self, module: TappedModule, decision: DecisionValue, layer: str, teacher: GradientTeacher | None = None
    ) -> None:
        self.module, self.decision, self.layer, self.teacher = module, decision, layer, teacher

    def look(
        self, images: Tensor, count: int, rng: np.random.Generator, rows: Rows | None = None
    ) -> tuple[dict[str, Tensor], AskedClasses]:
        """The taps of whole pictures ``(N, ...)``, and J classes of each, drawn, with their decisions' gradients."""
        return self.ask(images, lambda numbers: draw_classes(numbers, count, rng, rows))

    def ask(self, images: Tensor, choose: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], AskedClasses]:
        """The same with classes ``(N, J)`` chosen from the decision values ``(N, classes)``."""
        size = self.module.chunk
        if size is not None and len(images) != size:
            return self._ask_in_groups(images, size, choose)
        depths = () if self.teacher is None else self.teacher.depths
        first = self.teacher.finest if self.teacher is not None else self.layer
        leaves: list[Tensor] = []

        def watch(name: str, value: Tensor) -> Tensor | None:
            if name != first:
                return None
            leaves.append(value.detach().requires_grad_())
            return leaves[-1]

        wanted = [self.layer, *depths]
        with torch.enable_grad():
            taps = self.module(images, watch=watch)
            numbers = taps[self.decision.value]
            ids = choose(self.decision(numbers.detach()))
            values, gradients = [], []
            for column in ids.T:
                decided = self.decision.of(numbers, column)
                values.append(decided.detach())
                gradients.append(torch.autograd.grad(decided.sum(), [taps[key] for key in wanted], retain_graph=True))
        taps = {name: value.detach() for name, value in taps.items()}
        by_depth = [torch.stack(found, dim=1) for found in zip(*gradients, strict=True)]  # (N, J, C, h, w) each
        questions = ask(taps[self.layer], by_depth[0], decided=True)
        taught = None
        if self.teacher is not None:
            taught = self.teacher.map(images, [taps[key] for key in depths], by_depth[1:])
        return taps, AskedClasses(ids, torch.stack(values, dim=1), questions, taught)

    def _ask_in_groups(
        self, images: Tensor, size: int, choose: Callable[[Tensor], Tensor]
    ) -> tuple[dict[str, Tensor], AskedClasses]:
        """`ask` for a CNN of a fixed batch: gradients pass inside of a group only."""
        with torch.no_grad():
            chosen = choose(self.decision(self.module(images)[self.decision.value]))
        found = []
        for part, ids in zip(torch.split(images, size), torch.split(chosen, size), strict=True):
            whole = (_filled_up(ids, size), _filled_up(part, size))
            found.append(self.ask(whole[1], lambda numbers, ids=whole[0]: ids))  # type: ignore[misc]
        kept = torch.arange(len(images))
        taps = {name: torch.cat([taps[name] for taps, _ in found])[kept] for name in found[0][0]}
        return taps, joined_classes([asked for _, asked in found]).rows(kept)

    def shares(
        self, response: dict[str, Tensor], infills: Tensor, asked: AskedClasses, first: int
    ) -> tuple[Tensor, Tensor]:
        """What `share_kept` gives for the pairs of a class.

        Args:
            response: taps of all masked pictures.
            infills: of all pairs.
            asked: the classes.
            first: number of the first pair of a class.
        """
        ids, value = asked.ids.flatten(), self.decision.value
        with torch.no_grad():
            infilled = self.decision.of(self.module(infills[first:])[value], ids)
        return share_kept(self.decision.of(response[value][first:], ids), asked.decision.flatten(), infilled)


def share_kept(masked: Tensor, whole: Tensor, infilled: Tensor) -> tuple[Tensor, Tensor]:
    """The share of the decision that a masked picture keeps, and whether it can be told.

    Args:
        masked: ``(P,)``, d(x').
        whole: ``(P,)``, d(x).
        infilled: ``(P,)``, d(b).

    Returns:
        ``(P,)`` shares within `LEAST_SHARE`..`MOST_SHARE`, and ``(P,)`` 1 where d(x) - d(b) is large enough, else 0.
    """
    gap = whole - infilled
    told = (gap >= SMALLEST_GAP).to(masked.dtype)
    share = (masked - infilled) / gap.clamp_min(SMALLEST_GAP)
    return share.clamp(LEAST_SHARE, MOST_SHARE), told


def decision_loss(share: Tensor, told: Tensor, removed: Tensor) -> Tensor:
    """Mean of 1 - share where the area is shown alone, and of the share where it is hidden; 0 where none can be told.

    Args:
        share: ``(P,)``, see `share_kept`.
        told: ``(P,)``.
        removed: ``(P,)`` bool, the area is hidden.
    """
    loss = torch.where(removed, share, 1 - share)
    return (told * loss).sum() / told.sum().clamp_min(1)


def shares_by_kind(share: Tensor, told: Tensor, removed: Tensor) -> dict[str, Tensor]:
    """Mean shares of the decision with the area alone (``kept``) and without it (``removed``); NaN of none."""
    parts = (("kept", told * ~removed), ("removed", told * removed))
    return {name: (part * share).sum() / part.sum() for name, part in parts}
