"""Resize: a matrix along each axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..registry import gradient_rule
from ..step import BackwardStep


@gradient_rule("Resize", inputs=(0,), ignored=(1, 2, 3))
def _resize(step: BackwardStep) -> dict[int, str]:
    before, after = step.shape(), step.shape_out()
    if step.attribute("antialias", 0) and any(0 < m < n for n, m in zip(before, after, strict=True)):
        raise step.refuse("antialias")
    if step.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise step.refuse("tf_crop_and_resize")
    scales = _scales(step)
    changed = [axis for axis, (n, m) in enumerate(zip(before, after, strict=True)) if n != m]
    if any(before[axis] < 0 for axis in changed):
        raise step.refuse("it changes the number of images")
    matrices = {axis: _matrix(step, before[axis], after[axis], scales[axis]) for axis in changed}
    return {0: step.along(step.d.value, after, matrices)}


def _scales(step: BackwardStep) -> list[float]:
    """Per axis, as the node has them; from the sizes where it has those."""
    ratios = [m / n if n else 1.0 for n, m in zip(step.shape(), step.shape_out(), strict=True)]
    given = step.array(2)
    if given is None or not given.size:
        return ratios
    for axis, scale in zip(step.attribute("axes", list(range(len(ratios)))), given.tolist(), strict=True):
        ratios[axis] = scale
    return ratios


def _places(step: BackwardStep, n: int, m: int, scale: float) -> NDArray[np.float32]:
    """Where each new cell lies among the old ones, as onnxruntime computes it."""
    mode, x, s = step.attribute("coordinate_transformation_mode", "half_pixel"), np.arange(m), np.float32(scale)
    cells = x.astype(np.float32)
    half = np.float32(0.5)
    if mode == "asymmetric":
        found = cells / s
    elif mode == "align_corners":
        found = cells * np.float32(n - 1) / np.float32(m - 1) if m > 1 else np.zeros(m, np.float32)
    elif mode == "tf_half_pixel_for_nn":
        found = (cells + half) / s
    elif mode == "half_pixel_symmetric":
        offset = np.float32(n / 2 * (1 - m / (n * scale)))
        found = offset + (cells + half) / s - half
    elif mode == "pytorch_half_pixel" and m == 1:
        found = np.zeros(m, np.float32)
    else:
        found = (cells + half) / s - half
    return np.asarray(found, np.float32)


def _nearest(step: BackwardStep, places: NDArray[np.float32]) -> NDArray[np.int64]:
    way = step.attribute("nearest_mode", "round_prefer_floor")
    if way == "floor":
        found = np.floor(places)
    elif way == "ceil":
        found = np.ceil(places)
    elif way == "round_prefer_ceil":
        found = np.floor(places + np.float32(0.5))
    else:
        found = np.ceil(places - np.float32(0.5))
    return np.asarray(found, np.int64)


def _matrix(step: BackwardStep, n: int, m: int, scale: float) -> NDArray[np.float64]:
    """(new, old): how much of each old cell a new one has."""
    places, mode = _places(step, n, m, scale), step.attribute("mode", "nearest")
    matrix, rows = np.zeros((m, n)), np.arange(m)
    if mode == "nearest":
        matrix[rows, np.clip(_nearest(step, places), 0, n - 1)] = 1
        return matrix
    if mode == "linear":
        places = np.clip(places, 0, n - 1)
    first = np.floor(places).astype(np.int64)
    part = places.astype(np.float64) - first
    if mode == "linear":
        weights = {0: 1 - part, 1: part}
    else:
        a = step.attribute("cubic_coeff_a", -0.75)
        weights = {offset: _cubic(np.abs(part - offset), a) for offset in (-1, 0, 1, 2)}
    total = np.zeros(m)
    for offset, weight in weights.items():
        cells = first + offset
        if mode == "cubic" and step.attribute("exclude_outside", 0):
            weight = np.where((cells >= 0) & (cells < n), weight, 0)
        np.add.at(matrix, (rows, np.clip(cells, 0, n - 1)), weight)
        total += weight
    return matrix / total[:, None] if mode == "cubic" and step.attribute("exclude_outside", 0) else matrix


def _cubic(distance: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
