"""`evaluate` by workers: a stand-in for the cluster does the units in this process, in any order, and loses some."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fsagn_onnx.data.store import Store
from fsagn_onnx.errors import ImageError, OutputError, UsageError
from fsagn_onnx.evaluation import METRICS, Evaluation, Options, evaluate
from fsagn_onnx.explanations.parts import part_names
from fsagn_onnx.scale import cluster as cluster_module
from fsagn_onnx.scale import records
from fsagn_onnx.scale.cluster import Cluster
from fsagn_onnx.scale.isolation import ENDED
from fsagn_onnx.scale.pictures import Unit
from fsagn_onnx.scale.records import MeasuredByWorkers, RecordWriter
from fsagn_onnx.scale.work import Outcome, Work
from fsagn_onnx.testing.planted import write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer
from fsagn_onnx.testing.planted_set import write_planted_set

pytest.importorskip("pyarrow")
COUNT = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("records")
    write_planted(root / "planted.onnx")
    write_planted_explainer(root / "explainer.onnx")
    write_planted_set(root, COUNT)
    (root / "images" / "002a.png").write_bytes(b"no picture")
    return root


def asked(folder: Path, **changes: Any) -> tuple[Path, Path, list[Path], Options]:
    options = Options(
        infills=("inpaint", "mean"), filters=2, parts=folder / "names.json", threads=1,
        metrics=tuple(name for name in METRICS), class_methods=("random-class",), **changes,
    )  # fmt: skip
    return folder / "planted.onnx", folder / "explainer.onnx", [folder / "images"], options


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """Units that were given out, two pictures each; the last one is done first."""
    given: list[Unit] = []

    class Connected:
        def __enter__(self) -> int:
            return 2

        def __exit__(self, *told: object) -> None: ...

    def done(
        units: Sequence[Unit], opening: Callable[[], Work], cluster: Cluster, room: int, careful: bool = False
    ) -> Iterator[Outcome]:
        work = opening()
        for unit in reversed(units):
            given.append(unit)
            yield work.do(unit)
        assert isinstance(work, RecordWriter)
        assert isinstance(work.files, TemporaryDirectory)
        work.files.cleanup()

    monkeypatch.setattr(records, "PICTURES", 2)
    monkeypatch.setattr(cluster_module, "connected", lambda cluster: Connected())
    monkeypatch.setattr(cluster_module, "done_by_workers", done)
    return given


def told(found: Evaluation) -> dict[str, Any]:
    """All but what it cost."""
    document = found.to_dict()
    document.pop("costs")
    return document


def lines(out: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in json.loads(line).items() if name != "seconds"}
        for line in (out / "images.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Path]:
    out = tmp_path_factory.mktemp("alone") / "run"
    return evaluate(*asked(folder), out=out), out


def test_figures_are_those_of_one_process_to_the_bit(
    folder: Path, tmp_path: Path, alone: tuple[Evaluation, Path], workers: list[Unit]
) -> None:
    """Every family, with a picture that cannot be read, a next picture in another unit, and parts in any order."""
    seen: list[tuple[int, int]] = []
    found = evaluate(
        *asked(folder), out=tmp_path / "run", on_image=lambda *at: seen.append(at),
        measuring=MeasuredByWorkers(Cluster(), {}),
    )  # fmt: skip
    assert told(found) == told(alone[0])
    assert [failure.path for failure in found.failures] == [str(folder / "images" / "002a.png")]
    assert lines(tmp_path / "run") == lines(alone[1])
    assert len(workers) == 3
    assert seen == [(place + 1, COUNT + 1) for place in range(COUNT + 1)]
    assert found.costs.keys() == alone[0].costs.keys()
    with pytest.raises(OutputError, match="not empty"):
        evaluate(*asked(folder), out=tmp_path / "run", measuring=MeasuredByWorkers(Cluster(), {}))


def test_it_goes_on_with_the_lines_and_the_parts_that_are_there(
    folder: Path, tmp_path: Path, alone: tuple[Evaluation, Path], workers: list[Unit]
) -> None:
    """Begun by one process, gone on with by workers, and the other way round."""
    out = tmp_path / "run"
    shutil.copytree(alone[1], out)
    whole = (out / "images.jsonl").read_bytes().splitlines(keepends=True)
    (out / "images.jsonl").write_bytes(b"".join(whole[:3]))
    found = evaluate(*asked(folder), out=out, resume=True, measuring=MeasuredByWorkers(Cluster(), {}))
    assert told(found) == told(alone[0])
    assert [(unit.start, unit.stop) for unit in workers] == [(4, 6), (3, 4)]
    (out / "images.jsonl").write_bytes(whole[0])
    Store(out).remove(part_names(Store(out))[0].path)
    workers.clear()
    found = evaluate(*asked(folder), out=out, resume=True, measuring=MeasuredByWorkers(Cluster(), {}))
    assert told(found) == told(alone[0])
    assert [(unit.start, unit.stop) for unit in workers] == [(2, 4), (1, 2)]
    (out / "images.jsonl").write_bytes(whole[0])
    assert told(evaluate(*asked(folder), out=out, resume=True)) == told(alone[0])


def test_overwriting_removes_the_parts(folder: Path, tmp_path: Path, workers: list[Unit]) -> None:
    out = tmp_path / "run"
    options = asked(folder)
    evaluate(*options, out=out, measuring=MeasuredByWorkers(Cluster(), {}))
    evaluate(*options, out=out, overwrite=True)
    assert not (out / "rows").exists()


def test_a_picture_that_ends_its_worker_is_a_failure(
    folder: Path, tmp_path: Path, alone: tuple[Evaluation, Path], workers: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = cluster_module.done_by_workers

    def ending(units: Sequence[Unit], *more: Any) -> Iterator[Outcome]:
        return inner([unit for unit in units if not unit.start <= 4 < unit.stop], *more)

    monkeypatch.setattr(cluster_module, "done_by_workers", ending)
    found = evaluate(*asked(folder), out=tmp_path / "run", measuring=MeasuredByWorkers(Cluster(), {}))
    (ended,) = [failure for failure in found.failures if ENDED in failure.message]
    assert ended.path == lines(alone[1])[4]["path"]
    assert found.images == alone[0].images - 1


def test_what_cannot_be_measured_says_so_in_one_line(folder: Path, tmp_path: Path, workers: list[Unit]) -> None:
    with pytest.raises(UsageError, match="into the folder of --out"):
        evaluate(*asked(folder), measuring=MeasuredByWorkers(Cluster(), {}))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="none of the 1 images can be read"):
        evaluate(
            *asked(folder)[:2], [tmp_path / "broken.png"], asked(folder)[3], out=tmp_path / "run",
            measuring=MeasuredByWorkers(Cluster(), {}),
        )  # fmt: skip
