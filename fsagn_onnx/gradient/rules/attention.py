"""Scaled dot-product attention."""

from __future__ import annotations

from ..registry import gradient_rule
from ..step import BackwardStep


@gradient_rule("Attention", inputs=(0, 1, 2), ignored=(3,))
def _attention(step: BackwardStep) -> dict[int, str]:
    """With P = softmax(s Q K^T + mask): dV = P^T d, dS = P (d V^T - row sums), dQ = s dS K, dK = s dS^T Q."""
    shapes = [step.shape(index) for index in range(3)]
    heads = {shape[1] for shape in shapes}
    plain = all(len(shape) == 4 for shape in shapes) and len(heads) == 1 and not (step.has(4) or step.has(5))
    if not plain or step.attribute("is_causal", 0) or step.attribute("softcap", 0.0):
        raise step.refuse("only (N, heads, places, width) without causal mask, cap or earlier keys has a rule")
    q, k, v, d = step.x(0), step.x(1), step.x(2), step.d.value
    scale = step.number(step.attribute("scale", 0.0) or shapes[0][3] ** -0.5)
    scores = step.mul(step.op("MatMul", q, _turned(step, k)), scale)
    if step.has(3):
        mask = step.x(3)
        if step.facts.type(step.node.input[3]) == 9:  # bool
            mask = step.op("Where", mask, step.number(0), step.number(-1e30))
        scores = step.op("Add", scores, mask)
    weights = step.op("Softmax", scores, axis=-1)
    given = step.mul(step.op("MatMul", d, _turned(step, v)), weights)
    slope = step.op("Sub", given, step.mul(weights, step.write.sum(given, [3])))
    slope = step.mul(slope, scale)
    found = {0: lambda: step.op("MatMul", slope, k), 1: lambda: step.op("MatMul", _turned(step, slope), q),
             2: lambda: step.op("MatMul", _turned(step, weights), d)}  # fmt: skip
    return {index: found[index]() for index in step.wanted}


def _turned(step: BackwardStep, value: str) -> str:
    return step.op("Transpose", value, perm=[0, 1, 3, 2])
