"""`fsagn-onnx bench` on the shipped model: right before it is timed, table and JSON, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from fsagn_onnx.benchmark import Spread, paired
from fsagn_onnx.cli.bench import command
from fsagn_onnx.errors import ExplainerError, UsageError

MODELS = Path(__file__).resolve().parents[2] / "models"
MODEL, EXPLAINER = MODELS / "demo_cnn.onnx", MODELS / "demo_explainer.onnx"


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_rows_for_every_setting(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    common = ("--batch", "1,2", "--filters", "3,500", "--threads", "1", "--providers", "cpu", "--pairs", "2")
    result = bench(MODEL, EXPLAINER, *common, "--out", out)
    assert result.exit_code == 0, result.output
    assert "demo_explainer.onnx" in result.output
    document = json.loads(out.read_text(encoding="ascii"))
    assert [(row["batch"], row["filters"]) for row in document["rows"]] == [(1, 3), (1, 96), (2, 3), (2, 96)]
    assert all(row["same_class"] == 1 and row["ratio"]["median"] > 0 for row in document["rows"])
    assert document["machine"]["processor"]
    assert document["explainers"][0]["added_bytes"] == EXPLAINER.stat().st_size - MODEL.stat().st_size
    printed = json.loads(bench(MODEL, EXPLAINER, *common, "--json").stdout)
    assert len(printed["rows"]) == 4


def test_an_explainer_whose_model_answers_otherwise_is_not_timed(tmp_path: Path) -> None:
    proto = onnx.load(EXPLAINER)
    gemm = next(node for node in proto.graph.node if node.op_type in ("Gemm", "MatMul") and "fsagn" not in node.name)
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name in gemm.input)
    array = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(-array, weight.name))
    onnx.save(proto, tmp_path / "other.onnx")
    error = bench(MODEL, tmp_path / "other.onnx", "--batch", "4", "--pairs", "1").exception
    assert isinstance(error, ExplainerError)
    assert "answers otherwise" in str(error)


@pytest.mark.parametrize("wrong", [("--batch", "0"), ("--filters", "a"), ("--threads", "1,,2"), ("--pairs", "0")])
def test_wrong_numbers_are_wrong_usage(wrong: tuple[str, str]) -> None:
    assert bench(MODEL, EXPLAINER, *wrong).exit_code == 2


def test_no_images_is_one_line(tmp_path: Path) -> None:
    assert isinstance(bench(MODEL, EXPLAINER, tmp_path).exception, UsageError)


def test_pairs_are_taken_back_to_back() -> None:
    calls: list[int] = []
    first, second, ratio = paired(lambda: calls.append(1), lambda: calls.append(2), 5)
    assert calls == [1, 2] * 8
    assert all(
        isinstance(spread, Spread) and spread.low <= spread.median <= spread.high for spread in (first, second, ratio)
    )
    assert Spread.of(np.array([1.0, 2.0, 3.0])).median == 2
