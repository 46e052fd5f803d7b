"""Small ONNX graphs for tests, written node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class GraphBuilder:
    """A small graph, node by node; weights are drawn, the same every time."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: object) -> str:
        """Add an initializer; returns its name."""
        self.weights.append(numpy_helper.from_array(np.asarray(values), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def op(self, kind: str, *inputs: str, out: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        name = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def conv(self, value: str, before: int, after: int) -> str:
        """A 3x3 conv of stride 2 and its ReLU."""
        weights = (self.rng.normal(size=(after, before, 3, 3)) / np.sqrt(before * 9) * 1.4).astype(np.float32)
        made = self.op("Conv", value, self.constant(weights), strides=[2, 2], pads=[1] * 4)
        return self.op("Relu", made)

    def head(self, value: str, channels: int, out: str = "logits") -> str:
        """Global pooling and a linear classifier of ten classes."""
        weights = self.rng.normal(size=(10, channels)).astype(np.float32)
        flat = self.op("Flatten", self.op("GlobalAveragePool", value))
        return self.op("Gemm", flat, self.constant(weights), self.constant(np.zeros(10, np.float32)), transB=1, out=out)

    def save(self, path: Path, outputs: list[str], size: int = 32, domain: str | None = None, batch: int | str = "N",
             more: tuple[str, ...] = (), opset: int = 17) -> Path:  # fmt: skip
        """Write the graph: a float image (batch, 3, size, size), further inputs of that shape, float outputs."""

        def value(name: str, shape: list[int | str] | None) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        inputs = [value(name, [batch, 3, size, size]) for name in ("image", *more)]
        graph = helper.make_graph(self.nodes, "g", inputs, [value(name, None) for name in outputs], self.weights)
        opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path
