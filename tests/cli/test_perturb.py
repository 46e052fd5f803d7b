"""`fsagn-onnx perturb` on the shipped model: what it prints, exit status."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from fsagn_onnx.cli.perturb import command
from fsagn_onnx.perturbation.workload import Workload
from fsagn_onnx.runtime import Failure
from fsagn_onnx.terminal.perturbation import saying_time, workload_line
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
    assert "0 images x 1 filter and every annotated part x 2 disturbances x 3 strengths" in again.stderr


def test_it_says_before_it_starts_how_much_it_does() -> None:
    line = workload_line(Workload(images=14, filters=3, parts=False, disturbances=6, ablated=1280))
    assert line == (
        "14 images x 3 filters x 6 disturbances x 3 strengths x 4 places: up to 3,024 passes through the model; "
        "and 1,280 filters switched off in each image"
    )


def test_it_says_after_the_first_image_how_long_the_others_take() -> None:
    said: list[str] = []
    ticks = iter([10.0, 13.2])
    results = ["a.png", *(f"{number}.png" for number in range(13))]
    assert list(saying_time([Failure("x", "x: broken"), *results], 15, said.append, lambda: next(ticks)))[1:] == results
    assert said == ["the first image took 3.2 s: about 45 s for the others"]
    assert list(saying_time(["a.png"], 1, said.append)) == ["a.png"]
    assert len(said) == 1


def test_it_reads_a_plain_model_as_it_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_folder(folder, "val", 3)
    words = [str(MODELS / "demo_cnn.onnx"), str(MODELS / "demo_explainer.onnx"), str(folder / "images")]
    words += ["--filters", "top:1", "--disturbances", "blur", "--no-ablate", "--threads", "1"]
    wrong = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "a"), "--input", "photo"])
    assert "'photo'" in str(wrong.exception)
    wrong = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "b"), "--feed", "gain=1"])
    assert "'gain'" in str(wrong.exception)
    wrong = CliRunner().invoke(
        command, [*words, "--out", str(tmp_path / "c"), "--preprocess", str(tmp_path / "no.json")]
    )
    assert "no.json" in str(wrong.exception)
    paths = "\n".join(str(path) for path in sorted((folder / "images").iterdir()))
    words[2] = "-"
    done = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "d")], input=paths)
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("3 images x 1 filter x 1 disturbance x 3 strengths x 4 places: up to 36 passes")
