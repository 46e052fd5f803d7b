"""One table of tolerances for all parity tests, and how a small graph is converted and run by both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from fsagn_onnx.conversion.assembly import assemble
from fsagn_onnx.conversion.normal_form import rewritten
from fsagn_onnx.conversion.tapped_module import TappedModule
from fsagn_onnx.model.inference_session import inference_session
from fsagn_onnx.model.shapes import static_shapes

Array = npt.NDArray[Any]

TOLERANCE = {
    "exact": 0.0,  # moves elements, or picks some
    "op": 2e-6,  # one op that computes
    "model": 1e-5,  # a small network
    "deep": 1e-4,  # a real network: what `convert` itself allows
}
"""Largest relative error max|a - b| / max|b| of torch (a) against onnxruntime (b); inputs are seeded."""


@pytest.fixture(scope="session")
def tolerance() -> dict[str, float]:
    return TOLERANCE


@pytest.fixture(scope="session")
def draw() -> Callable[..., Array]:
    """Seeded float32 values of a shape, in [low, high)."""

    def draw_(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 20240607) -> Array:
        return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)

    return draw_


@pytest.fixture(scope="session")
def by_torch() -> Callable[..., TappedModule]:
    """A model of one input as a module that returns its own outputs; converted as `convert` does it."""

    def convert_(model: onnx.ModelProto, **sizes: int) -> TappedModule:
        value = model.graph.input[0]
        shape = tuple(d.dim_value or sizes.get(d.dim_param, 1) for d in value.type.tensor_type.shape.dim)
        graph = rewritten(model)
        assembly = assemble(graph, "case.onnx", static_shapes(graph.to_proto(), {value.name: shape}))
        return TappedModule(assembly, value.name, graph.outputs)

    return convert_


@pytest.fixture(scope="session")
def by_onnxruntime() -> Callable[..., list[Array]]:
    """What onnxruntime makes of a model of one input, without graph optimisations, its 8-bit sums exact."""

    def run(model: onnx.ModelProto, x: Array) -> list[Array]:
        session = inference_session(model, threads=1, optimised=False)
        return list(session.run(None, {model.graph.input[0].name: x}))

    return run


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Small tensors: threads only get into each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
