"""What people do to a file after the export: optimise it, fold it, make it half or quantised."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TRANSFORMS: dict[str, Callable[[Path, Path], None]] = {}
"""name -> function(file, new file)."""

CALIBRATION_IMAGES = 4


def _transform(name: str) -> Callable[[Callable[[Path, Path], None]], Callable[[Path, Path], None]]:
    def add(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        TRANSFORMS[name] = function
        return function

    return add


def _optimised(source: Path, target: Path, level: ort.GraphOptimizationLevel) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


@_transform("ort-basic")
def _ort_basic(source: Path, target: Path) -> None:
    _optimised(source, target, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)


@_transform("ort-extended")
def _ort_extended(source: Path, target: Path) -> None:
    _optimised(source, target, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)


@_transform("slim")
def _slim(source: Path, target: Path) -> None:
    """onnxslim: constant folding and fusions in the manner of onnxsim."""
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), target)


@_transform("fp16")
def _fp16(source: Path, target: Path) -> None:
    """onnxruntime's converter; inputs and outputs become half too."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=False), target)


@_transform("fp16-mixed")
def _fp16_mixed(source: Path, target: Path) -> None:
    """The same; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


@_transform("bf16")
def _bf16(source: Path, target: Path) -> None:
    """All float32 tensors and casts become bfloat16 (no tool does this, exporters of bfloat16 modules do)."""
    model = onnx.load(source)

    def narrowed(tensor: onnx.TensorProto) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    for tensor in model.graph.initializer:
        narrowed(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                narrowed(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.BFLOAT16
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    del model.graph.value_info[:]
    onnx.save(model, target)


class _Calibration:
    """Seeded images for onnxruntime's quantiser (its CalibrationDataReader)."""

    def __init__(self, model: onnx.ModelProto) -> None:
        initializers = {tensor.name for tensor in model.graph.initializer}
        value = next(item for item in model.graph.input if item.name not in initializers)
        shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        rng = np.random.default_rng(1)
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        images = [rng.normal(size=shape).astype(dtype) for _ in range(CALIBRATION_IMAGES)]
        self._images: Iterator[dict[str, Any]] = iter([{value.name: image} for image in images])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._images, None)


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """onnxruntime's quantiser logs advice to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _prepared(source: Path, target: Path) -> None:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)


def _static(source: Path, target: Path, form: str, activation: str, weight: str, per_channel: bool) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    prepared = target.with_suffix(".prepared.onnx")
    with _only_errors():
        _prepared(source, prepared)
        quantize_static(
            str(prepared),
            str(target),
            _Calibration(onnx.load(prepared, load_external_data=False)),
            quant_format=QuantFormat[form],
            activation_type=QuantType[activation],
            weight_type=QuantType[weight],
            per_channel=per_channel,
        )
    prepared.unlink()


@_transform("int8-qdq")
def _int8_qdq(source: Path, target: Path) -> None:
    _static(source, target, "QDQ", "QUInt8", "QInt8", per_channel=True)


@_transform("int8-qdq-s8")
def _int8_qdq_s8(source: Path, target: Path) -> None:
    _static(source, target, "QDQ", "QInt8", "QInt8", per_channel=False)


@_transform("int8-qoperator")
def _int8_qoperator(source: Path, target: Path) -> None:
    _static(source, target, "QOperator", "QUInt8", "QInt8", per_channel=True)


@_transform("int8-qoperator-u8")
def _int8_qoperator_u8(source: Path, target: Path) -> None:
    _static(source, target, "QOperator", "QUInt8", "QUInt8", per_channel=False)


@_transform("int8-dynamic")
def _int8_dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = target.with_suffix(".prepared.onnx")
    with _only_errors():
        _prepared(source, prepared)
        quantize_dynamic(str(prepared), str(target), weight_type=QuantType.QUInt8)
    prepared.unlink()
