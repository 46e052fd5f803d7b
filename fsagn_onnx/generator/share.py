"""A worker's share of every step: its own pictures, and what the workers tell each other.

All workers draw the same pairs from seed and step. Each looks at its own pictures, with all pairs of a picture; what
the CNN made of the pairs is then gathered, so that every worker computes the same loss of all pairs. The gradient of
that loss by a worker's own rows is its part of the gradient by the weights, and the parts are added up in the order of
the workers: the same sum for any layout of memory, so that a training goes on bit for bit with as many workers.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import errors
from ..errors import FsagnError


class Rows(NamedTuple):
    """Which pictures of a step are a worker's own.

    Attributes:
        first: number of the first one.
        last: number behind the last one.
        pictures: N, of all workers.
    """

    first: int
    last: int
    pictures: int

    @property
    def own(self) -> slice:
        """For rows of all pictures."""
        return slice(self.first, self.last)

    @property
    def number(self) -> int:
        """How many pictures are its own."""
        return self.last - self.first

    def pairs(self, filters: int, classes: int) -> NDArray[np.int64]:
        """Numbers of a worker's own pairs among all, of K filters and J classes of each picture, filters first."""
        after = self.pictures * filters
        shares = ((0, filters), (after, classes))
        return np.concatenate([start + np.arange(self.first * each, self.last * each) for start, each in shares])


@dataclass(frozen=True)
class Share:
    """One worker among several; alone by default.

    Attributes:
        rank: its number.
        workers: how many there are; with more than one torch's process group must be there.
    """

    rank: int = 0
    workers: int = 1

    @property
    def alone(self) -> bool:
        """Whether this worker has everything to itself."""
        return self.workers == 1

    @property
    def first(self) -> bool:
        """Whether this is the worker that writes files and tells how far the training is."""
        return self.rank == 0

    def rows(self, pictures: int) -> Rows:
        """The worker's own ones of N pictures: whole pictures, as even as they can be shared out."""
        edges = (pictures * self.rank // self.workers, pictures * (self.rank + 1) // self.workers)
        return Rows(*edges, pictures)

    def gather(self, rows: Rows, *own: Tensor) -> tuple[Tensor, ...]:
        """Tensors ``(n, ...)`` of a worker's own pictures -> those ``(N, ...)`` of all pictures, the same everywhere.

        The gradient by its own rows goes on to a worker, the other rows are constants: what all workers then compute
        alike is to be differentiated by each, and the gradients by the weights added up (`joined`).
        """
        if rows.number == rows.pictures:
            return own
        flat = torch.cat([tensor.float().reshape(rows.number, -1) for tensor in own], dim=1)
        whole: Tensor = _Gathered.apply(flat, self, rows.pictures)
        widths = [tensor[:1].numel() for tensor in own]
        parts = zip(torch.split(whole, widths, dim=1), own, strict=True)
        return tuple(part.reshape(rows.pictures, *tensor.shape[1:]).to(tensor.dtype) for part, tensor in parts)

    def collected(self, own: Tensor, pictures: int) -> Tensor:
        """Rows ``(n, F)`` of all workers, in the order of the pictures: ``(N, F)``."""
        counts = [Share(rank, self.workers).rows(pictures).number for rank in range(self.workers)]
        padded = own.new_zeros(max(counts), own.shape[1])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def added(self, own: Tensor) -> Tensor:
        """The sum of everybody's tensors of one shape, added in the order of the workers."""
        parts = [torch.empty_like(own) for _ in range(self.workers)]
        dist.all_gather(parts, own)
        return _total(parts)

    def joined(self, module: nn.Module) -> nn.Module:
        """The module, with everybody's gradients added up in every worker's; alone the module itself.

        It starts from the weights and buffers of the first worker; buffers stay alike, being constants or, in norms,
        of all workers' pictures.
        """
        if self.alone:
            return module
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of kernels of one channel: the same memory
        together = DistributedDataParallel(module, gradient_as_bucket_view=True)
        together.broadcast_buffers = False  # the first worker's at the start only
        together.register_comm_hook(self, lambda share, bucket: _added(share, bucket))  # it reads annotations
        return together

    def once(self, work: Callable[[], Any]) -> Any:
        """What the first worker's call gives, as JSON values, in every worker; its error is everybody's.

        Raises:
            FsagnError: what the call raised.
        """
        if self.alone:
            return work()
        told: dict[str, Any] = {}
        if self.first:
            try:
                told = {"value": work()}
            except FsagnError as error:
                told = {"error": type(error).__name__, "text": str(error)}
        told = self._told(told)
        if "error" in told:
            raise named_error(told["error"], told["text"])
        return told["value"]

    def _told(self, document: dict[str, Any]) -> dict[str, Any]:
        """The first worker's document, in every worker."""
        text = torch.frombuffer(bytearray(json.dumps(document).encode()), dtype=torch.uint8)
        length = torch.tensor(len(text))
        dist.broadcast(length, 0)
        if not self.first:
            text = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, 0)
        found: dict[str, Any] = json.loads(text.numpy().tobytes())
        return found


ALONE = Share()
"""A worker that has everything to itself."""


def named_error(name: str, text: str) -> FsagnError:
    """An error that another process raised, by the name of its class."""
    kind = getattr(errors, name, FsagnError)
    made: FsagnError = kind(text)
    return made


class _Gathered(torch.autograd.Function):
    """Rows of all workers from each one's own; the gradient of a worker's own rows goes back to it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: Share, pictures: int) -> Tensor:
        ctx.rows = share.rows(pictures)
        return share.collected(own, pictures)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.rows.own], None, None


def _added(share: Share, bucket: Any) -> torch.futures.Future[Tensor]:
    """The sum of everybody's gradients, added in the order of the workers."""
    own: Tensor = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(share.workers)]

    work: Any = dist.all_gather(parts, own, async_op=True)
    made: torch.futures.Future[Tensor] = work.get_future().then(lambda _: _total(parts))
    return made


def _total(parts: list[Tensor]) -> Tensor:
    """The sum, in the first of them."""
    summed, *others = parts
    for part in others:
        summed += part
    return summed
