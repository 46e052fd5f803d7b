"""Which converter serves which op version."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import defs
from onnx2torch.node_converters.registry import get_converter

from fsagn_onnx.conversion import registry
from fsagn_onnx.conversion.ops import load_converters
from fsagn_onnx.conversion.ops.versions import WIDENED

load_converters()


def meaning(op: str, version: int) -> Any:
    schema = defs.get_schema(op, max_inclusive_version=version)
    assert schema.since_version == version
    return (
        [(i.name, i.option, i.min_arity) for i in schema.inputs],
        [(o.name, o.option) for o in schema.outputs],
        {name: (a.type, a.required, str(a.default_value)) for name, a in schema.attributes.items()},
        schema.doc,
    )


@pytest.mark.parametrize("op", WIDENED)
def test_widened_versions_differ_in_types_only(op):
    oldest, *newer = WIDENED[op]
    for version in newer:
        if version <= defs.onnx_opset_version():
            assert meaning(op, version) == meaning(op, oldest)
        assert registry.find(op, version) is get_converter(op, oldest)


def test_versions_between_two_of_an_op_are_the_older_one():
    assert registry.find("HardSwish", 23) is get_converter("HardSwish", 14)
    assert registry.find("Conv", 12) is registry.find("Conv", 11)
    assert registry.find("Relu", 13, "ai.onnx") is get_converter("Relu", 13)


def test_unknown_ops_have_none():
    assert registry.find("Conv", 11, "com.somebody") is None
    assert registry.find("Det", 11) is None
    assert registry.since_version("Odd", 3, "com.somebody") == 3


def test_a_version_has_one_converter():
    with pytest.raises(ValueError, match=r"'Conv'.* has a converter already"):
        registry.register("Conv", 11)(lambda node, graph: None)
