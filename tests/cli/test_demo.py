"""`fsagn-onnx demo`: builds once, reuses afterwards, and the second run needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsagn_onnx.cli.main import run
from fsagn_onnx.data.images import read_image
from fsagn_onnx.errors import ImageError
from fsagn_onnx.models import demo, demo_boards, lite0
from fsagn_onnx.models.boards import TYPES

SCRIPT = str(Path(sys.executable).with_name("fsagn-onnx"))


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, timeout=1800)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has run once."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = script("demo", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert "(built)" in done.stdout
    for path in demo.PHOTOGRAPHS:
        assert path in done.stdout
        assert (folder / "results" / "overlays" / f"{Path(path).stem}.png").is_file()
    for word in ("filter", "peak", "area", "keeps", "Egyptian cat", "espresso", "missile", "report.html"):
        assert word in done.stdout
    return folder


@pytest.mark.slow
def test_results_are_whole(out: Path) -> None:
    results = out / "results"
    lines = [json.loads(line) for line in (results / "explanations.jsonl").read_text().splitlines()]
    assert [Path(line["path"]).name for line in lines] == list(demo.PHOTOGRAPHS)
    for line in lines:
        assert len(line["predictions"]) >= 3
        assert len({explained["id"] for explained in line["filters"]}) == 5
        for explained in line["filters"]:
            assert 0 < explained["area"] <= 1
            assert 0 <= explained["retention"]["predicted"] <= 1
    assert json.loads((results / "manifest.json").read_text())["state"] == "done"


@pytest.mark.slow
def test_a_second_run_builds_nothing_and_needs_no_torch(out: Path, without_torch: Callable[..., Any]) -> None:
    explainer = out / "models" / "lite0-explainer.onnx"
    before = explainer.stat().st_mtime_ns
    done = without_torch("demo", "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["images"]) == len(demo.PHOTOGRAPHS)
    assert explainer.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_explainer_is_built_anew_when_its_parts_change(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.lite0_explainer(out / "models").reused
    monkeypatch.setattr(demo, "_fingerprint", lambda: "other")
    built = []
    monkeypatch.setattr(lite0, "build_lite0", lambda path: built.append(path))
    monkeypatch.setattr(lite0, "build_lite0_explainer", lambda path, model: built.append(path))
    stamp = out / "models" / "built.json"
    text = stamp.read_text()
    assert not demo.lite0_explainer(out / "models").reused
    stamp.write_text(text)
    assert [path.name for path in built] == ["lite0.onnx", "lite0-explainer.onnx"]


def test_without_scikit_image_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"pip install 'fsagn-onnx\[demo\]'"):
        demo.photographs()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder in which not even root can write")
def test_an_unwritable_folder_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--out", "/proc/fsagn"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write /proc/fsagn")
    assert error.count("\n") == 1


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("")
    assert run(["demo", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write ")
    assert error.count("\n") == 1


def test_boards_come_first_and_need_no_torch(tmp_path: Path, without_torch: Callable[..., Any]) -> None:
    """One defect of every type: the sentence, decisive filters, and the answer when the evidence is exchanged."""
    done = without_torch("demo", "--part", "boards", "--out", tmp_path, "--threads", "1")
    assert done.returncode == 0, done.stderr
    for kind in TYPES:
        assert f"/{kind}/" in done.stdout
    assert done.stdout.count("exchanged for the good board's: good") >= 4
    assert done.stdout.count("it rests on this") >= 4
    lines = [json.loads(line) for line in (tmp_path / "boards" / "explanations.jsonl").read_text().splitlines()]
    assert len(lines) == len(TYPES)
    assert all(line["evidence"] and len(line["filters"]) == 5 for line in lines)
    panel = read_image(tmp_path / "boards" / "exchange.png")
    assert panel.shape[0] > 1_500
    assert panel.shape[1] > 1_000


def test_boards_in_json(tmp_path: Path) -> None:
    done = script("demo", "--part", "boards", "--json", "--out", str(tmp_path), "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["images"]) == len(TYPES)


def test_missing_boards_give_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_boards, "HERE", tmp_path)
    with pytest.raises(ImageError, match="install fsagn-onnx again"):
        demo_boards.boards_folder()
