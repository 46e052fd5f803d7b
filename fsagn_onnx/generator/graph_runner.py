"""Runs a graph once or a few times to prove it, in as little memory as that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch

from ..errors import ExplainerError
from ..model.inference_session import ORT_ERRORS, inference_session
from ..runtime.fixed_batch import fixed_size, in_batches
from ..runtime.session import DTYPES, cast
from ..runtime.tuning import first_line


def graph_runner(
    content: bytes, *, optimised: bool = True, group: int | None = None
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What computes all outputs of a graph on the CPU, on as many threads as torch has, and keeps no memory between.

    Args:
        content: The model.
        optimised: Let onnxruntime change the graph. That moves numbers at a rounding threshold of a quantised model.
        group: Images at a time; None: the batch that the graph declares, all at once where it declares none.

    Returns:
        A function of {input: array}; what the graph has no input for is left out. It raises what this does.

    Raises:
        ExplainerError: onnxruntime refuses the graph.
    """
    graph = content if optimised else onnx.load_from_string(content)

    def refused(error: Exception) -> ExplainerError:
        return ExplainerError(f"export: onnxruntime refuses the graph: {first_line(error)}; no file written")

    try:
        session = inference_session(
            graph, threads=torch.get_num_threads(), optimised=optimised, enable_cpu_mem_arena=False
        )
    except ORT_ERRORS as error:
        raise refused(error) from error
    ports, names = session.get_inputs(), [port.name for port in session.get_outputs()]
    batch = group or fixed_size(tuple(dim if isinstance(dim, int) else None for dim in port.shape) for port in ports)

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(None, dict(feeds)), strict=True))

    def compute(feeds: Mapping[str, Any]) -> dict[str, Any]:
        try:
            wanted = {port.name: cast(feeds[port.name], DTYPES.get(port.type)) for port in ports}
            return run(wanted) if batch is None else in_batches(run, wanted, batch)
        except ORT_ERRORS as error:
            raise refused(error) from error

    return compute


def run_graph(
    content: bytes, feeds: Mapping[str, Any], *, optimised: bool = True, group: int | None = None
) -> dict[str, Any]:
    """All outputs of a graph, once; see `graph_runner`.

    Raises:
        ExplainerError: onnxruntime refuses the graph.
    """
    return graph_runner(content, optimised=optimised, group=group)(feeds)
