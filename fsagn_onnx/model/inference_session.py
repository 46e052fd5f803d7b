"""Makes every onnxruntime session of the package: quiet, and with 8-bit sums that are exact on every processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from .eight_bit_sums import with_exact_sums

__all__ = ["EXACT_SUMS", "ORT_ERRORS", "inference_session", "sums_saturate"]

EXACT_SUMS: Final = "session.x64quantprecision"
"""onnxruntime's session option: in optimised graphs int8 weights become uint8."""

_FATAL: Final = 4  # of onnxruntime's log severities

# onnxruntime's exceptions have no common base of their own.
ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    *{kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)},
    RuntimeError,
    ValueError,
)
"""What onnxruntime raises when it cannot build or run a graph."""


def inference_session(
    graph: str | bytes | onnx.ModelProto,
    *,
    threads: int | None = None,
    optimised: bool = True,
    exact: bool | None = None,
    providers: Sequence[str | tuple[str, Mapping[str, Any]]] = ("CPUExecutionProvider",),
    config: Mapping[str, str] | None = None,
    **settings: Any,
) -> onnxruntime.InferenceSession:
    """A session.

    Args:
        graph: path, content or model; a model where it is not optimised and has 8-bit sums.
        threads: inside an operator; None leaves it to onnxruntime.
        optimised: let onnxruntime change the graph.
        exact: move int8 weights up to uint8, by `EXACT_SUMS` or, in a graph that is not optimised, `with_exact_sums`;
            None: where this processor's sums saturate. Elsewhere sums are the same and take longer.
        providers: onnxruntime's.
        config: further session options by name.
        settings: further attributes of onnxruntime.SessionOptions.

    Raises:
        Exception: one of `ORT_ERRORS`.
    """
    exact = sums_saturate() if exact is None else exact
    if exact and not optimised and isinstance(graph, onnx.ModelProto):
        graph = with_exact_sums(graph)
    content = graph.SerializeToString() if isinstance(graph, onnx.ModelProto) else graph

    def make(exact: bool) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        if not optimised:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if threads is not None:
            options.intra_op_num_threads = threads
        for name, value in settings.items():
            setattr(options, name, value)
        for key, text in {**(config or {}), EXACT_SUMS: "1" if exact else "0"}.items():
            options.add_session_config_entry(key, text)
        return onnxruntime.InferenceSession(content, options, providers=list(providers), enable_fallback=0)

    try:
        return make(exact)
    except ort_errors.NotImplemented:
        # The option moves the weights of int8 x int8 operators too, and there are no kernels for int8 x uint8. Their
        # sums are exact without it.
        if not exact:
            raise
    return make(exact=False)


@cache
def sums_saturate() -> bool:
    """Whether this processor's uint8 x int8 sums saturate in 16 bits; asked of onnxruntime by 64 products."""
    weights = numpy_helper.from_array(np.full((64, 16), 127, np.int8), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["pixels", "weights"], ["sums"])],
        "probe",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 64])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [1, 16])],
        [weights],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    session = inference_session(model, threads=1, optimised=False, exact=False)
    (sums,) = session.run(None, {"pixels": np.full((1, 64), 255, np.uint8)})
    return bool((sums != 64 * 255 * 127).any())
