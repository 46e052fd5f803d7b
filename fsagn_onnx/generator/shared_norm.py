"""Batch norms whose statistics are those of all workers' pictures, on any device; torch's own needs a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .share import Share


class SharedNorm(nn.BatchNorm2d):
    """A batch norm over the pictures of all workers; like one over all of them on one device but for the order of sums.

    Args:
        plain: the norm that it takes the place of, with its weights and running statistics.
        share: of the worker.
    """

    def __init__(self, plain: nn.BatchNorm2d, share: Share) -> None:
        super().__init__(plain.num_features, eps=plain.eps, momentum=plain.momentum)
        self.load_state_dict(plain.state_dict())
        self.share = share

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``(n, C, h, w)``; in training by the mean and variance of everybody's."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(features)
        count = features.new_tensor([features.numel() // features.shape[1]])
        sums: Tensor = _Summed.apply(torch.cat((features.sum(dim=(0, 2, 3)), count)), self.share)
        mean, total = sums[:-1] / sums[-1], sums[-1].detach()
        centred = features - mean[:, None, None]
        squares: Tensor = _Summed.apply(centred.square().sum(dim=(0, 2, 3)), self.share)
        variance = squares / total
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(squares / (total - 1), self.momentum or 0.0)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


class _Summed(torch.autograd.Function):
    """The sum of all workers' values, and of their gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, share: Share) -> Tensor:
        ctx.share = share
        return share.added(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.share.added(gradients[0].contiguous()), None


def share_norms(module: nn.Module, share: Share) -> None:
    """Put a `SharedNorm` in the place of every batch norm within a module."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SharedNorm(child, share))
        else:
            share_norms(child, share)
