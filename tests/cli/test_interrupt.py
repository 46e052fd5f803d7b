"""Ctrl-C in the middle of `fsagn-onnx explain`: whole files only, and --resume does just the rest, in order."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsagn_onnx.testing.synthetic import SyntheticParts

EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
COUNT = 150


def heed_interrupts() -> None:
    """A job in the background of a shell, as a test run may be one, ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def explain(images: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    code = "from fsagn_onnx.cli.main import main; main()"
    words = ["explain", str(EXPLAINER), f"@{images}", "--out", str(out), "--filters", "top:1", "--providers", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words, "--threads", "1", "--batch-size", "2", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def done(out: Path) -> list[str]:
    lines = out / "explanations.jsonl"
    return [json.loads(line)["path"] for line in lines.read_bytes().splitlines()] if lines.exists() else []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to one process on Windows")
def test_ctrl_c_leaves_whole_files_and_a_run_that_can_go_on(tmp_path: Path) -> None:
    encoded = cv2.imencode(".png", SyntheticParts("test", 1)[0].image[..., ::-1])[1].tobytes()
    paths = [tmp_path / f"{number:03}.png" for number in range(COUNT)]
    for path in paths:
        path.write_bytes(encoded)
    listed, out = tmp_path / "list.txt", tmp_path / "out"
    listed.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    process = explain(listed, out)
    deadline = time.monotonic() + 120
    while len(done(out)) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "error: interrupted"
    before = done(out)
    assert 5 <= len(before) < COUNT
    assert before == [str(path) for path in paths[: len(before)]]
    assert not list(out.rglob(".*.part"))
    for masks in (out / "masks").glob("*.npz"):
        with np.load(io.BytesIO(masks.read_bytes())) as arrays:
            assert arrays["area_rank"].shape == (1, 16, 16)
    again = explain(listed, out, "--resume")
    _, said = again.communicate(timeout=300)
    assert (again.returncode, said) == (0, "")
    assert done(out) == [str(path) for path in paths]
