"""`fsagn-onnx dissect` on the shipped model: what it prints, exit status, one line errors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from fsagn_onnx.cli.dissect import command
from fsagn_onnx.data.images import read_image
from fsagn_onnx.dissection import Dissection
from fsagn_onnx.dissection.table import dissection_table
from fsagn_onnx.runtime import Explainer
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


def test_it_looks_at_the_filters_that_carry_the_answers(tmp_path: Path) -> None:
    pictures = [MODELS.parent / "examples" / "pcb" / folder for folder in ("open", "short")]
    arguments = [MODELS / "boards_cnn.onnx", MODELS / "boards_explainer.onnx", *pictures, "--filters", "decisive:2,127"]
    options = ["--threads", "1", "--permutations", "99", "--out", tmp_path / "out"]
    result = CliRunner().invoke(command, [str(word) for word in [*arguments, *options]])
    assert result.exit_code == 0, result.output
    dissection = Dissection.load(tmp_path / "out")
    with Explainer(MODELS / "boards_explainer.onnx", threads=1) as explainer:
        explained = explainer.explain(pictures, "decisive:2")
    expected: dict[int, Counter[str]] = {127: Counter()}
    for one in explained:
        for found in one.filters:
            expected.setdefault(found.id, Counter())[one.predictions[0].title] += 1
    assert {row.filter: row.decisive for row in dissection.filters} == expected
    answers = Counter(one.predictions[0].title for one in explained)
    assert dissection.summary["decisive"] == {"most": 2, "pictures": answers}
    best = max(dissection.filters, key=lambda row: row.decisive.get("short", 0))
    said = f"short {best.decisive['short']}/{answers['short']}"
    assert said in (dissection.decisive_for(best) or "")
    assert f"short ({answers['short']} images): filter {best.filter} in {best.decisive['short']}" in result.stdout
    table = dissection_table(dissection)
    column = table.head.index("decisive in")
    assert any(said in str(row[column]) for row in table.rows)
    again = CliRunner().invoke(command, [str(word) for word in [*arguments, *options, "--resume"]])
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("filters", "complaint"),
    [("top:3", "or 'decisive:K'"), ("against:3", "or 'decisive:K'"), ("decisive:0", "at least")],
)
def test_filters_that_it_does_not_take_are_told(filters: str, complaint: str, tmp_path: Path) -> None:
    words = [MODELS / "boards_cnn.onnx", MODELS / "boards_explainer.onnx", tmp_path, "--out", tmp_path / "out"]
    result = CliRunner().invoke(command, [str(word) for word in [*words, "--filters", filters]])
    assert complaint in str(result.exception)


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_usage(words: list[str]) -> None:
    result = CliRunner().invoke(command, words)
    assert result.exit_code == (0 if words else 2)
    assert "permutation" in result.output or "Usage" in result.output
