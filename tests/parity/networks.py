"""Small networks with what ordinary CNNs are made of, and their export by both of torch's exporters."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPORTS = {
    "classic-default": (False, None),
    "classic-11": (False, 11),
    "classic-13": (False, 13),
    "classic-17": (False, 17),
    "dynamo-default": (True, None),
    "dynamo-18": (True, 18),
    "dynamo-23": (True, 23),
}
"""name -> (dynamo, opset)."""


def block(inputs: int, outputs: int, stride: int = 1, groups: int = 1, act: nn.Module | None = None) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), act or nn.ReLU())


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Gated(nn.Module):
    """In the style of MobileNetV3 and PP-LCNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 2, act=nn.Hardswish())
        self.depthwise = block(8, 8, groups=8, act=nn.Hardswish())
        self.gate = Gate(8)
        self.project = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = block(8, 12, 2, act=nn.SiLU())
        self.classes = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.gate(self.depthwise(x)))
        return self.classes(F.adaptive_avg_pool2d(self.head(x), 1))


class Shuffled(nn.Module):
    """In the style of ShuffleNet and Inception: shares, shuffles, pools, concatenates."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8, 2)
        self.left, self.right = block(4, 4), block(4, 4, groups=4)
        self.head = block(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        a, b = x.chunk(2, 1)
        x = torch.cat([self.left(a), self.right(b)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = torch.cat([x, F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)], 1)
        return self.head(x).mean([2, 3])


class Pyramid(nn.Module):
    """In the style of a feature pyramid or U-Net: up, padded, added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(3, 6, 2, act=nn.ReLU6()), block(6, 6, 2, act=nn.LeakyReLU(0.1))
        self.up = nn.ConvTranspose2d(6, 6, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        x = first + F.interpolate(second, scale_factor=2.0, mode="nearest") + self.norm(self.up(second))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.sigmoid(self.last(F.pad(x, (0, 1, 1, 0))))


NETWORKS = {"gated": Gated, "shuffled": Shuffled, "pyramid": Pyramid}


def spread_norms(network: nn.Module) -> nn.Module:
    """Batch norm statistics and weights far from where they start, so that folding them wrongly shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def export(
    network: nn.Module,
    path: Path,
    *,
    dynamo: bool,
    opset: int | None,
    size: int = 32,
    unfused: bool = False,
) -> Path:
    """Export as users do: fixed size and batch of 1. `unfused`: batch norm stays a node of its own."""
    x = torch.zeros(1, 3, size, size)
    given = {} if opset is None else {"opset_version": opset}
    if unfused:
        given |= {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    if dynamo:
        given |= {"external_data": False, "verbose": False}
    with warnings.catch_warnings():
        if not dynamo:  # it is deprecated, which is why it is tested, and tells what it cannot fold
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.filterwarnings("ignore", "Constant folding - Only steps=1", UserWarning)
        torch.onnx.export(network, (x,), str(path), dynamo=dynamo, input_names=["x"], **given)
    return path
