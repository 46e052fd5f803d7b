"""Half precision where it pays: convolutions and what lies between them; ranks, peaks and retention stay float32.

onnxruntime's own converter (onnxruntime.transformers.float16) writes each cast once per consumer and so makes invalid
graphs of values with several, which every tapped value is.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...errors import ExplainerError
from ...runtime.contract import PREFIX
from .precision import PlainExplainer, precision

ANCHORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that always compute in half precision (small convolutions of the generator excepted)."""

FOLLOWERS = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "DepthToSpace", "Dropout", "Elu", "Flatten", "Gelu",
    "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mish", "Mul", "PRelu", "Pad",
    "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softplus", "SpaceToDepth", "Split", "Squeeze", "Sub", "Sum",
    "Tanh", "Transpose", "Unsqueeze",
})  # fmt: skip
"""Operators that do where all their computed inputs are in half precision already."""

FLOAT32_INPUTS = {"Resize": (1, 2)}
"""Inputs that are float32 by the operator's definition."""

LARGEST = float(np.finfo(np.float16).max)
NARROWEST = 8
"""Input channels from which a convolution of the generator is worth computing in half precision."""


def half_precision(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an explainer that computes its convolutions in float16; inputs and outputs stay float32.

    Raises:
        ExplainerError: a weight does not fit into float16, or the graph's types cannot be inferred.
    """
    try:
        full = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise ExplainerError(f"fp16: the graph's types cannot be inferred: {str(error).splitlines()[0]}") from error
    return _Halving(full).run()


class _Halving:
    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto, self.graph = proto, proto.graph
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        values = (*self.graph.input, *self.graph.output, *self.graph.value_info)
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.floats |= {name for name, tensor in self.weights.items() if tensor.data_type == TensorProto.FLOAT}
        self.halves: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.made: set[str] = set()

    def run(self) -> onnx.ModelProto:
        """Rewrite the nodes in their order."""
        for node in self.graph.node:
            if self._is_half(node):
                self._to_half(node)
            else:
                for name in node.input:
                    self._need_float(name)
            self.nodes.append(node)
        for value in self.graph.output:
            self._need_float(value.name)
        self._drop_unused()
        return self.proto

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if not all(name in self.floats for name in node.output if name):
            return False
        if node.op_type in ANCHORS:
            if not (node.output[0].startswith(PREFIX) and node.op_type == "Conv"):
                return not node.output[0].startswith(PREFIX)
            weight = self.weights.get(node.input[1])
            return weight is not None and (weight.dims[1] >= NARROWEST or self._follows(node))
        return node.op_type in FOLLOWERS and self._follows(node)

    def _follows(self, node: onnx.NodeProto) -> bool:
        computed = [name for name in node.input if name in self.floats and name not in self.weights]
        return bool(computed) and all(name in self.halves for name in computed)

    def _to_half(self, node: onnx.NodeProto) -> None:
        kept = FLOAT32_INPUTS.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name in self.floats and place not in kept:
                node.input[place] = self._half(name)
        for place, name in enumerate(node.output):
            if name:
                self.halves.add(name)
                node.output[place] = _half_name(name)

    def _half(self, name: str) -> str:
        """The float16 twin of a value, made where it does not exist yet."""
        half = _half_name(name)
        if name not in self.halves and half not in self.made:
            self.made.add(half)
            if name in self.weights:
                self._half_weight(name, half)
            else:
                self.nodes.append(helper.make_node("Cast", [name], [half], name=half, to=TensorProto.FLOAT16))
        return half

    def _half_weight(self, name: str, half: str) -> None:
        array = numpy_helper.to_array(self.weights[name])
        bounded = np.clip(array, -LARGEST, LARGEST) if not np.isfinite(array).all() else array
        if np.abs(bounded).max(initial=0) > LARGEST:
            raise ExplainerError(f"fp16: weight '{name}' reaches {np.abs(array).max():.3g}, float16 ends at 65504")
        self.graph.initializer.append(numpy_helper.from_array(bounded.astype(np.float16), half))

    def _need_float(self, name: str) -> None:
        if name in self.halves and name not in self.made:
            self.made.add(name)
            cast = helper.make_node("Cast", [_half_name(name)], [name], name=f"{name}/float", to=TensorProto.FLOAT)
            self.nodes.append(cast)

    def _drop_unused(self) -> None:
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        for part, items in ((self.graph.node, self.nodes), (self.graph.initializer, kept)):
            copies = [type(item).FromString(item.SerializeToString()) for item in items]
            del part[:]
            part.extend(copies)
        del self.graph.value_info[:]


def _half_name(name: str) -> str:
    return f"{name}/half"


@precision("fp16")
def lower_to_half(plain: PlainExplainer) -> onnx.ModelProto:
    """See `half_precision`."""
    return half_precision(plain.proto)
