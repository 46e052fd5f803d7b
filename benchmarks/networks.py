"""The models that benchmarks share: the shipped ones, EfficientNet-Lite0, and untrained ones of torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parents[1]
BUILD = Path("build")
DEMO_MODEL = ROOT / "models" / "demo_cnn.onnx"
DEMO_EXPLAINER = ROOT / "models" / "demo_explainer.onnx"


def lite0(folder: Path = BUILD) -> tuple[Path, Path]:
    """EfficientNet-Lite0 and its trained explainer."""
    from fsagn_onnx.models.lite0 import build_lite0, build_lite0_explainer

    folder.mkdir(parents=True, exist_ok=True)
    model = build_lite0(folder / "lite0.onnx")
    return model, build_lite0_explainer(folder / "lite0-explainer.onnx", model=model)


def torchvision_network(name: str, folder: Path, *, batch: str | None = None) -> tuple[nn.Module, Path]:
    """A network of torchvision, untrained, and its export by the classic exporter.

    `batch` names a free first axis; without it the file takes one image at a time.
    """
    import torch
    import torchvision

    folder.mkdir(parents=True, exist_ok=True)
    module: nn.Module = getattr(torchvision.models, name)(weights=None).eval()
    path = folder / f"{name}.onnx"
    example = torch.zeros(2 if batch else 1, 3, 224, 224)
    axes = {"x": {0: batch}} if batch else None
    torch.onnx.export(module, (example,), path, dynamo=False, opset_version=17, input_names=["x"], dynamic_axes=axes)
    return module, path
