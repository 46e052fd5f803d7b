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
COUNT, STOPPED = 40, 7
PATIENCE = 1800
"""Seconds that a busy machine gets for what takes an idle one moments."""
MAIN = "from fsagn_onnx.cli.main import main; main()"
HALTED = f"""
import signal, threading
from fsagn_onnx.cli.main import main
from fsagn_onnx.data.files import LineFile
append, written, interrupted = LineFile.append, [], threading.Event()
def halting(self, line):
    append(self, line)
    written.extend([line] if self.path.name == "explanations.jsonl" else [])
    if len(written) == {STOPPED}:
        interrupted.wait()
def interrupt(*signal_and_frame):
    interrupted.set()
    signal.default_int_handler(*signal_and_frame)
LineFile.append = halting
signal.signal(signal.SIGINT, interrupt)
main()
"""
"""The same, and after so many pictures it waits for the interrupt."""


def heed_interrupts() -> None:
    """A job in the background of a shell, as a test run may be one, ignores SIGINT, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def explain(code: str, images: Path, out: Path, *options: str) -> subprocess.Popen[str]:
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
    process = explain(HALTED, listed, out)
    while len(done(out)) < STOPPED and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.strip() == "error: interrupted"
    before = done(out)
    assert STOPPED <= len(before) < COUNT
    assert before == [str(path) for path in paths[: len(before)]]
    assert not list(out.rglob(".*.part"))
    for masks in (out / "masks").glob("*.npz"):
        with np.load(io.BytesIO(masks.read_bytes())) as arrays:
            assert arrays["area_rank"].shape == (1, 16, 16)
    again = explain(MAIN, listed, out, "--resume")
    _, said = again.communicate(timeout=PATIENCE)
    assert (again.returncode, said) == (0, "")
    assert done(out) == [str(path) for path in paths]
