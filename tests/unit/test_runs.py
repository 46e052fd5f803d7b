"""The folder that a run fills: one protocol for explain, dissect, perturb and evaluate, and reading it back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fsagn_onnx.errors import OutputError, UsageError
from fsagn_onnx.evaluation.folder import EvaluationFolder
from fsagn_onnx.runs.column_folder import ColumnFolder, DissectionFolder, PerturbationFolder
from fsagn_onnx.runs.folder import RunFolder
from fsagn_onnx.runs.reader import FinishedRun
from fsagn_onnx.runs.tables import csv_text

KINDS = (DissectionFolder, PerturbationFolder, EvaluationFolder)
SUBJECT = {"methods": ["random"], "layer": "x", "area": 0.1, "parts": [], "disturbances": []}
DONE = {"images": 1, "annotated": 0, "summary": {}, "grid": [8, 8]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_folder_is_taken_up_or_replaced_alike(kind: type[RunFolder], tmp_path: Path) -> None:
    with kind(tmp_path, SUBJECT) as folder:
        folder.append_line(b'{"path": "a"}\n')
    with pytest.raises(OutputError, match="is not empty: go on with --resume, replace its results with --overwrite"):
        kind(tmp_path, SUBJECT)
    with pytest.raises(UsageError, match="exclude each other"):
        kind(tmp_path, SUBJECT, resume=True, overwrite=True)
    with pytest.raises(OutputError, match='was written with layer "x", but now it is "y"'):
        kind(tmp_path, {**SUBJECT, "layer": "y"}, resume=True)
    with kind(tmp_path, SUBJECT, resume=True) as folder:
        assert [line["path"] for line in folder.lines()] == ["a"]
    (tmp_path / "mine.txt").write_text("the user's own")
    with kind(tmp_path, {**SUBJECT, "layer": "y"}, overwrite=True) as folder:
        assert list(folder.lines()) == []
    assert (tmp_path / "mine.txt").is_file()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("the user's own")
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(OutputError, match="holds no results of 'dissect'"):
            DissectionFolder(tmp_path, SUBJECT, **options)
    with DissectionFolder(tmp_path / "run", SUBJECT):
        pass
    with pytest.raises(OutputError, match="holds no results of 'perturb'"):
        PerturbationFolder(tmp_path / "run", SUBJECT, resume=True)


def written(path: Path) -> ColumnFolder:
    """Two images, of which one failed."""
    with DissectionFolder(path, SUBJECT) as folder:
        folder.open_columns({"peaks": ("f4", (3,))})
        good, bad = {"path": "a"}, {"path": "b", "error": "b: no picture"}
        folder.append([(good, {"peaks": np.arange(3)}), (bad, None)])
        return folder


def test_a_finished_run_is_read_back(tmp_path: Path) -> None:
    folder = written(tmp_path)
    with pytest.raises(OutputError, match="unfinished run of 'dissect': finish it with --resume"):
        FinishedRun(tmp_path)
    folder.write_state("done", {**DONE, **folder.failed()})
    run = FinishedRun(tmp_path)
    assert run.kind == "dissect"
    assert run.manifest["failures"] == [{"path": "b", "message": "b: no picture"}]
    assert [line["path"] for line in run.index] == ["a"]
    np.testing.assert_array_equal(run.column("peaks", ("f4", (3,))), [[0, 1, 2]])
    assert run.has_column("peaks")
    assert not run.has_column("masks")
    with pytest.raises(OutputError, match=r"peaks has 12 bytes, expected 16: run it again"):
        run.column("peaks", ("f4", (4,)))
    with pytest.raises(OutputError, match="holds no results of 'perturb'"):
        FinishedRun(tmp_path, "perturb")


def test_rows_without_a_line_are_done_again(tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / "columns" / "peaks").open("ab") as file:
        file.write(b"\0" * 20)  # a row whose line was never written, and a part of the next
    with DissectionFolder(tmp_path, SUBJECT, resume=True) as folder:
        folder.open_columns({"peaks": ("f4", (3,))})
        assert (folder.count, folder.rows, len(folder.columns["peaks"])) == (2, 1, 1)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert [manifest[name] for name in ("kind", "state", "layer")] == ["dissect", "running", "x"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer": 5}, "field 'layer' must be a text of at most 10,000 characters, but got 5"),
        ({"area": "x"}, r"field 'area' must be a number in \(0, 1\], but got 'x'"),
        ({"parts": {"a": 1}}, "field 'parts' must be a text or a list or null, but got {'a': 1}"),
        ({"state": "gone"}, "field 'state' must be one of running, done, but got 'gone'"),
        ({"grid": [1, 2**40]}, r"field 'grid\[1\]' must be a whole number <= 16384"),
        ({"images": -1}, "field 'images' must be a whole number >= 0, but got -1"),
    ],
)
def test_a_damaged_manifest_is_one_line(change: dict[str, object], said: str, tmp_path: Path) -> None:
    written(tmp_path).write_state("done", DONE)
    manifest = tmp_path / "manifest.json"
    members = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(members | change))
    with pytest.raises(OutputError, match=f"manifest.json is damaged: {said}"):
        FinishedRun(tmp_path)
    with pytest.raises(OutputError, match="is damaged"):
        DissectionFolder(tmp_path, SUBJECT, resume=True)
    for missing in ("layer", "images"):
        manifest.write_text(json.dumps({name: value for name, value in members.items() if name != missing}))
        with pytest.raises(OutputError, match=f"is damaged: field '{missing}' is missing"):
            FinishedRun(tmp_path)


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"path": 3}', '{"path": "a", "error": 1}', '{"path": "a", "x": NaN}']
)
def test_a_damaged_line_of_an_index_is_named(line: str, tmp_path: Path) -> None:
    written(tmp_path).write_state("done", DONE)
    with (tmp_path / "images.jsonl").open("a") as index:
        index.write(f"{line}\n")
    with pytest.raises(OutputError, match=r"images\.jsonl is damaged in line 3: .*; start again with --overwrite"):
        FinishedRun(tmp_path).index  # noqa: B018
    with DissectionFolder(tmp_path, SUBJECT, resume=True) as folder, pytest.raises(OutputError, match="in line 3"):
        folder.open_columns({"peaks": ("f4", (3,))})


def test_a_name_that_is_no_utf_8_goes_through_an_index(tmp_path: Path) -> None:
    with DissectionFolder(tmp_path, SUBJECT) as folder:
        folder.append([({"path": "\udcff.png", "error": "x"}, None)])
        assert [failure.path for failure in folder.failures()] == ["\udcff.png"]


def test_a_run_of_before_the_content_was_called_so_goes_on(tmp_path: Path) -> None:
    subject = {**SUBJECT, "content": "ab"}
    with DissectionFolder(tmp_path / "d", subject), EvaluationFolder(tmp_path / "e", subject):
        pass
    for name, old in (("d/manifest.json", "model_sha256"), ("e/run.json", "model")):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text.replace('"content"', f'"{old}"'))
    for kind, name in ((DissectionFolder, "d"), (EvaluationFolder, "e")):
        with kind(tmp_path / name, subject, resume=True):
            pass
        with pytest.raises(OutputError, match='was written with content "ab", but now it is "cd"'):
            kind(tmp_path / name, {**subject, "content": "cd"}, resume=True)


def test_a_text_in_a_csv_is_never_a_formula() -> None:
    assert csv_text(["name"], [["=1+1"], [None], [2.5]]) == 'name\n\'=1+1\n""\n2.5\n'
