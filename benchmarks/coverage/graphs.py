"""Small graphs written node by node: padding, rounding, dilation, groups, ranks, every way to resize."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Constant = Any


@dataclass(frozen=True)
class Graph:
    """One op between two convolutions: x (N, 3, 17, 19) -> Conv, Relu -> the op -> Conv -> y.

    Attributes:
        name, family: how it is listed.
        op, attributes, constants: the node; constants are its inputs behind the first (None: left out).
        opset: of the file.
        head: whether a conv reads its output (not where its rank or its width differ).
        reshape: shape that the op's input gets first (4 channels, (8, 9) cells per image).
    """

    name: str
    family: str
    op: str
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[Constant, ...] = ()
    opset: int = 17
    head: int = 4
    reshape: tuple[int, ...] = ()

    def write(self, path: Path) -> None:
        """Write the file."""
        rng = np.random.default_rng(3)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 17, 19])
        tensors = [_tensor("w0", rng.normal(size=(4, 3, 3, 3)) / 5), _tensor("b0", rng.normal(size=4) / 5)]
        nodes = [
            helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="first", strides=[2, 2]),
            helper.make_node("Relu", ["c0"], ["r0"], name="relu"),
        ]
        value = "r0"
        if self.reshape:
            tensors.append(numpy_helper.from_array(np.array(self.reshape, np.int64), "shape"))
            nodes.append(helper.make_node("Reshape", [value, "shape"], ["shaped"], name="reshaped"))
            value = "shaped"
        given = [(f"c{index + 1}", constant) for index, constant in enumerate(self.constants)]
        names = ["" if constant is None else name for name, constant in given]
        tensors += [numpy_helper.from_array(np.asarray(c), name) for name, c in given if c is not None]
        nodes.append(helper.make_node(self.op, [value, *names], ["op"], name="the op", **self.attributes))
        last = "op"
        if self.head:
            tensors.append(_tensor("w9", rng.normal(size=(5, self.head, 1, 1)) / 2))
            nodes.append(helper.make_node("Conv", ["op", "w9"], ["last"], name="last"))
            last = "last"
        y = helper.make_empty_tensor_value_info(last)
        graph = helper.make_graph(nodes, "hand", [x], [y], tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9), path)


def _tensor(name: str, array: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, np.float32), name)


def _weight(*shape: int) -> Any:
    return (np.random.default_rng(7).normal(size=shape) / 3).astype(np.float32)


def _ints(*values: int) -> Any:
    return np.array(values, np.int64)


def _floats(*values: float) -> Any:
    return np.array(values, np.float32)


def _convolutions() -> Iterator[Graph]:
    w = _weight(4, 4, 3, 3)
    for name, attributes in {
        "even pads": {"pads": [1, 1, 1, 1]},
        "one-sided pads": {"pads": [0, 1, 2, 0], "strides": [2, 1]},
        "SAME_UPPER": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        "SAME_LOWER": {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        "VALID": {"auto_pad": "VALID"},
        "dilated": {"dilations": [2, 3], "pads": [2, 3, 2, 3]},
    }.items():
        yield Graph(f"conv {name}", "convolution", "Conv", attributes, (w,))
    yield Graph("conv 2 groups", "convolution", "Conv", {"group": 2}, (_weight(4, 2, 3, 3),))
    yield Graph("conv depthwise", "convolution", "Conv", {"group": 4, "pads": [1] * 4}, (_weight(4, 1, 3, 3),))
    yield Graph("conv 1x7", "convolution", "Conv", {"pads": [0, 3, 0, 3]}, (_weight(4, 4, 1, 7),), opset=22)
    line, cube = (0, 4, -1), (0, 2, 2, 8, 9)
    yield Graph("conv 1-D", "convolution", "Conv", {"pads": [1, 0]}, (_weight(4, 4, 3),), head=0, reshape=line)
    yield Graph("conv 3-D", "convolution", "Conv", {"pads": [1] * 6}, (_weight(4, 2, 3, 3, 3),), head=0, reshape=cube)
    up = _weight(4, 4, 3, 3)
    for name, attributes in {
        "stride 2": {"strides": [2, 2]},
        "output padding": {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]},
        "one-sided pads": {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        "output shape": {"strides": [2, 2], "output_shape": [16, 18]},
        "SAME_UPPER": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        "SAME_LOWER": {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        "dilated": {"dilations": [2, 1]},
    }.items():
        yield Graph(f"transposed {name}", "transposed conv", "ConvTranspose", attributes, (up,))
    yield Graph("transposed groups", "transposed conv", "ConvTranspose", {"group": 2}, (_weight(4, 2, 2, 2),))
    yield Graph(
        "transposed 1-D",
        "transposed conv",
        "ConvTranspose",
        {"strides": [2]},
        (_weight(4, 4, 3),),
        head=0,
        reshape=line,
    )
    yield Graph(
        "transposed 3-D", "transposed conv", "ConvTranspose", {}, (_weight(2, 2, 2, 2, 2),), head=0, reshape=cube
    )


def _pools() -> Iterator[Graph]:
    shapes: dict[str, dict[str, Any]] = {
        "padded": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        "one-sided": {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 1, 2, 0]},
        "ceil": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        "ceil, last window in the padding": {
            "kernel_shape": [2] * 2,
            "strides": [3] * 2,
            "pads": [1] * 4,
            "ceil_mode": 1,
        },
        "SAME_UPPER": {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        "SAME_LOWER": {"kernel_shape": [2, 4], "strides": [1, 3], "auto_pad": "SAME_LOWER"},
    }
    for name, attributes in shapes.items():
        yield Graph(f"max pool {name}", "pooling", "MaxPool", attributes)
        yield Graph(f"average pool {name}", "pooling", "AveragePool", attributes)
        yield Graph(
            f"average pool {name}, pads count", "pooling", "AveragePool", {**attributes, "count_include_pad": 1}
        )
    dilated = {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2] * 4}
    yield Graph("max pool dilated", "pooling", "MaxPool", dilated)
    yield Graph("average pool dilated", "pooling", "AveragePool", dilated, opset=19)
    yield Graph("l2 pool", "pooling", "LpPool", {"kernel_shape": [3, 3], "strides": [2, 2], "p": 2, "pads": [1] * 4})
    yield Graph("global max pool", "pooling", "GlobalMaxPool")
    yield Graph("global l2 pool", "pooling", "GlobalLpPool")


def _others() -> Iterator[Graph]:
    pads = _ints(0, 0, 2, 3, 0, 0, 1, 2)
    for mode in ("constant", "reflect", "edge"):
        yield Graph(f"pad {mode}", "padding", "Pad", {"mode": mode}, (pads,))
    yield Graph("pad wrap", "padding", "Pad", {"mode": "wrap"}, (pads,), opset=19)
    yield Graph("pad with 2.5", "padding", "Pad", {}, (pads, np.float32(2.5)))
    yield Graph("crop by negative pads", "padding", "Pad", {}, (_ints(0, 0, -1, 0, 0, 0, 1, -2),))
    yield Graph("pad two axes", "padding", "Pad", {}, (_ints(1, 2, 3, 0), None, _ints(-1, 2)), opset=18)
    yield Graph("local response", "norm", "LRN", {"size": 3, "alpha": 0.1, "beta": 0.75, "bias": 2.0})
    yield Graph("instance norm", "norm", "InstanceNormalization", {"epsilon": 1e-3}, (_weight(4), _weight(4)))
    yield Graph("group norm", "norm", "GroupNormalization", {"num_groups": 2}, (_weight(4), _weight(4)), opset=21)
    yield Graph("layer norm", "norm", "LayerNormalization", {"axis": -1}, (_weight(9), _weight(9)))
    yield Graph("RMS norm", "norm", "RMSNormalization", {"axis": -1}, (_weight(9),), opset=23)
    yield Graph("lp norm", "norm", "LpNormalization", {"axis": 1, "p": 2})
    yield Graph("mean variance norm", "norm", "MeanVarianceNormalization", opset=13)
    yield Graph("depth to space DCR", "rearranging", "DepthToSpace", {"blocksize": 2, "mode": "DCR"}, head=1)
    yield Graph("depth to space CRD", "rearranging", "DepthToSpace", {"blocksize": 2, "mode": "CRD"}, head=1)
    yield Graph("space to depth", "rearranging", "SpaceToDepth", {"blocksize": 1})
    yield Graph("tile", "rearranging", "Tile", {}, (_ints(1, 2, 1, 2),), head=8)
    for op in ("Selu", "Softsign", "HardSwish", "Mish", "Softplus", "Celu", "LogSoftmax", "Hardmax"):
        yield Graph(op, "activation", op, opset=18)
    yield Graph("Shrink", "activation", "Shrink", {"lambd": 0.3, "bias": 0.1})
    yield Graph("thresholded relu", "activation", "ThresholdedRelu", {"alpha": 0.5})
    yield Graph("PRelu", "activation", "PRelu", {}, (_weight(4, 1, 1),))


COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
)  # fmt: skip


def _resizes() -> Iterator[Graph]:
    roi = _floats(0, 0, 0.1, 0.2, 1, 1, 0.9, 0.7)
    for mode in ("nearest", "linear", "cubic"):
        for where in COORDINATES:
            shared = {"mode": mode, "coordinate_transformation_mode": where}
            crop, crop_axes = (roi, roi[[2, 3, 6, 7]]) if where == "tf_crop_and_resize" else (None, None)
            name = f"resize {mode} {where}"
            yield Graph(f"{name} up", "resize", "Resize", shared, (crop, _floats(1, 1, 2, 2)), opset=19)
            sized = {**shared, "axes": [2, 3]}
            yield Graph(f"{name} to sizes", "resize", "Resize", sized, (crop_axes, None, _ints(5, 13)), opset=19)
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        shared = {"mode": "nearest", "nearest_mode": nearest}
        yield Graph(f"resize {nearest}", "resize", "Resize", shared, (None, _floats(1, 1, 1.7, 0.6)), opset=13)
    for mode in ("linear", "cubic"):
        shared = {"mode": mode, "antialias": 1}
        yield Graph(f"resize {mode} antialias", "resize", "Resize", shared, (None, _floats(1, 1, 0.6, 0.7)), opset=18)
    for policy in ("not_larger", "not_smaller"):
        shared = {"mode": "linear", "keep_aspect_ratio_policy": policy, "axes": [2, 3]}
        yield Graph(f"resize {policy}", "resize", "Resize", shared, (None, None, _ints(12, 20)), opset=18)
    yield Graph("resize opset 10", "resize", "Resize", {"mode": "linear"}, (_floats(1, 1, 2, 3),), opset=10)
    yield Graph("upsample opset 9", "resize", "Upsample", {"mode": "nearest"}, (_floats(1, 1, 2, 2),), opset=9)
    yield Graph("upsample opset 7", "resize", "Upsample", {"mode": "linear", "scales": [1.0, 1.0, 2.0, 2.0]}, opset=7)


GRAPHS: tuple[Graph, ...] = (*_convolutions(), *_pools(), *_others(), *_resizes())
