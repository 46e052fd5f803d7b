"""Op versions that widened the allowed types and nothing else: the converter of the older version serves them.

Source: the onnx operator changelog, each entry read. "Types" includes bfloat16, float8, float4 and int2/int4.
"""

from __future__ import annotations

from ..registry import same_as

__all__ = ["WIDENED"]

WIDENED: dict[str, tuple[tuple[int, int], ...]] = {
    "Conv": ((22, 11),),
}
"""op -> (newer version, older version with the same meaning) ..."""

for _op, _pairs in WIDENED.items():
    for _newer, _older in _pairs:
        same_as(_op, _newer, _older)
