"""Batch norm after a conv goes into the conv's weights.

With s = scale / sqrt(variance + epsilon) per output channel: W' = W s, b' = (b - mean) s + bias, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from .graph import Array, Graph, Rewrite, attribute, is_op

__all__ = ["FOLD_BATCH_NORM"]


def _pairs(graph: Graph) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """(conv, batch norm) where the norm is all that reads the conv and every parameter is a constant."""
    uses, producers = graph.uses(), graph.producers()
    for norm in graph.nodes:
        if not is_op(norm, "BatchNormalization") or attribute(norm, "training_mode", 0):
            continue
        conv = producers.get(norm.input[0])
        if conv is None or not is_op(conv, "Conv", "ConvTranspose") or uses[conv.output[0]] != 1:
            continue
        parameters = [*conv.input[1:], *norm.input[1:]]
        rest_unused = not any(uses[value] for value in norm.output[1:] if value)
        if rest_unused and all(name in graph.constants for name in parameters if name):
            yield conv, norm


def _folded(graph: Graph, conv: onnx.NodeProto, norm: onnx.NodeProto) -> tuple[Array, Array]:
    parameters = [graph.array(name) for name in (conv.input[1], *norm.input[1:5])]
    weight, scale, bias, mean, variance = (np.asarray(p) for p in parameters)
    dtype = weight.dtype
    factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + attribute(norm, "epsilon", 1e-5))
    had = graph.array(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
    shift = bias + ((0.0 if had is None else had.astype(np.float64)) - mean) * factor
    spatial = (1,) * (weight.ndim - 2)
    if is_op(conv, "Conv"):  # (out, in / groups, ...)
        return (weight * factor.reshape(-1, 1, *spatial)).astype(dtype), shift.astype(dtype)
    groups = int(attribute(conv, "group", 1))  # ConvTranspose: (in, out / groups, ...)
    grouped = weight.reshape(groups, -1, *weight.shape[1:]) * factor.reshape(groups, 1, -1, *spatial)
    return grouped.reshape(weight.shape).astype(dtype), shift.astype(dtype)


def _fold(graph: Graph) -> int:
    pairs = list(_pairs(graph))
    for conv, norm in pairs:
        weight, bias = _folded(graph, conv, norm)
        names = [
            graph.constant(weight, f"{conv.input[1]}.folded"),
            graph.constant(bias, f"{conv.output[0]}.bias"),
        ]
        made = [conv.input[0], *names]
        del conv.input[:]
        conv.input.extend(made)
        conv.output[0] = norm.output[0]
    graph.remove(norm for _, norm in pairs)
    return len(pairs)


FOLD_BATCH_NORM = Rewrite("batch norm into conv", _fold, lambda graph: (norm for _, norm in _pairs(graph)))
"""A conv whose own output is a graph output, or is read by anything else, keeps its batch norm."""
