"""Segmentation and detection: tapped in backbone and neck, whatever follows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architectures import pictures, spread
from .exporting import export
from .files import Made


class _Segmenter(nn.Module):
    """Only the output that users take."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.network(x)["out"]
        return made


def _double(inputs: int, outputs: int) -> nn.Module:
    parts: list[nn.Module] = []
    for width in (inputs, outputs):
        parts += [nn.Conv2d(width, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*parts)


class UNet(nn.Module):
    """Three levels, transposed convs up, skips concatenated."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 16, 32)
        self.down = nn.ModuleList([_double(3, 8), _double(8, 16), _double(16, 32)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths)])
        self.join = nn.ModuleList([_double(16, 8), _double(32, 16)])
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for index, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for level in (1, 0):
            x = self.join[level](torch.cat([skips[level], self.up[level](x)], 1))
        return self.last(x)


def _unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.SiLU())


class Split(nn.Module):
    """A cross-stage block: halves, bottlenecks on one of them, all joined."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        half = width // 2
        self.first, self.last = _unit(width, width, 1), _unit(half * (2 + blocks), width, 1)
        self.blocks = nn.ModuleList([nn.Sequential(_unit(half, half), _unit(half, half)) for _ in range(blocks)])

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """In the manner of anchor-free YOLOs: CSP backbone, SPPF, FPN and PAN, distribution over distances, decode, NMS."""

    def __init__(self, classes: int = 4, bins: int = 8, nms: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(_unit(3, 16, 3, 2), _unit(16, 32, 3, 2), Split(32, 1))
        self.third = nn.Sequential(_unit(32, 64, 3, 2), Split(64, 2))
        self.fourth = nn.Sequential(_unit(64, 128, 3, 2), Split(128, 1))
        self.squeeze, self.spread = _unit(128, 64, 1), _unit(256, 128, 1)
        self.lateral, self.top_down = _unit(128, 64, 1), Split(128, 1)
        self.reduce, self.bottom_up = _unit(128, 128, 3, 2), Split(256, 1)
        self.heads = nn.ModuleList([nn.Conv2d(width, 4 * bins + classes, 1) for width in (128, 256)])
        self.bins, self.classes, self.nms = bins, classes, nms

    def _neck(self, x: Tensor) -> tuple[Tensor, Tensor]:
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        pools = [self.squeeze(fourth)]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        fourth = self.spread(torch.cat(pools, 1))
        up = F.interpolate(self.lateral(fourth), scale_factor=2.0, mode="nearest")
        fine = self.top_down(torch.cat([third, up], 1))
        return fine, self.bottom_up(torch.cat([fourth, self.reduce(fine)], 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        boxes, scores = [], []
        for level, (head, part) in enumerate(zip(self.heads, self._neck(x), strict=True)):
            made = head(part)
            n, _, h, w = made.shape
            sides = made[:, : 4 * self.bins].reshape(n, 4, self.bins, h * w).softmax(2)
            sides = (sides * torch.arange(self.bins, dtype=x.dtype).reshape(1, 1, -1, 1)).sum(2)  # (n, 4, h w)
            row, column = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
            centre = torch.stack([column, row]).reshape(1, 2, h * w)
            boxes.append(torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], 1) * (8 * 2**level))
            scores.append(made[:, 4 * self.bins :].reshape(n, self.classes, h * w).sigmoid())
        box, score = torch.cat(boxes, 2).transpose(1, 2), torch.cat(scores, 2)
        if not self.nms:
            return box, score
        from torchvision.ops import nms

        best, label = score[0].max(0)
        kept = nms(box[0], best, 0.5)
        return box[0][kept], best[kept], label[kept]


def _segmentation(name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from torchvision.models import segmentation

        torch.manual_seed(0)
        made = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5)
        network = _Segmenter(made)
        spread(network, pictures(64))
        export(network.eval(), 64, exporter_of(name), path)

    return write


def exporter_of(name: str) -> str:
    """DeepLab goes through dynamo, the others through the classic exporter."""
    return "dynamo" if "deeplab" in name else "classic-17"


def _module(make: Callable[[], nn.Module], exporter: str, size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.manual_seed(0)
        network = make()
        spread(network, pictures(size))
        if isinstance(network, Yolo) and network.nms:
            _export_single(network.eval(), size, path)
        else:
            export(network.eval(), size, exporter, path)

    return write


def _export_single(network: nn.Module, size: int, path: Path) -> None:
    """The classic exporter at a batch of one, as detectors with NMS are written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.rand(1, 3, size, size)
        torch.onnx.export(network, (x,), str(path), dynamo=False, opset_version=17, input_names=["image"])


_DETECTORS: dict[str, tuple[int, dict[str, Any]]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": (320, {}),
    "fasterrcnn_resnet50_fpn": (128, {"min_size": 128, "max_size": 128}),
    "maskrcnn_resnet50_fpn": (128, {"min_size": 128, "max_size": 128}),
    "keypointrcnn_resnet50_fpn": (128, {"min_size": 128, "max_size": 128}),
    "retinanet_resnet50_fpn": (128, {"min_size": 128, "max_size": 128}),
    "fcos_resnet50_fpn": (128, {"min_size": 128, "max_size": 128}),
    "ssdlite320_mobilenet_v3_large": (320, {}),
    "ssd300_vgg16": (300, {}),
}
"""name -> (edge of the input, arguments)."""


def _detector(name: str) -> Callable[[Path], None]:
    size, arguments = _DETECTORS[name]

    def write(path: Path) -> None:
        from torchvision.models import detection

        torch.manual_seed(0)
        classes = {} if name.startswith("keypoint") else {"num_classes": 5}
        network = getattr(detection, name)(weights=None, weights_backbone=None, **classes, **arguments)
        spread(network.backbone, pictures(size))
        _export_single(network.eval(), size, path)

    return write


def files() -> list[Made]:
    """All of them."""
    made = [
        Made(name, "segmentation", exporter_of(name), _segmentation(name))
        for name in ("deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large")
    ]
    made.append(
        Made("unet", "segmentation", "classic-17", _module(UNet, "classic-17", 64), ("", "int8-qdq", "int8-qoperator"))
    )
    made.append(Made("unet", "segmentation", "dynamo", _module(UNet, "dynamo", 64)))
    made += [Made(name, "detection", "classic-17", _detector(name), outputs=False) for name in _DETECTORS]
    raw, whole = (lambda: Yolo(nms=False)), Yolo
    changes = ("", "slim", "ort-extended", "int8-qdq", "int8-qoperator", "fp16")
    made.append(Made("yolo", "detection", "classic-17", _module(raw, "classic-17", 64), changes))
    made.append(Made("yolo", "detection", "dynamo", _module(raw, "dynamo", 64)))
    made.append(Made("yolo with NMS", "detection", "classic-17", _module(whole, "classic-17", 64), outputs=False))
    return made
