"""Figures of single pictures in a file that grows by a line each, so that a stopped run goes on and methods join."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class StoredFigures:
    """Figures by picture and method.

    Args:
        path: a JSON line per picture and method; None keeps nothing.
        names: of the figures.
    """

    def __init__(self, path: Path | None, names: Sequence[str]) -> None:
        self._path, self._names = path, tuple(names)
        self._known: dict[tuple[str, str], tuple[float, ...]] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            row = json.loads(line)
            self._known[row["picture"], row["method"]] = tuple(row[name] for name in self._names)

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._known

    def add(self, picture: str, method: str, values: Sequence[float]) -> None:
        """Keep the figures of a method in a picture."""
        self._known[picture, method] = tuple(float(value) for value in values)
        if self._path is not None:
            row = dict(zip(self._names, (round(float(value), 6) for value in values), strict=True))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"picture": picture, "method": method, **row}) + "\n")

    def of(self, method: str, pictures: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """By figure ``(n,)``; NaN where it has not been measured."""
        unknown = (np.nan,) * len(self._names)
        rows = np.array([self._known.get((picture, method), unknown) for picture in pictures], dtype=np.float64)
        return dict(zip(self._names, rows.T, strict=True))
