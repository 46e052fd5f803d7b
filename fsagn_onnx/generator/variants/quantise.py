"""8-bit integers: static quantisation of the model's own layers by onnxruntime, calibrated on images.

The generator's nodes stay float32: they are a small part of the work, and their order of cells is what is asked for. So
does what comes behind the last layers: a detector that joins boxes in pixels and scores in one value would have one
scale for both, and no score between 0 and 1.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ...errors import ExplainerError
from ...model.topology import Topology
from ...runtime.contract import CLASSES, FILTERS
from .precision import PlainExplainer, precision

QUANTISED = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool",
    "Mul", "Relu", "Sigmoid",
)  # fmt: skip
LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def ancestors(proto: onnx.ModelProto, value: str) -> set[str]:
    """Outputs of all nodes that a value depends on, itself included."""
    maker = {name: node for node in proto.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [value]
    while waiting:
        name = waiting.pop()
        if name in maker and name not in found:
            found.update(maker[name].output)
            waiting.extend(maker[name].input)
    return found


def before_layers(proto: onnx.ModelProto) -> set[str]:
    """Outputs of the layers, and of all nodes that one of them depends on: nothing that only decodes their answers."""
    topology = Topology(proto.graph)
    layers = [node for node in topology.nodes if node.op_type in LAYERS]
    needed = topology.ancestors([name for node in layers for name in node.input])
    return {name for node in (*layers, *(topology.nodes[index] for index in needed)) for name in node.output}


def quantised(
    proto: onnx.ModelProto, image: str, feature_map: str, outputs: Sequence[str], batch: NDArray[np.float32]
) -> onnx.ModelProto:
    """A copy of an explainer whose layers compute in 8 bits (QDQ: uint8 activations, int8 weights per channel).

    Args:
        proto: the float32 explainer.
        image: name of the image input.
        feature_map: value name of the explained layer.
        outputs: the model's own outputs in the file.
        batch: (n, ...) preprocessed calibration images; ranges are the smallest and largest values seen.

    Raises:
        ExplainerError: onnxruntime cannot quantise the graph.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    there = {value.name for value in proto.graph.input}
    asked = {name: np.full((1, 1), -1, dtype=np.int64) for name in (FILTERS, CLASSES) if name in there}

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.place = 0

        def get_next(self) -> dict[str, Any] | None:
            if self.place == len(batch):
                return None
            self.place += 1
            return {image: batch[self.place - 1 : self.place], **asked}

    keys = [(entry.key, entry.value) for entry in proto.metadata_props]
    with tempfile.TemporaryDirectory(prefix="fsagn-") as folder, _quiet():
        plain, ready, small = (str(Path(folder) / name) for name in ("plain.onnx", "ready.onnx", "small.onnx"))
        onnx.save(proto, plain)
        try:
            quant_pre_process(plain, ready, skip_symbolic_shape=True)
            prepared = onnx.load(ready)
            inside = set().union(*(ancestors(prepared, value) for value in (feature_map, *outputs)))
            inside &= before_layers(prepared) | {feature_map}
            quantize_static(
                ready,
                small,
                Images(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[node.name for node in prepared.graph.node if node.output[0] not in inside],
            )
        except (RuntimeError, ValueError, KeyError, AssertionError, NotImplementedError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ExplainerError(
                f"int8: onnxruntime cannot quantise the graph: {reason}; use --precision fp16"
            ) from error
        result = onnx.load(small)
    del result.metadata_props[:]
    onnx.helper.set_model_props(result, dict(keys))
    used = {node.domain or "" for node in result.graph.node}
    imports = [entry for entry in result.opset_import if entry.domain in used]
    del result.opset_import[:]
    result.opset_import.extend(imports)
    return result


@contextlib.contextmanager
def _quiet() -> Any:
    """Onnxruntime's quantisation tells about itself through the root logger and print; nobody asked."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@precision("int8", calibrated=True)
def lower_to_int8(plain: PlainExplainer) -> onnx.ModelProto:
    """See `quantised`."""
    return quantised(plain.proto, plain.image, plain.feature_map, plain.outputs, plain.batch)
