"""An explainer of the planted CNN, built by hand: its saliency of filter k is F_k and its surroundings.

It follows the contract of explainer files to the letter (fill slots, ranks, predicted retention, metadata), is 30 kB
small and needs no training, so that everything that reads explainer files has one whose answers are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..model.content_hash import content_hash
from ..runtime import contract
from .planted import FILTERS, TAP, planted_model

AREAS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
RETENTION: Final = (0.1, 0.3, 0.6, 0.9, 0.95)
"""The "predicted" retention at `AREAS`, the same for every filter; it reaches .8 at the area 1/6."""

_CELLS: Final = 64  # the grid of the tap, 8 x 8

# Slots of -1 take the strongest filters not asked for by id, in order; those that find none stay -1.
_GRAPH: Final = """
fill = Equal(filters, minus_one)
known = Where(fill, outside, filters)
one_hot = OneHot<axis=-1>(known, depth, off_on)
asked_all = ReduceMax<axes=[1], keepdims=0>(one_hot)
asked = Slice(asked_all, zero, last, axis_1)
peaks_nchw = GlobalMaxPool(patterns)
peaks_all = Flatten(peaks_nchw)
asked_cost = Mul(asked, huge)
left = Sub(peaks_all, asked_cost)
left_best, left_order = TopK<axis=1>(left, count)
fill_int = Cast<to=7>(fill)
fill_after = CumSum(fill_int, axis_1_scalar)
fill_place = Sub(fill_after, one)
clipped = Clip(fill_place, zero_scalar, last_place)
best = GatherElements<axis=1>(left_order, clipped)
best_peak = GatherElements<axis=1>(left_best, clipped)
taken = Less(best_peak, minus_huge)
past_end = Greater(fill_place, last_place)
gone = Or(taken, past_end)
filled = Where(gone, minus_one, best)
filter_ids = Where(fill, filled, filters)
safe = Max(filter_ids, zero_scalar)
filter_peaks = GatherElements<axis=1>(peaks_all, safe)
index = Unsqueeze(safe, axis_2)
near = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(patterns)
far = AveragePool<kernel_shape=[7, 7], pads=[3, 3, 3, 3]>(patterns)
saliency = Sum(patterns, near, far)
maps = GatherND<batch_dims=1>(saliency, index)
flat = Reshape(maps, flat_shape)
best_cells, order = TopK<axis=2>(flat, cells)
order_float = Cast<to=1>(order)
sorted_places, places = TopK<axis=2, largest=0>(order_float, cells)
places_float = Cast<to=1>(places)
places_one = Add(places_float, one_float)
ranks = Div(places_one, cells_float)
rank_shape = Shape(maps)
area_rank = Reshape(ranks, rank_shape)
peaks_nk1 = Unsqueeze(filter_peaks, axis_2)
nothing = Mul(peaks_nk1, zero_float)
retention = Add(nothing, curve)
"""


def _constants() -> dict[str, Any]:
    floats = {"huge": 1e6, "minus_huge": -1e5, "one_float": 1, "zero_float": 0, "cells_float": _CELLS}
    whole = {
        "minus_one": -1,
        "one": 1,
        "outside": FILTERS,
        "zero_scalar": 0,
        "last_place": FILTERS - 1,
        "axis_1_scalar": 1,
        "zero": [0],
        "last": [FILTERS],
        "axis_1": [1],
        "axis_2": [2],
        "count": [FILTERS],
        "cells": [_CELLS],
        "flat_shape": [0, 0, _CELLS],
        "depth": [FILTERS + 1],
    }
    return {
        **{name: np.array(value, dtype=np.float32) for name, value in floats.items()},
        **{name: np.array(value, dtype=np.int64) for name, value in whole.items()},
        "off_on": np.array([0, 1], dtype=np.float32),
        "curve": np.array(RETENTION, dtype=np.float32),
    }


def planted_explainer(changes: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """The explainer of the planted CNN.

    Args:
        changes: members of the metadata to replace; None as a value removes the member.
    """
    proto = planted_model()
    description = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == "fsagn_model"))
    metadata: dict[str, Any] = {
        "format": 1,
        "tool": "fsagn-onnx",
        "model_sha256": content_hash(proto),
        "layer": TAP,
        "filters": FILTERS,
        "encoder": "shared",
        "input": description["input"],
        "labels": description["labels"],
        "areas": list(AREAS),
        "objective": "budget",
        "infills": ["blur", "mean"],
        "training": {"pairs": 0},
        "quality": {},
    }
    for name, value in (changes or {}).items():
        metadata[name] = value
        if value is None and name != "labels":
            del metadata[name]
    steps = onnx.parser.parse_graph(f"steps (float[N] none) => () {{{_GRAPH}}}")
    proto.graph.node.extend(steps.node)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in _constants().items())
    proto.graph.input.append(helper.make_tensor_value_info(contract.FILTERS, TensorProto.INT64, ["N", "K"]))
    proto.graph.output.extend(
        [
            helper.make_tensor_value_info(contract.FILTER_IDS, TensorProto.INT64, ["N", "K"]),
            helper.make_tensor_value_info(contract.FILTER_PEAKS, TensorProto.FLOAT, ["N", "K"]),
            helper.make_tensor_value_info(contract.AREA_RANK, TensorProto.FLOAT, ["N", "K", 8, 8]),
            helper.make_tensor_value_info(contract.RETENTION, TensorProto.FLOAT, ["N", "K", len(AREAS)]),
        ]
    )
    del proto.metadata_props[:]
    helper.set_model_props(proto, {"fsagn": json.dumps(metadata)})
    onnx.checker.check_model(proto, full_check=True)
    return proto


def write_planted_explainer(path: str | Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write `planted_explainer` to ``path`` and return the path."""
    target = Path(path)
    target.write_bytes(planted_explainer(changes).SerializeToString())
    return target
