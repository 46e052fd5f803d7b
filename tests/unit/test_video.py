"""Videos: a row and a drawn frame per frame, in order; sequences, cameras that are not there, interrupts."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from fsagn_onnx.cli.main import run
from fsagn_onnx.errors import ImageError, OutputError, UsageError
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.video import Frames, FrameSource, draw_frame, explain_video, read_ahead
from fsagn_onnx.testing.synthetic import SyntheticParts

EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
COUNT = 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, (160, 120))
    for number, sample in enumerate(SyntheticParts("test", COUNT)):
        frame = cv2.resize(sample.image, (160, 120))[..., ::-1].copy()
        frame[:8, 120:128] = 25 * number  # the frame's number, to see that the order is kept
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(frame)


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.with_suffix(".jsonl").read_text(encoding="ascii").splitlines()]


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_a_frame_and_a_row_for_each_frame_in_order(clip: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"out.{ending}"
    words = ["video", str(EXPLAINER), str(clip), "--out", str(out), "--filters", "top:3"]
    assert run([*words, "--providers", "cpu", "--threads", "1"]) == 0
    rows, drawn = rows_of(out), frames_of(out)
    assert [row["frame"] for row in rows] == list(range(COUNT))
    assert rows[5]["seconds"] == pytest.approx(5 / 12.5)
    assert len(rows[0]["filters"]) == 3  # type: ignore[arg-type]
    assert len(drawn) == COUNT
    marks = [float(frame[1:5, 122:126].mean()) for frame in drawn]
    assert marks == pytest.approx([25 * n for n in range(COUNT)], abs=16)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, "out.jsonl"])


def test_each_frame_shows_what_its_answer_rests_on(clip: Path, tmp_path: Path) -> None:
    words = ["video", str(EXPLAINER), str(clip), "--limit", "2", "--threads", "1"]
    assert run([*words, "--out", str(tmp_path / "a.avi")]) == 0
    assert run([*words, "--out", str(tmp_path / "b.avi"), "--why", "dodo", "--filters", "against:1"]) == 0
    rows = rows_of(tmp_path / "a.avi")
    for row in rows:
        (found,) = row["evidence"]  # type: ignore[misc]
        assert found["class"] == row["predictions"][0]["index"]  # type: ignore[index]
        assert all(one["contribution"] > 0 for one in row["filters"])  # type: ignore[attr-defined]
    for row in rows_of(tmp_path / "b.avi"):
        assert [found["label"] for found in row["evidence"]] == ["dodo"]  # type: ignore[attr-defined]
        assert [one["contribution"] < 0 for one in row["filters"]] == [True]  # type: ignore[attr-defined]
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        frame = SyntheticParts("test", 1)[0].image
        (explained,) = explainer.explain(frame, "decisive:2", 0.2)
    drawn = draw_frame(frame, explained)
    kept = explained.mask(explained.evidence[0])
    edge = cv2.morphologyEx(kept.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) > 0
    beside = ~kept & ~edge
    for one in explained.filters:
        area = explained.mask(one).astype(np.uint8)
        beside &= cv2.morphologyEx(area, cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8)) == 0
    beside[: frame.shape[0] // 2, :] = False  # the legend
    assert beside.sum() > 100
    assert (drawn[beside] == (frame[beside] * 0.55).astype(np.uint8)).all()
    assert (drawn[edge] == 255).all(axis=1).any()
    nowhere = replace(explained, evidence=(replace(explained.evidence[0], area=0.0),), filters=())
    below = draw_frame(frame, nowhere)[frame.shape[0] // 2 :]
    assert (below == frame[frame.shape[0] // 2 :]).all()  # nothing is known to carry it: nothing is dimmed


def test_part_of_a_clip_and_a_sequence(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, frame in enumerate(frames_of(clip)):
        cv2.imwrite(str(tmp_path / f"{number:04d}.png"), frame)
    for source, name in ((clip, "a.mp4"), (tmp_path / "%04d.png", "b.mp4")):
        words = ["video", str(EXPLAINER), str(source), "--out", str(tmp_path / name), "--json"]
        assert run([*words, "--start", "2", "--every", "3", "--limit", "2", "--filters", "3,17"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["frames"] == 2
        assert document["provider"] == "CPUExecutionProvider"
        assert [row["frame"] for row in rows_of(tmp_path / name)] == [2, 5]


def test_an_interrupt_leaves_whole_files(clip: Path, tmp_path: Path) -> None:
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        frames = explain_video(explainer, FrameSource(str(clip)), tmp_path / "out.mp4", batch_size=1)
        next(frames)
        next(frames)
        frames.close()
    assert len(frames_of(tmp_path / "out.mp4")) == len(rows_of(tmp_path / "out.mp4")) == 2
    assert threading.active_count() < 30


def test_what_cannot_be_read_or_written_is_one_line(clip: Path, tmp_path: Path) -> None:
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        with pytest.raises(ImageError, match="no such file"):
            Frames(FrameSource("missing.mp4"))
        (tmp_path / "noise.mp4").write_bytes(b"noise" * 100)
        with pytest.raises(ImageError, match="cannot be opened"):
            Frames(FrameSource(str(tmp_path / "noise.mp4")))
        with pytest.raises(ImageError, match="cannot be opened"):
            Frames(FrameSource("camera:77"))
        with pytest.raises(UsageError, match=r"must end in .mp4"):
            list(explain_video(explainer, FrameSource(str(clip)), tmp_path / "out.gif"))
        with pytest.raises(OutputError, match="exists already"):
            list(explain_video(explainer, FrameSource(str(clip)), clip))
        with pytest.raises(ImageError, match="no frames from 99"):
            list(explain_video(explainer, FrameSource(str(clip), start=99), tmp_path / "out.mp4"))
        with pytest.raises(UsageError, match="start must be"):
            FrameSource(str(clip), every=0)


def test_reading_ahead_waits_for_the_consumer() -> None:
    taken: list[int] = []
    ahead = threading.Event()
    closed: list[bool] = []

    def source() -> Generator[int]:
        try:
            for number in range(1, 1000):
                taken.append(number)
                if number == 5:
                    ahead.set()
                yield number
        finally:
            closed.append(True)

    items = read_ahead(source(), 4)
    assert [next(items), next(items)] == [1, 2]
    ahead.wait()
    items.close()
    assert max(taken) <= 6
    assert closed == [True]


def test_a_run_without_frames_leaves_nothing_in_the_way_of_the_next(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "out.mp4"
    words = ["video", str(EXPLAINER), str(clip), "--out", str(out), "--providers", "cpu", "--limit", "1"]
    assert run([*words, "--start", "99"]) == 1
    assert not any(out.parent.iterdir())
    assert run(words) == 0
    assert len(rows_of(out)) == 1
