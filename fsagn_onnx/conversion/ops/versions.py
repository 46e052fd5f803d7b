"""Op versions that widened the allowed types and nothing else: the converter of an older version serves them.

Source: onnx's operator schemas, whose inputs, outputs, attributes and text are the same in both versions of
every entry (a test compares them). The types added are bfloat16, float8, float4, int4 and the like.
"""

from __future__ import annotations

from itertools import pairwise

from ..registry import same_as

__all__ = ["EARLIER", "WIDENED"]

_SHAPED = (21, 23, 24, 25)
"""Opsets that widened everything which only moves elements."""

WIDENED: dict[str, tuple[int, ...]] = {
    "Acos": (7, 22),
    "Asin": (7, 22),
    "Atan": (7, 22),
    "Celu": (12, 28),
    "Constant": (13, 19, *_SHAPED),
    "ConstantOfShape": (9, 20, *_SHAPED),
    "Cos": (7, 22),
    "Dropout": (13, 22),
    "Einsum": (12, 28),
    "Elu": (6, 22),
    "Equal": (13, 19),
    "EyeLike": (9, 22),
    "Flatten": (13, *_SHAPED),
    "GlobalAveragePool": (1, 22),
    "GreaterOrEqual": (12, 16),
    "HardSigmoid": (6, 22),
    "HardSwish": (14, 22),
    "Identity": (16, 19, *_SHAPED),
    "InstanceNormalization": (6, 22),
    "IsInf": (10, 20),
    "IsNaN": (13, 20),
    "LessOrEqual": (12, 16),
    "RoiAlign": (16, 22),
    "Round": (11, 22),
    "Selu": (6, 22),
    "Shape": (15, 19, *_SHAPED),
    "Sin": (7, 22),
    "Softplus": (1, 22),
    "Softsign": (1, 22),
    "Tan": (7, 22),
    "TopK": (11, 24),
    "Transpose": (13, *_SHAPED),
}
"""op -> versions of the same meaning, ascending; onnx2torch has a converter for the first."""

for _op, _versions in WIDENED.items():
    for _older, _newer in pairwise(_versions):
        same_as(_op, _newer, _older)

EARLIER: dict[str, tuple[int, int]] = {
    "ArgMax": (1, 11),
    "ArgMin": (1, 11),
    "Cast": (6, 9),
    "Constant": (1, 9),
    "Dropout": (7, 10),
    "Flatten": (1, 9),
    "Gemm": (7, 9),
    "IsNaN": (9, 13),
    "Max": (6, 8),
    "Mean": (6, 8),
    "Min": (6, 8),
    "Scatter": (11, 9),
    "Sum": (6, 8),
}
"""op -> (version, another that allows more, or the same, and means the same by it); onnx2torch has the second."""

for _op, (_version, _served_by) in EARLIER.items():
    same_as(_op, _version, _served_by)

for _newer, _older in ((19, 13), (21, 19), (23, 21), (24, 23), (25, 24), (28, 25)):
    same_as("Cast", _newer, _older)  # the new attributes act on float8 targets only, which the converter refuses
