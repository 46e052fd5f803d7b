"""The pairs of a step: which picture each is of, which are a worker's own, and what was found of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .network import Generated
from .share import Rows, Share


class Pairs(NamedTuple):
    """The pairs of a step, those of a filter before those of a class; each kind by picture.

    Attributes:
        pictures: ``(P,)``, the picture of every pair of every worker.
        own: numbers of the worker's own pairs among these.
        owners: ``(p,)``, the picture of its own pairs, counted among its own pictures.
        first: number of the first pair of a class among all.
    """

    pictures: Tensor
    own: NDArray[np.int64]
    owners: Tensor
    first: int


def pairs_of(rows: Rows, filters: int, classes: int, device: torch.device) -> Pairs:
    """The pairs of K filters and J classes of each picture."""
    pictures = np.concatenate([np.arange(rows.pictures).repeat(count) for count in (filters, classes)])
    own = rows.pairs(filters, classes)
    owners = torch.from_numpy(pictures[own] - rows.first).to(device)
    return Pairs(torch.from_numpy(pictures).to(device), own, owners, rows.pictures * filters)


def flat(filters: Tensor, classes: Tensor) -> Tensor:
    """What is known of all pairs, those of a filter first: ``(N, K, ...)``, ``(N, J, ...)`` -> ``(N K + N J, ...)``."""
    return torch.cat((filters.flatten(0, 1), classes.flatten(0, 1)))


class Found(NamedTuple):
    """What a step's pairs give, before it becomes a loss; of N pictures, K filters and J classes of each.

    Attributes:
        crosswise: ``(N, K, K)``, see `crosswise_change`.
        original: ``(N, K, h, w)`` feature maps of the whole pictures.
        area: ``(P,)``, mean of the mask of every pair.
        judged: ``(P,)``, 1 for pairs that teach the retention head.
        generated: of the pictures.
        share: ``(N J,)`` share of the decision that is kept, see `share_kept`; None without classes.
        told: ``(N J,)`` whether it can be told, likewise.
        teacher: ``(N, J, h, w)`` maps that teach the evidence; None without.
        mask: ``(P, H, W)`` of all pairs, where the objective asks for more of it than its area; else None.
    """

    crosswise: Tensor
    original: Tensor
    area: Tensor
    judged: Tensor
    generated: Generated
    share: Tensor | None = None
    told: Tensor | None = None
    teacher: Tensor | None = None
    mask: Tensor | None = None

    def of_all(self, share: Share, rows: Rows) -> Found:
        """The same of all workers' pictures; with gradients by the worker's own, see `Share.gather`."""
        if share.alone:
            return self
        count, generated = self.original.shape[1], self.generated
        by_pair = {"area": self.area, "judged": self.judged}
        by_pair |= {} if self.mask is None else {"mask": self.mask}
        by_class = {"share": self.share, "told": self.told}
        by_picture = {"crosswise": self.crosswise, "original": self.original, "teacher": self.teacher}
        own = {name: tensor for name, tensor in by_picture.items() if tensor is not None}
        own |= {name: tensor.reshape(rows.number, -1) for name, tensor in by_class.items() if tensor is not None}
        for name, tensor in by_pair.items():
            own[f"{name} filters"], own[f"{name} classes"] = split_pairs(tensor, rows.number, count)
        own |= {f"generated {name}": getattr(generated, name) for name in ("retention", "kept", "evidence")}
        whole = dict(zip(own, share.gather(rows, *own.values()), strict=True))
        made: dict[str, Any] = {name: flat(whole[f"{name} filters"], whole[f"{name} classes"]) for name in by_pair}
        made |= {name: whole[name].flatten(0, 1) for name in by_class if name in whole}
        made |= {name: whole[name] for name in by_picture if name in whole}
        gathered = {name: whole[f"generated {name}"] for name in ("retention", "kept", "evidence")}
        return self._replace(**made, generated=generated._replace(**gathered))


def split_pairs(values: Tensor, pictures: int, filters: int) -> tuple[Tensor, Tensor]:
    """``(n K + n J, ...)`` of all pairs of n pictures -> ``(n, K, ...)``, ``(n, J, ...)``."""
    first = pictures * filters
    classes = (len(values) - first) // pictures
    rest = values.shape[1:]
    return values[:first].reshape(pictures, filters, *rest), values[first:].reshape(pictures, classes, *rest)
