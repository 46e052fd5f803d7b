"""Whole networks as both of torch's exporters write them: every tappable layer, and the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fsagn_onnx.conversion import check_parity, convert
from fsagn_onnx.conversion.parity import relative_error
from fsagn_onnx.model import load_model

from . import networks


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(network, export name) -> (the torch network, its ONNX file); made once."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def get(name: str, how: str, unfused: bool = False):
        key = f"{name}-{how}{'-unfused' if unfused else ''}"
        if key not in made:
            dynamo, opset = networks.EXPORTS[how]
            torch.manual_seed(0)
            network = networks.spread_norms(networks.NETWORKS[name]())
            path = folder / f"{key}.onnx"
            networks.export(network, path, dynamo=dynamo, opset=opset, unfused=unfused)
            made[key] = network, path
        return made[key]

    return get


@pytest.mark.parametrize("how", networks.EXPORTS)
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_layer_and_output_agrees(exported, name, how, tolerance, draw):
    network, path = exported(name, how)
    model = load_model(path)
    module = convert(model, [layer.value for layer in model.layers], outputs=True)
    parity = check_parity(model, module)
    assert parity.max_relative_error <= tolerance["model"]
    assert set(parity.errors) >= {layer.value for layer in model.layers}
    for shape in ((1, 3, 32, 32), (3, 3, 32, 32), (2, 3, 48, 64)):  # the file says (1, 3, 32, 32)
        x = torch.from_numpy(draw(*shape))
        with torch.no_grad():
            ours, theirs = module(x)[model.outputs[0].name], network(x)
        assert relative_error(ours.numpy(), theirs.numpy()) <= tolerance["model"], shape


def test_unfused_batch_norm_is_folded_and_agrees(exported, tolerance):
    _, path = exported("gated", "classic-17", unfused=True)
    model = load_model(path)
    assert "BatchNormalization" in {node.op_type for node in model.proto.graph.node}
    module = convert(model, [layer.value for layer in model.layers])
    assert "BatchNormalization" not in {step.op for step in module.steps}
    assert check_parity(model, module).max_relative_error <= tolerance["model"]


def test_a_conv_before_its_batch_norm_can_be_tapped(exported, tolerance):
    _, path = exported("gated", "classic-17", unfused=True)
    model = load_model(path)
    module = convert(model, [model.layers[0].conv, model.layers[0].value])
    assert "BatchNormalization" in {step.op for step in module.steps}
    assert check_parity(model, module).max_relative_error <= tolerance["model"]


def test_gradient_of_the_image_is_that_of_the_network(exported, draw, tolerance):
    network, path = exported("pyramid", "classic-17")
    module = convert(load_model(path), [onnx.load(path).graph.output[0].name])
    gradients = []
    for run in (lambda x: next(iter(module(x).values())), network):
        x = torch.from_numpy(draw(2, 3, 32, 32)).requires_grad_()
        weights = torch.from_numpy(draw(*run(x).shape, seed=1))
        (gradient,) = torch.autograd.grad((run(x) * weights).sum(), x)
        gradients.append(gradient.numpy())
    assert relative_error(*gradients) <= tolerance["model"]
    assert np.abs(gradients[1]).max() > 0


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.mark.parametrize(
    "name",
    [
        "light_shufflenet",
        pytest.param("light_bvlc_alexnet", marks=pytest.mark.slow),
        pytest.param("light_densenet121", marks=pytest.mark.slow),
        pytest.param("light_inception_v1", marks=pytest.mark.slow),
        pytest.param("light_inception_v2", marks=pytest.mark.slow),
        pytest.param("light_resnet50", marks=pytest.mark.slow),
        pytest.param("light_squeezenet", marks=pytest.mark.slow),
    ],
)
def test_old_exports_of_other_frameworks(name, tolerance):
    """Caffe2-era graphs, opset 9 and below, out of the onnx wheel."""
    model = load_model(LIGHT / f"{name}.onnx")
    module = convert(model, [layer.value for layer in model.layers], check=False)
    assert check_parity(model, module).max_relative_error <= tolerance["deep"]
