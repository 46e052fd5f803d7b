"""Functions of a file are counted before they are written out."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.errors import ModelError
from fsagn_onnx.model import load_model, read_proto
from fsagn_onnx.model.local_functions import MAX_NODES, check_functions

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def function(name: str, *calls: str) -> onnx.FunctionProto:
    """Calls functions one after the other, or (none) is one Relu."""
    nodes = [helper.make_node(call, [f"v{n}"], [f"v{n + 1}"], domain="own") for n, call in enumerate(calls)]
    nodes = nodes or [helper.make_node("Relu", ["v0"], ["v1"])]
    return helper.make_function("own", name, ["v0"], [f"v{len(nodes)}"], nodes, OPSETS)


def model(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    """Calls the last function on the image."""
    image, answer = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 8, 8]) for name in "xy")
    node = helper.make_node(functions[-1].name, ["x"], ["y"], domain="own")
    graph = helper.make_graph([node], "g", [image], [answer])
    return helper.make_model(graph, opset_imports=OPSETS, functions=list(functions), ir_version=9)


@pytest.mark.parametrize("levels", [18, 64, 5000])
def test_nested_functions_that_double_are_refused_at_once(levels: int, tmp_path: Path) -> None:
    nested = [function("f0"), *(function(f"f{n}", f"f{n - 1}", f"f{n - 1}") for n in range(1, levels))]
    onnx.save(model(*nested), tmp_path / "bomb.onnx")
    for read in (read_proto, load_model):
        with pytest.raises(ModelError, match=rf"bomb.onnx: its functions .* more than the limit of {MAX_NODES}"):
            read(tmp_path / "bomb.onnx")


def test_functions_that_call_themselves_are_refused() -> None:
    for functions in ([function("a", "a")], [function("a", "b"), function("b", "c"), function("c", "a")]):
        with pytest.raises(ModelError, match="calls itself"):
            check_functions(model(*functions))


def test_functions_are_counted_by_what_they_give() -> None:
    nested = [function("a"), function("b", "a", "a", "a"), function("c", "b", "a", "b"), function("d", "c", "b", "c")]
    check_functions(model(*nested), limit=17)
    with pytest.raises(ModelError, match="give 17 nodes, more than the limit of 16"):
        check_functions(model(*nested), limit=16)
