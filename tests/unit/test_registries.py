"""One registry per kind of thing that can be added; each knows what the files of its folder register."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from fsagn_onnx.cli.main import COMMANDS, ORDER
from fsagn_onnx.data.annotations import layouts
from fsagn_onnx.evaluation import METRICS
from fsagn_onnx.evaluation.metrics.registry import metrics
from fsagn_onnx.generator.variants.precision import lower_precisions
from fsagn_onnx.methods import METHODS
from fsagn_onnx.perturbation.disturbances import KINDS
from fsagn_onnx.runtime.variant import PRECISIONS

ROOT = Path(__file__).resolve().parents[2]


def test_every_registry_has_what_its_files_register() -> None:
    assert tuple(metrics()) == METRICS
    assert METRICS == (
        "retention",
        "curves",
        "specificity",
        "control",
        "calibration",
        "parts",
        "intervention",
        "decision",
    )
    assert tuple(KINDS) == ("blur", "noise", "brightness", "hue", "occlusion", "shift")
    assert len(layouts()) == 10
    assert {"fp32", *lower_precisions()} == set(PRECISIONS)
    assert lower_precisions()["int8"].calibrated


def test_commands_are_the_files_that_hold_one() -> None:
    holders = {
        path.stem
        for path in (ROOT / "cli").glob("*.py")
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "command"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
    }
    assert set(COMMANDS) == holders == set(ORDER)
    assert all(line.endswith(".") and len(line) > 20 for line in COMMANDS.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_where_its_file_says(name: str) -> None:
    entry = METHODS[name]
    if all(importlib.util.find_spec(package) is not None for package in entry.needs):
        module = importlib.import_module(f"fsagn_onnx.methods.{entry.module}")
        assert callable(getattr(module, entry.maker))
