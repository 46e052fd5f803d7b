"""Boxes, heads and segments in the page of `explain`, drawn by a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import onnx
from click.testing import CliRunner

from fsagn_onnx.cli.explain import command
from fsagn_onnx.testing.bright_detector import bright_detector, bright_picture

HOSTILE = ("red <img src=x onerror=alert(1)>", "green", "blue")


def test_boxes_are_drawn_over_the_picture_and_named_as_text(watched: Any, tmp_path: Path) -> None:
    onnx.save(bright_detector("yolov8", labels=HOSTILE), tmp_path / "m.onnx")
    cv2.imwrite(str(tmp_path / "a.png"), bright_picture([(3, 5, 0), (6, 2, 2)])[..., ::-1])
    words = [tmp_path / "m.onnx", tmp_path / "a.png", "--out", tmp_path / "out", "--method", "activation"]
    result = CliRunner().invoke(command, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    page = watched().open(tmp_path / "out" / "report.html")
    drawn = page.locator(".boxed rect")
    drawn.first.wait_for()
    assert drawn.count() == 2
    places = {drawn.nth(n).get_attribute("x") for n in range(2)}
    assert places == {"40", "16"}
    card = page.locator("article").first.inner_text()
    assert "2 boxes" in card
    assert HOSTILE[0] in card
