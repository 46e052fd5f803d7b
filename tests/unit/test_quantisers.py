"""What onnxruntime's quantisers and converters write can be inspected, trained and exported, kind by kind."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.inspection.document import inspect_file
from fsagn_onnx.model import load_model
from fsagn_onnx.testing.graph_builder import GraphBuilder

FEW = TrainingOptions(pairs=8, images_per_step=2)
Make = Callable[[Path, Path], None]


class Pictures:
    """Two seeded ones, for onnxruntime's calibration."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self._left: Iterator[dict[str, Any]] = iter(
            [{"image": rng.normal(size=(1, 3, 32, 32)).astype(np.float32)} for _ in range(2)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


def network(path: Path, opset: int = 17, *, swish: bool = False) -> Path:
    b = GraphBuilder()
    value = b.conv(b.conv("image", 3, 8), 8, 16)
    if swish:
        weights = (b.rng.normal(size=(16, 16, 3, 3)) / 8).astype(np.float32)
        value = b.op("Conv", value, b.constant(weights), pads=[1] * 4)
        value = b.op("Mul", value, b.op("Sigmoid", value))
    flat = b.op("Flatten", b.op("GlobalAveragePool", value))
    dense = b.op("Relu", b.op("MatMul", flat, b.constant(b.rng.normal(size=(16, 32)).astype(np.float32))))
    weights = b.rng.normal(size=(10, 32)).astype(np.float32)
    b.op("Gemm", dense, b.constant(weights), b.constant(np.zeros(10, np.float32)), transB=1, out="logits")
    b.save(path, ["logits"], opset=opset)
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path)), path)
    return path


def dynamic(weights: str, *, per_channel: bool) -> Make:
    return lambda source, out: quantize_dynamic(
        str(source), str(out), weight_type=QuantType[weights], per_channel=per_channel
    )


def static(form: str, pixels: str, weights: str, *, per_channel: bool = False, **more: Any) -> Make:
    def make(source: Path, out: Path) -> None:
        kinds = {"activation_type": QuantType[pixels], "weight_type": QuantType[weights]}
        form_ = QuantFormat[form]
        quantize_static(str(source), str(out), Pictures(), quant_format=form_, per_channel=per_channel, **kinds, **more)

    return make


def four_bits(form: str, *, symmetric: bool) -> Make:
    def make(source: Path, out: Path) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            DefaultWeightOnlyQuantConfig,
            MatMulNBitsQuantizer,
        )

        config = DefaultWeightOnlyQuantConfig(block_size=16, is_symmetric=symmetric, quant_format=QuantFormat[form])
        quantiser = MatMulNBitsQuantizer(onnx.load(source), algo_config=config)
        quantiser.process()
        quantiser.model.save_model_to_file(str(out), False)

    return make


def half(*, borders: bool) -> Make:
    def make(source: Path, out: Path) -> None:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=not borders), out)

    return make


