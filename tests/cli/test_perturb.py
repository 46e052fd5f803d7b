"""`fsagn-onnx perturb` on the shipped model: what it prints, exit status."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from fsagn_onnx.cli.perturb import command
from fsagn_onnx.testing.synthetic import write_folder

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_it_ranks_the_parts_of_a_class(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_folder(folder, "val", 50)
    bumble = [str(folder / "images" / f"val-{number:05d}.png") for number in range(1, 50, 10)]  # decided by its wheel
    (folder / "images" / "broken.png").write_bytes(b"")
    words = [str(MODELS / "demo_cnn.onnx"), str(MODELS / "demo_explainer.onnx"), *bumble]
    words += [str(folder / "images" / "broken.png"), "--parts", str(folder), "--filters", "top:1", "--threads", "1"]
    words += ["--disturbances", "occlusion,noise", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(command, [*words, "--json"])
    assert result.exit_code == 3, result.output
    assert "broken.png" in result.stderr
    document = json.loads(result.stdout)
    assert document["images"] == 5
    assert document["parts"]["bumble"][0]["region"] == "wheel"
    again = CliRunner().invoke(command, [*words, "--resume"])
    assert again.exit_code == 3, again.output
    assert "wheel" in again.stdout
