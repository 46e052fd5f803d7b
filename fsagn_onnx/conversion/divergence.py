"""Node by node: each module on the values that onnxruntime computed, against what onnxruntime makes of them.

So differences cannot add up from node to node: what is left is the node's own.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from ..model.batch import fixed_batch
from ..model.cut import cut
from .assembly import Step
from .ops.quantise import Rounding
from .reference import relative_error, run_reference

if TYPE_CHECKING:
    from .tapped_module import TappedModule

__all__ = ["HALF_STEP", "first_divergence", "node_errors", "unlike_rounding"]

Array = npt.NDArray[Any]

HALF_STEP = 0.51
"""onnxruntime's integers may lie this far from torch's numbers before rounding: half a step, and float32's error."""


ROUNDING_RATIO = 8.0
"""Rounding alone takes onnxruntime this many times as far from the float64 result as it takes torch, at most (seen
over all values of a LeViT and an EfficientNet that amplify it: 3.5). A wrong node takes it much farther: the float64
result comes from the converted module, and has the fault too."""

NUDGES = 4
"""Further runs in float32 that tell how large rounding gets."""


@dataclass(frozen=True)
class _Computed:
    """What both sides make of one image: {value: array}, {value: tensor}, {value: type of torch's tensor}."""

    expected: dict[str, Array]
    made: dict[str, Tensor]
    types: dict[str, torch.dtype]


def _computed(proto: onnx.ModelProto, module: TappedModule, image: Array, source: str, twice: bool = True) -> _Computed:
    """Both sides; torch's only where onnxruntime has none, unless all values are to be there twice."""
    piece = cut(proto, module.values, weights=False)
    original = {value for node in piece.graph.node for value in node.output if value}
    values = list(dict.fromkeys(v for step in module.steps for v in (*step.inputs, *step.outputs) if v in original))
    values = list(dict.fromkeys((*values, *(v for step in module.steps for _, v in step.keywords if v in original))))
    size = fixed_batch(piece, module.input_name) or 1
    part = np.resize(image, (size, *image.shape))
    expected = run_reference(proto, values, module.input_name, part, source, module)
    made: dict[str, Tensor] = {module.input_name: torch.from_numpy(part)}
    there = () if twice else set(values)

    types = {module.input_name: made[module.input_name].dtype}

    def keep(name: str, value: Tensor) -> None:
        types[name] = value.dtype
        if name not in there:
            made[name] = value

    with torch.no_grad():
        module(torch.from_numpy(part), watch=keep)
    return _Computed(dict(zip(values, expected, strict=True)), made, types)


def first_divergence(proto: onnx.ModelProto, module: TappedModule, images: Array, tolerance: float, source: str) -> str:
    """What to say of the first node whose value differs by more than `tolerance`; "" where none does."""
    for image in images:
        computed = _computed(proto, module, image, source)
        for step in module.steps:
            value = step.outputs[0]
            if value not in computed.expected:
                continue
            a, b = computed.made[value].numpy(), computed.expected[value]
            error = relative_error(a, b)
            if not error <= tolerance:
                return (
                    f"{source}: torch and onnxruntime differ first at node '{step.node}' ({step.op}, value '{value}') "
                    f"by {error:.2g} (relative; allowed {tolerance:.0e}): {_difference(a, b)}"
                )
    return ""


def node_errors(
    proto: onnx.ModelProto, module: TappedModule, images: Array, tolerance: float, source: str
) -> tuple[dict[str, float], str]:
    """{value: relative error of its node on onnxruntime's inputs}, and what to say of the first wrong node.

    A node that rounds may differ by the rounding alone: by half a step from its number before rounding
    (`HALF_STEP`), which counts as 0. Any other may differ by `tolerance`.
    """
    errors: dict[str, float] = {}
    for image in images:
        computed = _computed(proto, module, image, source, twice=False)
        for step, node in zip(module.steps, module.nodes, strict=True):
            for value, a, b in _alone(step, node, module, computed):
                rounds = isinstance(node, Rounding) and value == step.outputs[0] and a.shape == b.shape
                gap = float(np.abs(a.astype(np.float64) - b).max(initial=0)) if rounds else 0.0
                error = 0.0 if gap <= HALF_STEP and rounds else relative_error(a, b)
                errors[value] = max(errors.get(value, 0.0), error)
                if not error <= tolerance:
                    by = f"{gap:.2g} steps" if rounds else f"{error:.2g} (relative; allowed {tolerance:.0e})"
                    return errors, (
                        f"{source}: node '{step.node}' ({step.op}, value '{value}') computes something else in torch "
                        f"than in onnxruntime, by {by}: {_difference(a, b)}"
                    )
    return errors, ""


