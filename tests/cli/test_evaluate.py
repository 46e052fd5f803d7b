"""`fsagn-onnx evaluate` on the shipped explainer: files, JSON, exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fsagn_onnx.cli.evaluate import command
from fsagn_onnx.testing.synthetic import write_folder

MODELS = Path(__file__).resolve().parents[2] / "models"
QUICK = ("--metrics", "retention", "--filters", "2", "--threads", "1", "--infills", "inpaint")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    write_folder(folder, "test", 3)
    return folder / "images"


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_tables_plots_and_lines(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(MODELS / "demo_cnn.onnx", MODELS / "demo_explainer.onnx", images, *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    assert "retention AUC" in result.stdout
    assert "generator" in result.stdout
    assert str(out / "evaluation.md") in result.stdout
    assert len((out / "images.jsonl").read_text().splitlines()) == 3
    assert (out / "plots" / "retention-auc.png").is_file()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "How good the masks are" in page
    again = evaluate(MODELS / "demo_cnn.onnx", MODELS / "demo_explainer.onnx", images, *QUICK, "--out", out)
    assert again.exit_code == 1
    assert "--resume" in str(again.exception)


def test_json_is_one_document_and_a_broken_image_ends_in_3(images: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    result = evaluate(
        MODELS / "demo_cnn.onnx", MODELS / "demo_explainer.onnx", bad, images, *QUICK, "--json", "--refine", 1
    )
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["images"] == 3
    assert document["methods"] == ["generator", "generator+refine1", "activation", "random"]
    assert "bad.png" in result.stderr


def test_a_plain_model_needs_no_explainer(images: Path) -> None:
    result = evaluate(
        MODELS / "demo_cnn.onnx", images, *QUICK, "--methods", "gradient,rise", "--layer", "block4", "--json"
    )
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["layer"] == "block4"
    assert document["costs"]["rise"]["forward"] == 500
    assert document["costs"]["gradient"]["backward"] == 2


def test_no_images_is_wrong_usage() -> None:
    result = evaluate(MODELS / "demo_cnn.onnx", MODELS / "demo_explainer.onnx")
    assert result.exit_code == 2
    assert "name images after the explainers" in result.stderr
