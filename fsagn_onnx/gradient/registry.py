"""Which rule writes the gradient of a node of a given op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ..discovery import import_all

if TYPE_CHECKING:
    from .step import BackwardStep, Cotangent

__all__ = ["STOPS", "GradientRule", "find_rule", "gradient_rule"]

Result: TypeAlias = "Mapping[int, Cotangent | str]"
"""Number of an input -> its gradient: whole, or as it is kept."""


@dataclass(frozen=True)
class GradientRule:
    """How the gradient of one op is written.

    Attributes:
        write: called with the step; gives the gradients of the inputs that are wanted.
        inputs: numbers of the inputs that have a gradient; None: all of them. A gradient of another one is refused
            where it is a number that hangs on the layer, and is no gradient where it is a shape or an index.
        ignored: numbers of inputs through which nothing is differentiated: shapes, indices, conditions.
        outputs: numbers of the outputs that carry a gradient; None: all of floating-point or quantised numbers.
        narrow: it takes cotangents that are kept once along axes on which they are the same everywhere.
        scaled: it takes cotangents with a factor per channel still to be multiplied.
    """

    write: Callable[[BackwardStep], Result]
    inputs: frozenset[int] | None = None
    ignored: frozenset[int] = frozenset()
    outputs: frozenset[int] | None = None
    narrow: bool = False
    scaled: bool = False


_RULES: dict[str, GradientRule] = {}

STOPS = frozenset({
    "And", "ArgMax", "ArgMin", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Compress",
    "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "Hardmax", "IsInf", "IsNaN", "Less",
    "LessOrEqual", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "RandomNormalLike", "RandomUniformLike",
    "Range", "Round", "Shape", "Sign", "Size", "Unique", "Xor",
})  # fmt: skip
"""Ops through which no gradient flows: what they make does not change, or only by jumps."""


def gradient_rule(
    *ops: str,
    inputs: tuple[int, ...] | None = None,
    ignored: tuple[int, ...] = (),
    outputs: tuple[int, ...] | None = None,
    narrow: bool = False,
    scaled: bool = False,
) -> Callable[[Callable[[BackwardStep], Result]], Callable[[BackwardStep], Result]]:
    """Decorator: the rule for ops of the standard domain; see `GradientRule`.

    Raises:
        ValueError: an op has a rule already.
    """

    def add(write: Callable[[BackwardStep], Result]) -> Callable[[BackwardStep], Result]:
        for op in ops:
            if op in _RULES or op in STOPS:
                raise ValueError(f"{op} has a gradient rule already")
            kept, made = (None if given is None else frozenset(given) for given in (inputs, outputs))
            _RULES[op] = GradientRule(write, kept, frozenset(ignored), made, narrow, scaled)
        return write

    return add


def find_rule(op: str, domain: str = "") -> GradientRule | None:
    """The rule for an op, or None where there is none."""
    if not _RULES:
        import_all(f"{__package__}.rules")
    return _RULES.get(op) if domain in ("", "ai.onnx") else None
