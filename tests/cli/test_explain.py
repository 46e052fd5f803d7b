"""`fsagn-onnx explain` with the shipped explainer: what it writes, what it refuses, resuming, failing images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from fsagn_onnx.cli.explain import command
from fsagn_onnx.errors import ExplainerError, FsagnError, UsageError
from fsagn_onnx.explanations import job
from fsagn_onnx.testing.synthetic import SyntheticParts

MODELS = Path(__file__).resolve().parents[2] / "models"
EXPLAINER = MODELS / "demo_explainer.onnx"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    for index, name in enumerate(("a.png", "b <script>alert(1)</script>'\".png", "sub/a.png")):
        path = folder / name.replace("/script", "-script")
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = cv2.imencode(".png", SyntheticParts("test", 3)[index].image[..., ::-1])[1]
        path.write_bytes(encoded.tobytes())
    return folder


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=True)


def test_writes_all_files_and_escapes_names(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    formats = ("--format", "json", "--format", "md", "--format", "png")
    result = explain(EXPLAINER, images, "--out", out, "--json", "--verify", *formats)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "report.json").read_text(encoding="utf-8"))
    table = (out / "report.md").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 4 + 3 * 5
    assert "<script>" not in table
    assert cv2.imread(str(out / "report.png")).shape[1] == 1400
    lines = [json.loads(line) for line in (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3
    assert len(list((out / "masks").glob("*.npz"))) == len(list((out / "overlays").glob("*.png"))) == 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    with np.load(next((out / "masks").glob("*.npz"))) as arrays:
        assert arrays["area_rank"].shape == (5, 16, 16)
        assert arrays["filter_ids"].shape == (5,)
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def filters_of(out: Path) -> list[list[dict[str, Any]]]:
    lines = (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["filters"] for line in lines]


def test_the_first_images_are_measured_and_the_rest_predicted(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "MEASURED_IMAGES", 2)
    out = tmp_path / "out"
    result = explain(EXPLAINER, images, "--out", out, "--filters", "top:2")
    assert result.exit_code == 0, result.output
    known = [[found["retention"]["measured"] is not None for found in filters] for filters in filters_of(out)]
    assert known == [[True] * 2, [True] * 2, [False] * 2]
    assert all(0 < found["retention"]["random"] < 1 for filters in filters_of(out) for found in filters)
    assert "~" in result.stdout
    explain(EXPLAINER, images / "a.png", "--out", tmp_path / "few", "--filters", "top:2", "--no-measure")
    assert [found["retention"]["measured"] for found in filters_of(tmp_path / "few")[0]] == [None] * 2
    monkeypatch.setattr(job, "MEASURED_FILTERS", 1)
    explain(EXPLAINER, images / "a.png", "--out", tmp_path / "many", "--filters", "top:2")
    assert [found["retention"]["measured"] for found in filters_of(tmp_path / "many")[0]] == [None] * 2


def test_areas_by_a_target_and_filters_without_one(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = explain(EXPLAINER, images / "a.png", "--out", out, "--filters", "all", "--area", "r:.9", "--measure")
    assert result.exit_code == 0, result.output
    (filters,) = filters_of(out)
    there = [found for found in filters if found["area"] is not None]
    without = [found for found in filters if found["area"] is None]
    assert there
    assert all(found["peak"] > 0 and found["retention"]["measured"] > 0.8 for found in there)
    assert without
    assert all(found["box"] is None and found["retention"]["measured"] is None for found in without)
    assert all(found["area"] is None for found in filters if found["peak"] <= 0)


def test_corrupt_image_among_good_ones_is_listed_and_skipped(images: Path, tmp_path: Path) -> None:
    (images / "bad.png").write_bytes(b"no picture")
    (images / "empty.png").write_bytes(b"")
    result = explain(EXPLAINER, images, "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert "bad.png" in result.stderr
    assert "empty.png" in result.stderr
    assert len((tmp_path / "out" / "explanations.jsonl").read_text(encoding="utf-8").splitlines()) >= 3


def test_a_run_that_explains_nothing_writes_no_report(tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.png", tmp_path / "out"
    bad.write_bytes(b"no picture")
    result = explain(EXPLAINER, bad, "--out", out, "--format", "json", "--format", "md", "--format", "png")
    assert result.exit_code == 3, result.output
    assert not list(out.glob("report.*"))
    assert "no report: no image could be explained" in result.stdout
    assert "report.html" not in result.stdout
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["state"] == "done"
    assert manifest["counts"] == {"explained": 0, "failed": 1}
    cv2.imwrite(str(bad), SyntheticParts("test", 1)[0].image)
    assert explain(EXPLAINER, bad, "--out", out, "--resume").exit_code == 0
    assert (out / "report.html").exists()


def test_style_is_drawn_and_kept_by_a_run_that_goes_on(images: Path, tmp_path: Path) -> None:
    plain, heat = tmp_path / "plain", tmp_path / "heat"
    assert explain(EXPLAINER, images / "a.png", "--out", plain).exit_code == 0
    assert explain(EXPLAINER, images / "a.png", "--out", heat, "--style", "heat").exit_code == 0
    assert (plain / "overlays" / "a.png").read_bytes() != (heat / "overlays" / "a.png").read_bytes()
    assert '{"style":"heat"}' in (heat / "report.html").read_text(encoding="utf-8")
    result = explain(EXPLAINER, images / "a.png", "--out", heat, "--resume")
    assert 'was written with style "heat", but now it is "outline"' in str(result.exception)
    manifest = json.loads((plain / "manifest.json").read_text(encoding="utf-8"))
    del manifest["arguments"]["style"]  # as runs were written before there was a choice
    (plain / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert explain(EXPLAINER, images / "a.png", "--out", plain, "--resume").exit_code == 0


def test_resume_does_just_the_rest(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert explain(EXPLAINER, images, "--out", out).exit_code == 0
    lines = (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (out / "explanations.jsonl").write_text("".join(lines[:1]) + lines[1][: len(lines[1]) // 2], encoding="utf-8")
    result = explain(EXPLAINER, images, "--out", out, "--resume")
    assert result.exit_code == 0, result.output
    again = (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert again == lines


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--filters", "96"], UsageError, "no filter 96"),
        (["--filters", "best"], UsageError, "top:K"),
        (["--area", "1.5"], UsageError, "area must be"),
        (["--method", "activation"], UsageError, "plain models only"),
        (["--model", MODELS / "lite0_generator.safetensors"], FsagnError, "ONNX"),
    ],
)
def test_wrong_requests_are_one_line(
    images: Path, tmp_path: Path, arguments: list[object], kind: type[FsagnError], message: str
) -> None:
    result = explain(EXPLAINER, images, "--out", tmp_path / "out", *arguments)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_no_images_and_unusable_folders(images: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert isinstance(explain(EXPLAINER, tmp_path / "none", "--out", tmp_path / "out").exception, FsagnError)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert isinstance(explain(EXPLAINER, images, "--out", tmp_path / "file").exception, FsagnError)


def test_explainer_of_another_model_or_newer_format_is_refused(images: Path, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(EXPLAINER)
    entry = next(item for item in proto.metadata_props if item.key == "fsagn")
    described = json.loads(entry.value)
    entry.value = json.dumps({**described, "format": 3})
    onnx.save(proto, tmp_path / "newer.onnx")
    newer = explain(tmp_path / "newer.onnx", images, "--out", tmp_path / "out").exception
    assert isinstance(newer, ExplainerError)
    assert "upgrade" in str(newer)
    entry.value = json.dumps({**described, "content": "0" * 64})
    onnx.save(proto, tmp_path / "other.onnx")
    model = MODELS / "demo_cnn.onnx"
    other = explain(tmp_path / "other.onnx", images, "--out", tmp_path / "out", "--model", model).exception
    assert isinstance(other, ExplainerError)
    assert "another model" in str(other)


@pytest.mark.parametrize("method", ["activation", "optimise"])
def test_plain_model_is_explained_by_a_method_with_a_hint(images: Path, tmp_path: Path, method: str) -> None:
    result = explain(
        MODELS / "demo_cnn.onnx", images / "a.png", "--out", tmp_path / "out", "--method", method, "--filters", "top:2"
    )
    assert result.exit_code == 0, result.output
    assert "fsagn-onnx train" in result.stderr
