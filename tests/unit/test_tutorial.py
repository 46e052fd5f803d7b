"""The tutorial has its outputs, is small, holds the cells of its source, and its first cells run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from fsagn_onnx.errors import UsageError
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.testing.planted import planted_picture
from fsagn_onnx.testing.planted_explainer import write_planted_explainer

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial"


def test_the_notebook_is_whole_small_and_executed() -> None:
    content = (TUTORIAL / "tutorial.ipynb").read_text(encoding="utf-8")
    assert len(content) < 2_000_000
    notebook = json.loads(content)
    make = runpy.run_path(str(TUTORIAL / "make.py"))
    source = list(make["cells"]((TUTORIAL / "cells.md").read_text(encoding="utf-8")))
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]] == source
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in code)
    assert sum("image/jpeg" in output.get("data", {}) for cell in code for output in cell["outputs"]) >= 3
    assert "/root/" not in content
    for cell in code:
        compile("".join(cell["source"]), "cell", "exec")


def test_cells_run_as_a_notebook_runs_them() -> None:
    make = runpy.run_path(str(TUTORIAL / "make.py"))
    names: dict[str, object] = {}
    outputs = make["run"]("x = 2\nprint('hello')\nx + 1", names)
    assert outputs[0] == {"output_type": "stream", "name": "stdout", "text": ["hello\n"]}
    assert outputs[1]["data"] == {"text/plain": ["3"]}
    assert make["run"]("y = x", names) == []


def test_plot_shows_any_area(tmp_path: Path) -> None:
    path = write_planted_explainer(tmp_path / "explainer.onnx")
    with Explainer(path, providers="cpu", threads=1) as explainer:
        (explanation,) = explainer.explain(planted_picture(0).image, filters="top:2")
    own, tenth = explanation.plot(), explanation.plot(area=0.5)
    assert own._repr_png_().startswith(b"\x89PNG")
    assert np.any(own.pixels != tenth.pixels)
    assert tenth.save(tmp_path / "panel.png").stat().st_size > 1000
    assert explanation.filters[0].area != 0.5
    with pytest.raises(UsageError, match="area must be"):
        explanation.plot(area=2)
