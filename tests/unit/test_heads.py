"""The default layer of networks that predict per place: detectors, segmentation, backbones without a head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.model import Layer, load_model


class Net:
    """A graph under construction over an image (1, 3, 64, 64)."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def tensor(self, values: object) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(values), f"t{len(self.tensors)}"))
        return self.tensors[-1].name

    def node(self, op: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def conv(self, x: str, inputs: int, channels: int, stride: int = 1, out: str = "") -> str:
        weight = self.tensor(np.ones((channels, inputs, 3, 3), np.float32))
        return self.node("Conv", x, weight, out=out, strides=[stride] * 2, pads=[1] * 4)

    def block(self, x: str, inputs: int, channels: int, stride: int = 1, out: str = "") -> str:
        return self.node("Relu", self.conv(x, inputs, channels, stride), out=out)

    def double(self, x: str) -> str:
        return self.node("Resize", x, "", self.tensor(np.array([1, 1, 2, 2], np.float32)), mode="nearest")


Default = Callable[..., Layer]


@pytest.fixture
def default(tmp_path: Path) -> Default:
    def chosen(net: Net, *outputs: str) -> Layer:
        graph = helper.make_graph(
            net.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            net.tensors,
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "net.onnx"
        )
        return load_model(tmp_path / "net.onnx").default_layer

    return chosen


def pyramid(net: Net) -> tuple[str, str]:
    """Backbone at strides 4, 8, 16; top-down path; maps for heads at strides 8 and 16."""
    c8 = net.block(net.block(net.block("x", 3, 4, 2), 4, 4, 2), 4, 8, 2, out="c8")
    c16 = net.block(c8, 8, 8, 2, out="c16")
    joined = net.node("Add", net.double(c16), net.conv(c8, 8, 8))
    return net.block(joined, 8, 8, out="p8"), net.block(c16, 8, 8, out="p16")


def flat(net: Net, x: str, channels: int) -> str:
    return net.node("Reshape", x, net.tensor(np.array([1, channels, -1])))


def test_a_detector_s_default_is_the_layer_before_all_heads(default: Default) -> None:
    net, boxes, scores = Net(), [], []
    for level in pyramid(net):
        tower = net.block(level, 8, 8)
        boxes.append(flat(net, net.node("Exp", net.conv(tower, 8, 4)), 4))
        scores.append(flat(net, net.node("Sigmoid", net.conv(tower, 8, 5)), 5))
    corners = net.node("MatMul", net.tensor(np.eye(4, dtype=np.float32)), net.node("Concat", *boxes, axis=2))
    net.node("Identity", corners, out="boxes")
    net.node("Concat", *scores, axis=2, out="scores")
    layer = default(net, "boxes", "scores")
    assert layer.value == "c16"
    assert layer.reason.startswith("last conv layer that all 4 predicting ones are computed from (4x4); 8 filters; ")


def test_a_two_stage_detector_is_not_led_by_its_proposals(default: Default) -> None:
    net = Net()
    features = net.block(net.block("x", 3, 4, 2), 4, 8, 2, out="features")
    tower = net.block(features, 8, 8, out="tower")
    scores, boxes = flat(net, net.conv(tower, 8, 1), 1), flat(net, net.conv(tower, 8, 4), 4)
    net.nodes.append(helper.make_node("TopK", [scores, net.tensor(np.array([5]))], ["best", "places"]))
    chosen = net.node("Gather", boxes, net.node("Reshape", "places", net.tensor(np.array([-1]))), axis=2)
    rois = net.node("Reshape", chosen, net.tensor(np.array([5, 4])))
    pooled = net.node("RoiAlign", features, rois, net.tensor(np.zeros(5, np.int64)))
    weight = net.tensor(np.ones((8, 40), np.float32))
    net.node("Gemm", net.node("Flatten", net.node("GlobalAveragePool", pooled)), weight, out="classes")
    assert default(net, "classes").value == "tower"


def test_a_segmentation_s_default_is_the_layer_before_the_mask(default: Default) -> None:
    net = Net()
    deep = net.block(net.block("x", 3, 4, 2), 4, 8, 2)
    last = net.block(net.double(deep), 8, 8, out="last")
    net.node("Softmax", net.double(net.conv(last, 8, 5)), axis=1, out="mask")
    layer = default(net, "mask")
    assert layer.value == "last"
    assert layer.reason == "last conv layer before the one that predicts (32x32); 8 filters; 1 conv layer behind it"


def test_an_auxiliary_output_does_not_count(default: Default) -> None:
    net = Net()
    middle = net.block("x", 3, 4, 2)
    helping = net.conv(net.block(middle, 4, 4), 4, 5, out="aux")
    net.conv(net.block(net.block(middle, 4, 4), 4, 4, out="last"), 4, 5, out="mask")
    assert default(net, "mask", helping).value == "last"


def test_predictions_that_are_added_up_are_one(default: Default) -> None:
    net = Net()
    middle = net.block("x", 3, 4, 2)
    last = net.block(middle, 4, 4, out="last")
    net.node("Add", net.conv(middle, 4, 5), net.conv(last, 4, 5), out="mask")
    assert default(net, "mask").value == "last"


def test_a_backbone_without_a_head_has_its_last_layer(default: Default) -> None:
    net = Net()
    first = net.block("x", 3, 4, 2)
    last = net.block(first, 4, 4)
    joined = net.node("Relu", net.node("Add", net.conv(last, 4, 4, out="residual"), last))
    assert default(net, first, joined).value == "residual"


def test_a_single_conv_is_its_own_default(default: Default) -> None:
    net = Net()
    only = net.conv("x", 3, 4)
    assert default(net, only).value == only