def aligned(proto: onnx.ModelProto, module: TappedModule, images: Array, source: str) -> tuple[dict[str, Array], str]:
    """What the whole module makes of a batch when every number within `HALF_STEP` of onnxruntime's integer becomes it.

    So roundings that fall to either side do not add up, but everything else does.

    Returns:
        {value: array}; and the first value with a number that is farther away, in words ("" where none is).
    """
    makers = {s.outputs[0]: n for s, n in zip(module.steps, module.nodes, strict=True) if isinstance(n, Rounding)}
    known = {value for node in proto.graph.node for value in node.output}
    values = [value for value in makers if value in known]
    theirs: dict[str, Array] = {}
    if values:  # a quantised head behind a float layer has none on the way
        found = run_reference(proto, values, module.input_name, images, source, module)
        theirs = dict(zip(values, found, strict=True))
    seen: Counter[str] = Counter()
    far: list[str] = []

    def align(name: str, made: Tensor) -> Tensor | None:
        if name not in makers:
            return None
        integers = theirs.get(name)
        if integers is not None and module.chunk is not None:
            seen[name] += len(made)
            integers = integers[seen[name] - len(made) : seen[name]]
        if integers is None or integers.shape != made.shape:
            return made.round()
        wanted = torch.from_numpy(integers).to(made.dtype)
        gap = (made - wanted).abs()
        if not far and gap.numel() and not float(gap.max()) <= HALF_STEP:
            far.append(f"the value '{name}' is {float(gap.max()):.3g} steps away")
        return torch.where(gap <= HALF_STEP, wanted, made.round())

    with torch.no_grad(), ExitStack() as stack:
        for node in makers.values():
            stack.enter_context(_before_rounding(node))
        made = module(torch.from_numpy(images), watch=align)
    return {name: value.numpy() for name, value in made.items()}, "".join(far)


def unlike_rounding(proto: onnx.ModelProto, module: TappedModule, images: Array, least: float, source: str) -> str:
    """What to say of the first value whose difference cannot be float32's rounding; "" where all can be.

    The module runs in float64 too. Where torch in float32 is e away from that, onnxruntime must be no farther than
    `ROUNDING_RATIO` e, or `least`; e is the largest of several runs whose images differ in their last digit, as one
    run may come close by luck.
    """
    for image in images:
        computed = _computed(proto, module, image, source)
        x = computed.made[module.input_name]
        exact = {v: made for _, v, made in _in_double(module, x) if made.is_floating_point() and v in computed.expected}
        own = {value: relative_error(computed.made[value].numpy(), made.numpy()) for value, made in exact.items()}
        for nudged in _nudged(x):
            for value, error in _errors(module, nudged, exact).items():
                own[value] = max(own[value], error)
        for value, made in exact.items():
            theirs = relative_error(computed.expected[value], made.numpy())
            if not theirs <= max(least, ROUNDING_RATIO * own[value]):
                return (
                    f"{source}: onnxruntime is {theirs:.2g} (relative) away from the float64 result of the value "
                    f"'{value}', torch in float32 only {own[value]:.2g}: that is no rounding"
                )
    return ""


def _nudged(x: Tensor) -> Iterator[Tensor]:
    """`x`, each number of it moved at random by at most one unit in its last place."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(NUDGES if x.dtype == torch.float32 else 0):
        yield x * (1 + 2**-23 * (torch.rand(x.shape, generator=generator) - 0.5))


def _errors(module: TappedModule, x: Tensor, exact: dict[str, Tensor]) -> dict[str, float]:
    """{value: relative error against `exact`} of one run."""
    errors: dict[str, float] = {}

    def watch(name: str, made: Tensor) -> None:
        if name in exact:
            errors[name] = relative_error(made.numpy(), exact[name].numpy())

    with torch.no_grad():
        module(x, watch=watch)
    return errors


def _in_double(module: TappedModule, x: Tensor) -> Iterator[tuple[Step, str, Tensor]]:
    """Each step, value, and the value in float64; one node at a time has its weights in float64."""

    def wide(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor

    values = {module.input_name: wide(x)}

    def given(name: str) -> Tensor:
        return values[name] if name in values else wide(module.constant(name))

    for step, node in zip(module.steps, module.nodes, strict=True):
        with torch.no_grad():
            keywords = {key: given(name) for key, name in step.keywords}
            made = copy.deepcopy(node).double()(*map(given, step.inputs), **keywords)
        parts: Sequence[Tensor] = made if isinstance(made, (tuple, list)) else (made,)
        for value, part in zip(step.outputs, parts, strict=False):
            values[value] = wide(part)
            yield step, value, values[value]
        for name in step.last:
            del values[name]


def _alone(
    step: Step, node: nn.Module, module: TappedModule, computed: _Computed
) -> Iterator[tuple[str, Array, Array]]:
    """(value, torch's, onnxruntime's) of one node run on onnxruntime's inputs; nothing where some are not known."""

    def given(name: str) -> Tensor:
        if name not in computed.types:
            return module.constant(name)
        if name not in computed.expected:
            return computed.made[name]
        return torch.from_numpy(np.asarray(computed.expected[name], order="C")).to(computed.types[name])

    if not any(value in computed.expected for value in step.outputs):
        return
    with torch.no_grad(), _before_rounding(node):
        made = node(*map(given, step.inputs), **{key: given(name) for key, name in step.keywords})
    parts: Sequence[Tensor] = made if isinstance(made, (tuple, list)) else (made,)
    for value, part in zip(step.outputs, parts, strict=False):
        if value in computed.expected:
            yield value, part.numpy(), computed.expected[value]


@contextmanager
def _before_rounding(node: nn.Module) -> Iterator[None]:
    if not isinstance(node, Rounding):
        yield
        return
    node.rounds = False
    try:
        yield
    finally:
        node.rounds = True


def _difference(a: Array, b: Array) -> str:
    if a.shape != b.shape:
        return f"torch has shape {tuple(a.shape)}, onnxruntime {tuple(b.shape)}"
    gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
    where = np.unravel_index(int(np.nan_to_num(gap, nan=np.inf).argmax()), gap.shape)
    position = ", ".join(str(int(i)) for i in where)
    return f"torch {float(a[where]):.6g}, onnxruntime {float(b[where]):.6g} at [{position}]"