CONTRIBUTED = {"UseQDQContribOps": True}
PAIRS = {"DedicatedQDQPair": True}
QUICK = (
    "dynamic, uint8",
    "QDQ, uint8 and int8 per channel",
    "QDQ, uint4",
    "QDQ, contributed",
    "QOperator, int8",
    "QOperator, dense layers alone",
    "4-bit dense layers",
    "half, opset 7",
)
KINDS: dict[str, tuple[int, bool, Make]] = {
    "dynamic, uint8": (17, True, dynamic("QUInt8", per_channel=False)),
    "dynamic, int8 per channel": (17, True, dynamic("QInt8", per_channel=True)),
    "QDQ, uint8 and int8 per channel": (17, True, static("QDQ", "QUInt8", "QInt8", per_channel=True)),
    "QDQ, int8": (17, False, static("QDQ", "QInt8", "QInt8")),
    "QDQ, 16 bits": (17, False, static("QDQ", "QUInt16", "QInt8")),
    "QDQ, uint4": (17, False, static("QDQ", "QUInt8", "QUInt4")),
    "QDQ, int4 per channel": (21, True, static("QDQ", "QUInt8", "QInt4", per_channel=True)),
    "QDQ, 16 and 4 bits": (17, False, static("QDQ", "QUInt16", "QUInt4", per_channel=True)),
    "QDQ, a pair for each reader": (17, True, static("QDQ", "QUInt8", "QInt8", extra_options=PAIRS)),
    "QDQ, contributed": (17, True, static("QDQ", "QUInt8", "QInt8", per_channel=True, extra_options=CONTRIBUTED)),
    "QDQ, convs alone": (17, False, static("QDQ", "QUInt8", "QInt8", op_types_to_quantize=["Conv"])),
    "QOperator, per channel": (17, True, static("QOperator", "QUInt8", "QInt8", per_channel=True)),
    "QOperator, uint8": (17, False, static("QOperator", "QUInt8", "QUInt8")),
    "QOperator, int8": (17, True, static("QOperator", "QInt8", "QInt8")),
    "QOperator, dense layers alone": (
        17, False, static("QOperator", "QUInt8", "QInt8", op_types_to_quantize=["MatMul", "Gemm"])
    ),
    "4-bit dense layers": (17, False, four_bits("QOperator", symmetric=False)),
    "4-bit dense layers, QDQ": (21, False, four_bits("QDQ", symmetric=True)),
    "half, opset 7": (7, False, half(borders=True)),
    "half, opset 8": (8, False, half(borders=True)),
    "half inside, opset 8": (8, False, half(borders=False)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_quantised_or_halved_network_trains(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    opset, swish, make = KINDS[kind]
    caplog.set_level(logging.ERROR)  # the quantisers talk; put back at the end
    source, file = network(tmp_path / "source.onnx", opset, swish=swish), tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(source, file)
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    document = inspect_file(file)
    assert document["trainable"] is True, (document["conversion"], document["trial"])
    model = load_model(file)
    if swish:
        assert model.layers[-1].op.endswith("Swish")
    train(model, [tmp_path / "p.png"], tmp_path / "explainer.onnx", options=FEW)


@pytest.mark.parametrize(("dtype", "kind"), [(TensorProto.INT4, np.int8), (TensorProto.UINT4, np.uint8)])
@pytest.mark.parametrize("block", [0, 2])
def test_weights_of_four_bits_are_what_onnxruntime_makes_of_them(
    tmp_path: Path, dtype: int, kind: type, block: int
) -> None:
    rng, shape = np.random.default_rng(0), (8, 3, 3, 3)
    signed = dtype == TensorProto.INT4
    weights = rng.integers(-8 if signed else 0, 8 if signed else 16, shape).astype(kind)
    sizes = (4, 3, 3, 3) if block else (8,)
    scale = rng.uniform(0.01, 0.1, sizes).astype(np.float32)
    zero = rng.integers(0, 3, sizes).astype(kind)
    tensors = [
        helper.make_tensor("weights", dtype, shape, weights.ravel().tolist()),
        numpy_helper.from_array(scale, "scale"),
        helper.make_tensor("zero", dtype, sizes, zero.ravel().tolist()),
    ]
    b = GraphBuilder()
    attributes = {"axis": 0, "block_size": block} if block else {"axis": 0}
    value = b.op("Conv", "image", b.op("DequantizeLinear", "weights", "scale", "zero", **attributes))
    b.head(b.op("Relu", value), 8)
    b.weights += tensors
    file = b.save(tmp_path / "m.onnx", ["logits"], opset=21)
    proto = onnx.load(file)
    proto.ir_version = 10
    onnx.save(proto, file)
    model = load_model(file)
    assert not any(tensor.data_type == dtype for tensor in model.proto.graph.initializer)
    image = rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
    ours, theirs = (
        onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"image": image})[0]
        for graph in (model.proto, model.source)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert inspect_file(file)["trainable"] is True


@pytest.mark.parametrize("bias", ["integers", "floats"])
@pytest.mark.parametrize("activation", ["Relu", "Relu and Min", "none"])
def test_integer_convs_are_tapped_behind_scale_bias_and_activation(tmp_path: Path, bias: str, activation: str) -> None:
    b = GraphBuilder()
    weights = b.constant(b.rng.integers(-127, 127, (8, 3, 3, 3)).astype(np.int8))
    pixels, scale, zero = (f"pixels{part}" for part in ("", "_scale", "_zero"))
    b.nodes.append(helper.make_node("DynamicQuantizeLinear", ["image"], [pixels, scale, zero]))
    value = b.op("ConvInteger", pixels, weights, zero)
    if bias == "integers":
        value = b.op("Add", value, b.constant(b.rng.integers(-900, 900, (1, 8, 1, 1)).astype(np.int32)))
    value = b.op("Mul", b.op("Cast", value, to=TensorProto.FLOAT), b.op("Mul", scale, b.constant(np.float32(0.01))))
    if bias == "floats":
        value = b.op("Add", value, b.constant(b.rng.normal(size=(1, 8, 1, 1)).astype(np.float32)))
    value = b.op("Relu", value) if activation != "none" else value
    value = b.op("Min", value, b.constant(np.float32(6))) if activation == "Relu and Min" else value
    b.head(b.op("Identity", value), 8)
    file = b.save(tmp_path / "m.onnx", ["logits"])
    (layer,) = load_model(file).layers
    assert layer.value == value
    assert inspect_file(file)["trainable"] is True
