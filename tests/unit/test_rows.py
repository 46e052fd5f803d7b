"""The dataset of rows: the same rows by whatever way, masks that come back to the bit, part files that are whole."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from fsagn_onnx.cli.explain import command as explain
from fsagn_onnx.comparison.comparison import compare
from fsagn_onnx.data.store import Store
from fsagn_onnx.errors import FsagnError, ImageError, OutputError
from fsagn_onnx.explanations.parts import PartName, dataset_rows, part_names
from fsagn_onnx.explanations.rows import COLUMNS, mask_lengths, mask_of, picture_rows, row_schema
from fsagn_onnx.runtime.explainer import Explainer
from fsagn_onnx.scale.pictures import Unit, units_of
from fsagn_onnx.testing.synthetic import write_folder

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

MODELS = Path(__file__).resolve().parents[2] / "models"
EXPLAINER = MODELS / "demo_explainer.onnx"
COUNT = 7
OPTIONS = ["--no-measure", "--providers", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder, "val", COUNT)
    return folder / "images"


def ran(words: list[str], status: int = 0) -> Any:
    done = CliRunner().invoke(explain, [str(EXPLAINER), *words, *OPTIONS])
    assert done.exit_code == status, done.output
    return done


def rows_of(folder: Path, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    rows = [{name: row[name] for name in row if name not in without} for row in dataset_rows(Store(folder))]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


@pytest.fixture(scope="module")
def ordinary(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ordinary") / "run"
    ran([str(pictures), "--out", str(folder), "--format", "parquet"])
    return folder


@pytest.fixture(scope="module")
def large(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "run"
    ran([str(pictures), "--out", str(folder), "--overlays", "2"])
    return folder


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_run_lengths_are_those_of_coco() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    draw = np.random.default_rng(0)
    for mask in (draw.random((5, 7)) < 0.5, np.ones((3, 2), bool), np.zeros((3, 2), bool)):
        lengths = mask_lengths(mask)
        assert sum(lengths) == mask.size
        coded = coco.frPyObjects({"counts": lengths, "size": list(mask.shape)}, *mask.shape)
        np.testing.assert_array_equal(coco.decode(coded).astype(bool), mask)
        row = {"mask": lengths, "mask_height": mask.shape[0], "mask_width": mask.shape[1]}
        np.testing.assert_array_equal(mask_of(row, original=False), mask)


def test_a_row_holds_what_the_explanation_says(pictures: Path) -> None:
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        (explanation,) = explainer.explain(sorted(pictures.iterdir())[0])
    rows = list(picture_rows(3, "ab", explanation))
    assert [row["kind"] for row in rows] == ["filter"] * len(explanation.filters) + ["decision"]
    for row, found in zip(rows, (*explanation.filters, *explanation.evidence), strict=True):
        assert (row["number"], row["sha256"], row["class_label"]) == (3, "ab", explanation.predictions[0].label)
        assert (row["box_x0"], row["box_y0"], row["box_x1"], row["box_y1"]) == found.box
        np.testing.assert_array_equal(mask_of(row), explanation.mask(found))
        assert row["decision"] == pytest.approx(explanation.evidence[0].decision, rel=1e-5)
    assert set().union(*rows) <= set(COLUMNS)
    assert arrow.Table.from_pylist(rows, schema=row_schema()).num_rows == len(rows)


def test_ordinary_and_large_runs_write_the_same_rows(ordinary: Path, large: Path) -> None:
    rows = rows_of(ordinary)
    assert rows == rows_of(large)
    assert len({row["number"] for row in rows}) == COUNT
    assert all(len(row["sha256"]) == 64 for row in rows)


def test_a_large_run_shows_a_few_pictures(large: Path) -> None:
    assert len(list((large / "sample" / "overlays").iterdir())) == 2
    assert (large / "sample" / "report.html").is_file()
    assert not (large / "explanations.jsonl").exists()
    assert json.loads((large / "manifest.json").read_text())["counts"] == {"explained": COUNT, "failed": 0}


def test_a_plain_model_says_why_by_the_same_gradients(pictures: Path, tmp_path: Path) -> None:
    for name, more in (("ordinary", ["--format", "parquet"]), ("large", ["--overlays", "0"])):
        words = [str(MODELS / "demo_cnn.onnx"), str(pictures), "--why=top:1", "--out", str(tmp_path / name)]
        words += [*more, *OPTIONS]
        assert CliRunner().invoke(explain, words).exit_code == 0
    rows = rows_of(tmp_path / "large")
    assert rows == rows_of(tmp_path / "ordinary")
    assert {row["kind"] for row in rows} == {"filter", "decision"}


def test_chosen_pictures_have_overlays(pictures: Path, tmp_path: Path) -> None:
    chosen = sorted(pictures.iterdir())[3]
    ran([str(pictures), "--out", str(tmp_path / "run"), "--overlays", str(chosen)])
    assert [path.stem for path in (tmp_path / "run" / "sample" / "overlays").iterdir()] == [chosen.stem]


def test_compare_takes_a_dataset(ordinary: Path, large: Path) -> None:
    told = compare(ordinary, large)
    assert told.images == (COUNT, COUNT)
    assert not told.drifted


def test_pandas_reads_it(large: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(large / "rows")
    assert list(table.columns) == list(COLUMNS)
    assert table.number.nunique() == COUNT


def test_parquet_and_shards_give_the_same_rows(pictures: Path, large: Path, tmp_path: Path) -> None:
    paths = sorted(pictures.iterdir())
    parquet.write_table(
        arrow.table({"path": list(map(str, paths)), "bytes": [path.read_bytes() for path in paths]}),
        tmp_path / "bytes.parquet", row_group_size=3,
    )  # fmt: skip
    parquet.write_table(arrow.table({"path": list(map(str, paths))}), tmp_path / "paths.parquet")
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for path in paths:
            shard.add(path, path.name)
            (tmp_path / "x.json").write_text("{}")
            shard.add(tmp_path / "x.json", f"{path.stem}.json")
    expected = rows_of(large)
    for name in ("bytes.parquet", "paths.parquet"):
        ran([str(tmp_path / name), "--out", str(tmp_path / name.partition(".")[0]), "--overlays", "1"])
        assert rows_of(tmp_path / name.partition(".")[0]) == expected
    ran([str(tmp_path / "shard.tar"), "--out", str(tmp_path / "shard"), "--overlays", "1"])
    assert rows_of(tmp_path / "shard", without=("path",)) == rows_of(large, without=("path",))


def test_what_fails_is_named_and_tried_again(pictures: Path, large: Path, tmp_path: Path) -> None:
    missing, out = tmp_path / "later.png", tmp_path / "run"
    paths = sorted(pictures.iterdir())
    words = [*map(str, paths[:3]), str(missing), *map(str, paths[4:]), "--out", str(out), "--overlays", "0"]
    ran(words, status=3)
    with (out / "failed.csv").open(newline="") as file:
        ((number, path, message),) = list(csv.reader(file))[1:]
    assert (number, path) == ("3", str(missing))
    assert "No such file" in message
    assert "not empty" in ran(words, status=1).exception.args[0]
    missing.write_bytes(paths[3].read_bytes())
    ran([*words, "--resume"])
    assert (out / "failed.csv").read_text().splitlines() == ["number,path,message"]
    assert rows_of(out, without=("path",)) == rows_of(large, without=("path",))
    ran([*words, "--resume"])
    assert json.loads((out / "manifest.json").read_text())["counts"] == {"explained": COUNT, "failed": 0}


def test_resume_does_the_parts_that_are_missing(pictures: Path, large: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [str(pictures), "--out", str(out), "--overlays", "0", "--part-pictures", "2"]
    ran(words)
    parts = sorted((out / "rows").iterdir())
    assert len(parts) == 4
    kept = parts[0].stat().st_mtime_ns
    parts[2].unlink()
    (out / "rows" / ".part-x.parquet.part").write_bytes(b"half")
    ran([*words, "--resume"])
    assert sorted((out / "rows").iterdir()) == parts
    assert parts[0].stat().st_mtime_ns == kept
    assert rows_of(out) == rows_of(large)
    done = ran([str(sorted(pictures.iterdir())[0]), "--out", str(out), "--overlays", "0", "--resume"], status=1)
    assert "images" in done.exception.args[0]


def test_another_list_of_the_same_name_is_refused(pictures: Path, tmp_path: Path) -> None:
    listed, out = tmp_path / "list.txt", tmp_path / "run"
    paths = [str(path) for path in sorted(pictures.iterdir())]
    listed.write_text("\n".join(paths))
    ran([f"@{listed}", "--out", str(out), "--overlays", "0"])
    listed.write_text("\n".join(paths[::-1]))
    done = ran([f"@{listed}", "--out", str(out), "--overlays", "0", "--resume"], status=1)
    assert "other pictures" in done.exception.args[0]


def test_a_shard_that_breaks_off_loses_only_what_is_behind(pictures: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "whole.tar", "w") as shard:
        for path in sorted(pictures.iterdir()):
            shard.add(path, path.name)
    content = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: len(content) * 2 // 3])
    ran([str(tmp_path / "cut.tar"), "--out", str(tmp_path / "run"), "--overlays", "0"], status=3)
    counts = json.loads((tmp_path / "run" / "manifest.json").read_text())["counts"]
    assert counts["failed"] == 1
    assert counts["explained"] == len({row["number"] for row in rows_of(tmp_path / "run")}) >= 3
    assert "cut.tar" in (tmp_path / "run" / "failed.csv").read_text()


def test_a_repeated_picture_has_rows_for_each_place(pictures: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([str(sorted(pictures.iterdir())[0])] * 3))
    ran([f"@{listed}", "--out", str(tmp_path / "run"), "--overlays", "0"])
    assert {row["number"] for row in rows_of(tmp_path / "run")} == {0, 1, 2}


def test_a_damaged_part_is_named(large: Path, tmp_path: Path) -> None:
    (name,) = part_names(Store(large))
    (tmp_path / "rows").mkdir()
    (tmp_path / name.path).write_bytes((large / name.path).read_bytes()[:-50])
    with pytest.raises(OutputError, match=rf"{name}.* is damaged"):
        list(dataset_rows(Store(tmp_path)))
    assert PartName.read(str(name)) == name
    assert PartName.read("x.parquet") is None


def test_units_cut_any_list(pictures: Path, tmp_path: Path) -> None:
    assert [(u.start, u.stop) for u in units_of([str(pictures)], 3)] == [(0, 3), (3, 6), (6, 7)]
    (unit,) = units_of([str(pictures)], 10)
    pieces = list(unit.split(3))
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 3), (3, 6), (6, 7)]
    assert [name for piece in pieces for _, name, _ in piece.contents()] == list(unit.names)
    assert unit.cut(0, 7).part == unit.part != pieces[0].part
    parquet.write_table(arrow.table({"x": [1]}), tmp_path / "x.parquet")
    (without,) = units_of([str(tmp_path / "x.parquet")])
    with pytest.raises(ImageError, match="none of the columns path, image, bytes"):
        list(without.contents())
    with pytest.raises(FsagnError):
        list(units_of(["nosuch://bucket/folder"]))
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no tar" * 1000)
    with pytest.raises(ImageError, match=r"broken\.tar"):
        list(Unit(0, 9, file=str(broken)).contents())
