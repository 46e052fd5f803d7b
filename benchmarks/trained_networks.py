"""The networks of the synthetic parts set with their explainers: the demo CNN, and a VGG-like and a ResNet-like one.

Those that the repository lacks are trained, like the demo CNN but for less long.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import DEMO_EXPLAINER, DEMO_MODEL
from benchmarks.plan import Plan, trained
from fsagn_onnx.data.files import write_file
from fsagn_onnx.models.train_demo_cnn import (
    Settings,
    accuracy,
    augment,
    batches,
    export,
    normalise,
    progress,
    render_split,
)
from fsagn_onnx.testing.synthetic import CLASSES, write_folder

TRAINING_PICTURES = 2_000
SETTINGS = Settings(epochs=10, images=6_000, held_out=1_000)


class VggLike(nn.Module):
    """Pairs of 3x3 convs with max pooling between them (Simonyan & Zisserman 2015), batch norm, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
        before = 24
        for width in (32, 64, 96):
            for source in (before, width):
                layers += [nn.Conv2d(source, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            before = width
        layers.pop()  # the last map stays at stride 8
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, 128, 128) -> (N, 10) logits; the last map is (N, 96, 16, 16)."""
        logits: Tensor = self.classifier(self.layers(image).mean(dim=(2, 3)))
        return logits


class _Residual(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        same = before == width and stride == 1
        project = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity() if same else project

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNetLike(nn.Module):
    """Basic residual blocks (He et al. 2016) at strides 4, 8 and 16, batch norm, global pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        sizes = ((24, 48, 2), (48, 48, 1), (48, 80, 2), (80, 80, 1), (80, 96, 2), (96, 96, 1))
        self.blocks = nn.Sequential(*(_Residual(*size) for size in sizes))
        self.classifier = nn.Linear(96, len(CLASSES))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, 128, 128) -> (N, 10) logits; the last map is (N, 96, 8, 8)."""
        logits: Tensor = self.classifier(self.blocks(self.stem(image)).mean(dim=(2, 3)))
        return logits


NETWORKS: dict[str, Any] = {"vgg": VggLike, "resnet": ResNetLike}
NAMES = ("demo", *NETWORKS)


def trained_network(name: str, out: Path, threads: int, device: str = "cpu") -> Path:
    """Train a network on rendered pictures and write it as ONNX, with its accuracy beside it; reuses what is there."""
    if out.exists():
        return out
    torch.set_num_threads(threads)
    torch.manual_seed(SETTINGS.seed)
    generator = torch.Generator().manual_seed(SETTINGS.seed)
    pixels, labels = render_split("train", SETTINGS.images)
    model = NETWORKS[name]().to(device, memory_format=torch.channels_last)
    steps = SETTINGS.epochs * (len(pixels) // SETTINGS.batch)
    optimizer = torch.optim.AdamW(model.parameters(), SETTINGS.learning_rate, weight_decay=SETTINGS.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, SETTINGS.learning_rate, total_steps=steps, pct_start=0.2)
    source, target = torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device)
    for epoch in range(1, SETTINGS.epochs + 1):
        right = seen = 0
        for index in batches(len(pixels), SETTINGS.batch, generator):
            with torch.autocast(source.device.type, torch.bfloat16):
                logits = model(augment(normalise(source[index]), generator)).float()
            loss = nn.functional.cross_entropy(logits, target[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            right, seen = right + int((logits.argmax(1) == target[index]).sum()), seen + len(index)
            progress(f"{name}: epoch {epoch}/{SETTINGS.epochs}, accuracy {right / seen:.3f}")
        progress(f"{name}: epoch {epoch}/{SETTINGS.epochs}, training accuracy {right / seen:.4f}", last=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    content = export(model.eval().cpu())
    candidate = out.with_name(f"{out.stem}.candidate.onnx")
    write_file(candidate, [content])
    found = accuracy(candidate, *render_split("test", SETTINGS.held_out))
    out.with_suffix(".json").write_text(json.dumps({"test_accuracy": found}) + "\n", encoding="utf-8")
    print(f"{name}: accuracy {found:.4f} on {SETTINGS.held_out} held-out pictures", flush=True)
    candidate.replace(out)
    return out


def subject(network: str, plan: Plan) -> tuple[Path, Path]:
    """Model and explainer: the repository's demo CNN, or a network and its explainer trained under ``plan.out``."""
    torch.set_num_threads(plan.threads)
    train = plan.out / "train"
    if network == "demo":
        model = DEMO_MODEL
        if plan.pairs is None and plan.explainer is None:
            return model, DEMO_EXPLAINER
    else:
        model = trained_network(network, plan.out / f"{network}.onnx", plan.threads)
    if plan.explainer is None and not (train / "names.json").exists():
        write_folder(train, "train", TRAINING_PICTURES)
    return model, trained(model, [train / "images"], plan)


def default_subject(network: str, explainer: Path | None = None) -> tuple[Path, Path]:
    """The same on one thread, where `synthetic.py` keeps it too; unless an explainer is given, it is trained."""
    return subject(network, Plan(Path("build/datasets/synthetic"), explainer, None, 0, "", "", 0, 1))
