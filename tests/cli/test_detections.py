"""`explain` of detectors and segmentation networks: lines, files, pages and pictures say what is found, and where."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper

from fsagn_onnx.cli.explain import command
from fsagn_onnx.cli.inspect import command as inspect
from fsagn_onnx.data.images import read_image
from fsagn_onnx.errors import UsageError
from fsagn_onnx.runtime.drawing.found import class_color
from fsagn_onnx.testing.bright_detector import bright_detector, bright_picture

HOSTILE = ("red </script><script>alert(1)</script>", "green \x1b[31m", "blue")


def explain(*words: object) -> Result:
    return CliRunner().invoke(command, [*map(str, words), "--method", "activation", "--filters", "top:2"])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, cells in (("a", [(3, 5, 0), (6, 2, 2)]), ("b", [(0, 7, 1)]), ("c", [])):
        cv2.imwrite(str(folder / f"{name}.png"), bright_picture(cells)[..., ::-1])
    return folder


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("layout", ["yolov8", "torchvision"])
def test_boxes_are_printed_written_and_drawn_with_escaped_names(layout: str, pictures: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "m.onnx", tmp_path / "out"
    onnx.save(bright_detector(layout, labels=HOSTILE), model)
    result = explain(model, pictures, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"boxes are read as {layout}" in result.stderr
    assert "blue 100% at 16, 48, 24, 56" in result.stdout
    assert "2 boxes: " in result.stdout
    assert "no box" in result.stdout
    assert "\x1b" not in result.stdout
    first, second, third = lines(out)
    assert {tuple(box["box"]) for box in first["detections"]} == {(40, 24, 48, 32), (16, 48, 24, 56)}  # type: ignore[attr-defined]
    assert [box["label"] for box in second["detections"]] == [HOSTILE[1]]  # type: ignore[attr-defined]
    assert third["detections"] == []
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["detections"]["layout"] == layout
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert '"boxes"' in page
    overlay = read_image(out / "overlays" / "b.png")
    assert (overlay == np.array(class_color(1))).all(axis=2).sum() > 50


def test_the_layout_can_be_named_and_switched_off_and_a_run_keeps_it(pictures: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "m.onnx", tmp_path / "out"
    onnx.save(bright_detector("boxes-scores"), model)
    assert explain(model, pictures, "--out", out, "--detections", "none").exit_code == 0
    assert all("detections" not in line for line in lines(out))
    again = explain(model, pictures, "--out", out, "--resume")
    assert "detections" in str(again.exception)
    assert explain(model, pictures, "--out", out, "--overwrite", "--detections", "boxes-scores").exit_code == 0
    assert len(lines(out)[0]["detections"]) == 2  # type: ignore[arg-type]
    wrong = explain(model, pictures, "--out", tmp_path / "wrong", "--detections", "yolov8")
    assert isinstance(wrong.exception, UsageError)
    assert not (tmp_path / "wrong").exists()


def test_names_of_classes_can_be_given(pictures: Path, tmp_path: Path) -> None:
    model, names = tmp_path / "m.onnx", tmp_path / "names.txt"
    onnx.save(bright_detector("yolov8", labels=None), model)
    names.write_text("rot\ngrün\nblau\n", encoding="utf-8")
    result = explain(model, pictures, "--out", tmp_path / "out", "--labels", names)
    assert "grün 100% at 56, 0, 64, 8" in result.stdout, result.output


def test_inspect_says_how_boxes_are_read(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(bright_detector("yolox"), model)
    result = CliRunner().invoke(inspect, [str(model), "--no-convert"])
    assert "boxes in 'output': yolox (1 box in each cell of stride 8, 16, 32, 3 classes)" in " ".join(
        result.stdout.split()
    )


def test_segments_are_printed_written_and_drawn(pictures: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "m.onnx", tmp_path / "out"
    proto = bright_detector("yolov8", labels=("red", "green", "blue", "x", "y", HOSTILE[0]))
    proto.graph.node.append(helper.make_node("Softmax", ["features"], ["segments"], axis=1))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("segments", 1, ["N", 6, 64, 64]))
    onnx.save(proto, model)
    result = explain(model, pictures, "--out", out)
    assert result.exit_code == 0, result.output
    assert "of the picture: " in result.stdout
    first = lines(out)[0]["segments"]
    assert sum(segment["share"] for segment in first) == pytest.approx(1, abs=1e-4)  # type: ignore[attr-defined]
    overlay = read_image(out / "overlays" / "a.png")
    for segment in first[:2]:  # type: ignore[index]
        assert (overlay == np.array(class_color(segment["index"]))).all(axis=2).sum() > 50, "its name in the legend"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert '"segments"' in page
    assert "<script>alert(1)" not in page
