"""Products of matrices."""

from __future__ import annotations

from ..registry import gradient_rule
from ..step import BackwardStep, Cotangent


@gradient_rule("Gemm", inputs=(0,))
def _gemm(step: BackwardStep) -> dict[int, str]:
    """Y = alpha A' B' + beta C."""
    d, alpha = step.d.value, step.attribute("alpha", 1.0)
    across, down = step.attribute("transA", 0), step.attribute("transB", 0)
    if across:
        return {0: step.op("Gemm", step.x(1), d, alpha=alpha, transA=down, transB=1)}
    return {0: step.op("Gemm", d, step.x(1), alpha=alpha, transB=1 - down)}


@gradient_rule("MatMul")
def _matmul(step: BackwardStep) -> dict[int, Cotangent]:
    """DA = d B^T, dB = A^T d, summed over the batches that were spread."""
    left, right, d = step.shape(0), step.shape(1), step.d.value
    if len(left) < 2 or (len(right) < 2 and 1 in step.wanted):
        raise step.refuse("a vector as an operand")
    found = {}
    if 0 in step.wanted:
        if len(right) == 1:
            return {0: Cotangent(step.mul(step.write.unsqueeze(d, -1), step.x(1)))}
        part = Cotangent(step.op("MatMul", d, _flipped(step, 1)))
        found[0] = step.unbroadcast(part, (*step.shape_out()[:-1], left[-1]), left)
    if 1 in step.wanted:
        part = Cotangent(step.op("MatMul", _flipped(step, 0), d))
        found[1] = step.unbroadcast(part, (*step.shape_out()[:-2], left[-1], right[-1]), right)
    return found


def _flipped(step: BackwardStep, index: int) -> str:
    axes = list(range(len(step.shape(index))))
    axes[-2:] = axes[:-3:-1]
    return step.op("Transpose", step.x(index), perm=axes)


@gradient_rule("Einsum")
def _einsum(step: BackwardStep) -> dict[int, str]:
    """The same sum with the operand and the output changed over."""
    equation = step.attribute("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or any(len(set(term)) != len(term) for term in terms):
        raise step.refuse(f"an equation like '{equation}'")
    found = {}
    for index in step.wanted:
        others = [term for number, term in enumerate(terms) if number != index]
        reached = set("".join([result, *others]))
        kept = "".join(letter for letter in terms[index] if letter in reached)
        operands = [step.d.value, *(step.x(number) for number in range(len(terms)) if number != index)]
        value = step.op("Einsum", *operands, equation=f"{','.join([result, *others])}->{kept}")
        summed = [axis for axis, letter in enumerate(terms[index]) if letter not in reached]
        if summed:
            value = step.forward.expanded(step.write.unsqueeze(value, *summed), step.shape(index), summed)
        found[index] = value
    return found
