"""Branches that hang on shapes alone: torch writes `x.squeeze(1)` as an If about the size of an axis.

Which branch it is can be known once the size of the input is; the If then gives way to the nodes of the branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx

from .batch import fixed_batch
from .cut import cut
from .input_spec import InputSpec
from .size_trial import PIXEL_TYPES
from .topology import Topology, copied_node, node_inputs, rename_values

__all__ = ["with_chosen_branches"]

READING_SIZES: Final = frozenset({"Shape", "Size"})
MOST_BRANCHES: Final = 200
"""Ifs that are looked at, nested ones included."""


def with_chosen_branches(proto: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """A model without those Ifs whose condition is the same for one image and for two, whatever is in them.

    Args:
        proto: a model in topological order; it is not changed.
        spec: its image input.

    Returns:
        The model itself where there is no such If.
    """
    made = proto
    for _ in range(MOST_BRANCHES):
        found = next(_known(made, spec), None)
        if found is None:
            break
        made = _chosen(made, *found)
    return made


def _known(proto: onnx.ModelProto, spec: InputSpec) -> Iterator[tuple[int, bool]]:
    """(number, condition) of the Ifs whose condition is known."""
    topology = Topology(proto.graph)
    numbers = [number for number, node in enumerate(topology.nodes) if node.op_type == "If" and not node.domain]
    if not numbers:
        return
    inputs = [item for item in proto.graph.input if item.name not in topology.initializers]
    valued = _valued(topology, spec.name)
    for number in numbers:
        condition = topology.nodes[number].input[0]
        if len(inputs) != 1 or condition in valued or condition not in topology.producer:
            continue
        answers = {_answer(proto, condition, spec, count) for count in _counts(proto, spec)}
        if len(answers) == 1 and (answer := answers.pop()) is not None:
            yield number, answer


def _counts(proto: onnx.ModelProto, spec: InputSpec) -> tuple[int, ...]:
    fixed = fixed_batch(proto, spec.name)
    return (fixed,) if fixed else (1, 2)


def _valued(topology: Topology, image: str) -> set[str]:
    """Values that hang on pixels, not on sizes alone."""
    reached = {image}
    for node in topology.nodes:
        if node.op_type not in READING_SIZES and any(name in reached for name in node_inputs(node)):
            reached.update(name for name in node.output if name)
    return reached


def _answer(proto: onnx.ModelProto, condition: str, spec: InputSpec, count: int) -> bool | None:
    from .inference_session import ORT_ERRORS, inference_session

    try:
        session = inference_session(cut(proto, [condition]))
        ports = session.get_inputs()
        feeds = {p.name: np.zeros((count, *spec.sample_shape), PIXEL_TYPES.get(p.type, np.float32)) for p in ports}
        return bool(np.asarray(session.run(None, feeds)[0]).all())
    except ORT_ERRORS:
        return None


def _chosen(proto: onnx.ModelProto, number: int, answer: bool) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    graph = made.graph
    nodes = [copied_node(node) for node in graph.node]
    node = nodes[number]
    name = "then_branch" if answer else "else_branch"
    branch = onnx.GraphProto()
    branch.CopyFrom(next(item.g for item in node.attribute if item.name == name))
    stem = f"{node.output[0]}/{name}"
    own = {value for inner in branch.node for value in inner.output if value} | {t.name for t in branch.initializer}
    names = {value: f"{stem}/{value}" for value in own}
    rename_values(branch, names)
    ends = []
    for item, out in zip(branch.output, node.output, strict=False):
        ends.append(onnx.helper.make_node("Identity", [names.get(item.name, item.name)], [out]))
    del graph.node[:]
    graph.node.extend([*nodes[:number], *branch.node, *ends, *nodes[number + 1 :]])
    graph.initializer.extend(branch.initializer)
    return made
