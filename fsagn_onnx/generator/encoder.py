"""Two encoders behind one decoder: the frozen CNN's own taps, or a small network that sees only the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.masks import grid_of
from .config import GeneratorConfig

OWN_WIDTHS = (24, 48, 96, 128, 160)
"""Channels of the own encoder at strides 2, 4, 8, 16 and 32."""


class Encoded(NamedTuple):
    """What the decoder reads.

    Attributes:
        levels: normalised features, deepest first, each ``(N, c, h_i, w_i)``.
        feature_map: ``(N, C, fh, fw)``, the explained layer's (own encoder: its prediction of it).
        grid: ``(h, w)`` of the generator's grid.
        whole: as ``feature_map``, of all filters of the layer where that holds some only.
    """

    levels: list[Tensor]
    feature_map: Tensor
    grid: tuple[int, int]
    whole: Tensor


class SharedEncoder(nn.Module):
    """Reads the frozen CNN's taps; each is divided by a fixed scale per channel, measured before training."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = [tap.channels for tap in config.taps]
        for index, tap in enumerate(config.taps):
            self.register_buffer(f"scale{index}", torch.ones(1, tap.channels, 1, 1))

    def calibrate(self, taps: dict[str, Tensor]) -> None:
        """Set each channel's scale to its root mean square over a batch (floored at a tenth of the tap's own)."""
        for index, tap in enumerate(self.config.taps):
            power = taps[tap.value].float().square().mean(dim=(0, 2, 3), keepdim=True)
            rms = power.sqrt().clamp_min(0.1 * float(power.mean().sqrt()) + 1e-8)
            self.get_buffer(f"scale{index}").copy_(1 / rms)

    def forward(self, inputs: dict[str, Tensor]) -> Encoded:
        """Levels from the taps; the grid follows from the explained layer's stride."""
        maps = [inputs[tap.value] for tap in self.config.taps]
        levels = [level * self.get_buffer(f"scale{index}") for index, level in enumerate(maps)]
        image = inputs["image"]
        rows, columns = (-2, -1) if self.config.layout == "NCHW" else (-3, -2)
        grid = grid_of((image.shape[rows], image.shape[columns]), self.config.stride)
        return Encoded(levels, maps[0], grid, maps[0])


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class OwnEncoder(nn.Module):
    """A small conv encoder of the generator's own; it predicts the explained layer's feature map from the image.

    The prediction is trained by regression on the true feature map; chosen filters and peaks are those of the
    prediction, so the file needs nothing but the image.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        deepest = max(config.taps[0].stride, config.stride)
        blocks, kept, inputs, stride = [], [], config.input_channels, 1
        for width in OWN_WIDTHS:
            if stride >= deepest:
                break
            blocks.append(_block(inputs, width))
            inputs, stride = width, stride * 2
            kept.append((stride, width))
        self.blocks = nn.ModuleList(blocks)
        self.kept = [level for level in kept if level[0] >= config.stride] or kept[-1:]
        self.channels = [width for _, width in reversed(self.kept)]
        self.to_feature_map = nn.Conv2d(inputs, config.filters, 1)
        self.register_buffer("unit", torch.ones(1, config.filters, 1, 1))

    def calibrate(self, taps: dict[str, Tensor]) -> None:
        """Set the unit of each predicted filter to its root mean square over a batch."""
        power = taps[self.config.layer].float().square().mean(dim=(0, 2, 3), keepdim=True)
        self.get_buffer("unit").copy_(power.sqrt().clamp_min(0.1 * float(power.mean().sqrt()) + 1e-8))

    def forward(self, inputs: dict[str, Tensor]) -> Encoded:
        """Levels and the predicted feature map from ``inputs["image"]``."""
        image = inputs["image"]
        level = image if self.config.layout == "NCHW" else image.permute(0, 3, 1, 2)
        grid = grid_of((level.shape[-2], level.shape[-1]), self.config.stride)
        levels: list[Tensor] = []
        stride = 1
        for block in self.blocks:
            level = block(level)
            stride *= 2
            if stride >= self.kept[0][0]:
                levels.append(level)
        feature_map = F.relu(self.to_feature_map(level)) * self.get_buffer("unit")
        return Encoded(levels[::-1], feature_map, grid, feature_map)
