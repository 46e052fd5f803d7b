"""`fsagn-onnx dissect` on the shipped model: what it prints, exit status, one line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fsagn_onnx.cli.dissect import command
from fsagn_onnx.data.images import read_image
from fsagn_onnx.testing.synthetic import write_folder

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_it_names_parts_of_the_demo_cnn(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_folder(folder, "val", 60)
    (folder / "images" / "broken.png").write_bytes(b"")
    arguments = [MODELS / "demo_cnn.onnx", MODELS / "demo_explainer.onnx", folder / "images", "--out", tmp_path / "out"]
    options = ["--parts", folder, "--permutations", "99", "--threads", "1", "--json"]
    result = CliRunner().invoke(command, [str(word) for word in [*arguments, *options]])
    assert result.exit_code == 3, result.output
    assert "broken.png" in result.stderr
    document = json.loads(result.stdout)
    assert document["images"] == 60
    assert document["summary"]["named"] >= 48  # 93 of 96 with 400 pictures
    assert document["summary"]["instability"]["difference"][2] < 0  # masks are steadier than activation peaks
    again = CliRunner().invoke(command, [str(word) for word in [*arguments, *options[:-1], "--resume"]])
    assert again.exit_code == 3, again.output
    assert "stand for a part" in again.stdout
    words = [*arguments, *options[:-1], "--resume", "--format", "json", "--format", "md", "--format", "png"]
    assert CliRunner().invoke(command, [str(word) for word in words]).exit_code == 3
    out = tmp_path / "out"
    assert len((out / "report.md").read_text(encoding="utf-8").splitlines()) == 4 + 96
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["images"] == 60
    assert read_image(out / "report.png").shape[1] > 400
    assert str(tmp_path / "out") in again.stdout


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_usage(words: list[str]) -> None:
    result = CliRunner().invoke(command, words)
    assert result.exit_code == (0 if words else 2)
    assert "permutation" in result.output or "Usage" in result.output
