"""Which converter turns a node of a given op, domain and opset into a torch module.

Three sources, first hit wins: the converters of `ops/`; the table `ops.versions` of op versions that only
widened types; onnx2torch's own registry. Ours stay out of onnx2torch's registry: that one refuses a second
converter for the same op version, is shared by the whole process, and has no way to replace a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx import defs
from onnx2torch.node_converters.registry import OperationDescription, get_converter
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult

__all__ = ["Converter", "find", "register", "same_as", "since_version"]

Converter = Callable[[OnnxNode, OnnxGraph], OperationConverterResult]
"""onnx2torch's own signature: (node, graph) -> (torch module, the values that it reads and makes)."""

_OURS: dict[OperationDescription, Converter] = {}
_SAME: dict[OperationDescription, int] = {}


def register(op: str, *versions: int, domain: str = "") -> Callable[[Converter], Converter]:
    """Decorator: the converter for `op` in the op versions (`since_version` of the schema) `versions`.

    Raises:
        ValueError: another converter of ours has one of these versions already.
    """

    def add(converter: Converter) -> Converter:
        for version in versions:
            key = OperationDescription(domain, op, version)
            if key in _OURS:
                raise ValueError(f"{key} has a converter already")
            _OURS[key] = converter
        return converter

    return add


def same_as(op: str, version: int, older: int) -> None:
    """State that version `version` of `op` computes on float32 and integers what version `older` does."""
    _SAME[OperationDescription("", op, version)] = older


def since_version(op: str, opset: int, domain: str = "") -> int:
    """The op version that is in force at `opset`; `opset` itself where onnx knows no such op."""
    try:
        version: int = defs.get_schema(op, max_inclusive_version=opset, domain=domain).since_version
    except defs.SchemaError:
        return opset
    return version


def find(op: str, opset: int, domain: str = "") -> Converter | None:
    """The converter for `op` at `opset`, or None where there is none."""
    domain = "" if domain == "ai.onnx" else domain
    version = since_version(op, opset, domain)
    key = OperationDescription(domain, op, version)
    while key not in _OURS and key in _SAME:
        key = key._replace(version=_SAME[key])
    if key in _OURS:
        return _OURS[key]
    try:
        converter: Converter = get_converter(op, key.version, domain)
    except NotImplementedError:
        return None
    return converter
