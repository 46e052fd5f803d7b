"""One picture per metric, for those who have matplotlib (the extra `plots`)."""

from __future__ import annotations

import importlib.util
import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..data.files import make_folder, write_file
from .result import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING: Final = "no plots: they need matplotlib; pip install 'fsagn-onnx[plots]'"
"""What is said where matplotlib is not installed."""


def write_plots(evaluation: Evaluation, folder: Path) -> list[Path] | None:
    """Write one PNG per metric and one with the retention curves.

    Returns:
        The files; None where matplotlib is not installed.

    Raises:
        OutputError: a file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    make_folder(folder)
    written = [_write(folder, metric, _bars(evaluation, metric)) for metric in evaluation.metrics()]
    return [*written, *(_write(folder, f"curve {infill}", _curve(evaluation, infill)) for infill in evaluation.curves)]


def file_name(metric: str) -> str:
    """A plain file name for a metric: ``AUC - activation`` -> ``auc-activation.png``."""
    return re.sub(r"[^a-z0-9]+", "-", metric.lower()).strip("-") + ".png"


def _new(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _bars(evaluation: Evaluation, metric: str) -> Figure:
    rows = [row for row in evaluation.rows if row.metric == metric and not math.isnan(row.value.mean)]
    methods = list(dict.fromkeys(row.method for row in rows))
    infills = list(dict.fromkeys(row.infill for row in rows))
    figure, axes = _new(7, 1.2 + 0.28 * max(1, len(rows)))
    height = 0.8 / max(1, len(infills))
    for place, infill in enumerate(infills):
        chosen = [row for row in rows if row.infill == infill]
        heights = [methods.index(row.method) + place * height for row in chosen]
        means = [row.value.mean for row in chosen]
        below = [max(0.0, row.value.mean - row.value.low) for row in chosen]
        above = [max(0.0, row.value.high - row.value.mean) for row in chosen]
        axes.barh(heights, means, height, xerr=[below, above], label=infill or metric, capsize=2)
    axes.set_yticks([index + height * (len(infills) - 1) / 2 for index in range(len(methods))], methods)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"{metric} (95 % interval)")
    if len(infills) > 1:
        axes.legend(fontsize="small")
    return figure


def _curve(evaluation: Evaluation, infill: str) -> Figure:
    figure, axes = _new(6, 4)
    for method, curve in evaluation.curves[infill].items():
        axes.plot(evaluation.areas, curve, marker="o", label=method)
    axes.set_xlabel("area of the mask")
    axes.set_ylabel(f"mean retention, infill {infill}")
    axes.legend(fontsize="small")
    return figure


def _write(folder: Path, name: str, figure: Figure) -> Path:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    path = folder / file_name(name)
    write_file(path, [content.getvalue()])
    return path
