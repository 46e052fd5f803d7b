"""A cluster of two nodes gives the rows of one process: from a disk and from a store, whatever ends its workers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fsagn_onnx.data.store import Store
from fsagn_onnx.explanations.parts import PartContent, PartFacts, dataset_rows, part_names
from fsagn_onnx.scale.cluster import Cluster
from fsagn_onnx.scale.isolation import ENDED, all_done
from fsagn_onnx.scale.pictures import Unit
from fsagn_onnx.scale.work import Outcome
from fsagn_onnx.testing.planted import write_planted_folder
from fsagn_onnx.testing.synthetic import write_folder

pytest.importorskip("pyarrow")

EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
COUNT = 6
RUN = "import sys; from fsagn_onnx.cli.main import run; sys.exit(run(sys.argv[1:]))"


def command(words: Sequence[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    options = ["--no-measure", "--providers", "cpu", "--overlays", "1"]
    return subprocess.run(
        [sys.executable, "-c", RUN, "explain", str(EXPLAINER), *words, *options],
        capture_output=True, text=True, timeout=1800, env={**os.environ, **(env or {})},
    )  # fmt: skip


def rows_of(where: str | Path, *without: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(str(row[name]) for name in row if name not in without) for row in dataset_rows(Store(where)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder, "val", COUNT)
    return folder / "images"


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert command([str(pictures), "--out", str(folder)]).returncode == 0
    return folder


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket of an S3 server on loopback; whoever is started after it finds the server."""
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
        running.stop()


@pytest.fixture(scope="module")
def nodes(bucket: str) -> Iterator[Any]:
    """Two nodes of a core each."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "600")
        patch.setenv("RAY_worker_niceness", "0")
        options = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=options)
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        yield cluster
        cluster.shutdown()


@contextlib.contextmanager
def joined(cluster: Any) -> Iterator[None]:
    """This process as a driver."""
    ray = pytest.importorskip("ray")
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def test_without_ray_the_option_says_what_to_install(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = command([str(pictures), "--out", str(tmp_path / "run"), "--cluster"], {"PYTHONPATH": path})
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: --cluster needs Ray (No module named 'ray'): pip install 'fsagn-onnx[scale]'"
    ]
    assert not (tmp_path / "run").exists()


def test_without_a_cluster_nothing_of_ray_is_imported(pictures: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from fsagn_onnx.cli.main import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'ray'], 'ray is there'"
    )
    words = [str(EXPLAINER), str(pictures), "--out", str(tmp_path / "run"), "--overlays", "1", "--no-measure"]
    subprocess.run([sys.executable, "-c", code, "explain", *words], check=True, timeout=1800)


def test_what_is_no_address_is_refused(pictures: Path, tmp_path: Path) -> None:
    done = command(["--out", str(tmp_path / "run"), "--cluster", str(pictures), str(pictures)])
    assert done.returncode == 1
    assert "expected no address (this machine's cores), auto" in done.stderr
    done = command([str(pictures), "--out", str(tmp_path / "run"), "--gpus-per-worker", "1"])
    assert "goes with --cluster" in done.stderr


def test_a_store_for_input_and_output(bucket: str, pictures: Path, alone: Path) -> None:
    for path in pictures.iterdir():
        Store(f"{bucket}/in").write(path.name, path.read_bytes())
    done = command([f"{bucket}/in", "--out", f"{bucket}/one"])
    assert done.returncode == 0, done.stderr
    assert rows_of(f"{bucket}/one", "path") == rows_of(alone, "path")
    assert Store(f"{bucket}/one").read("sample/report.html")
    (name,) = part_names(Store(f"{bucket}/one"))
    Store(f"{bucket}/one").remove(name.path)
    assert command([f"{bucket}/in", "--out", f"{bucket}/one"]).returncode == 1
    assert command([f"{bucket}/in", "--out", f"{bucket}/one", "--resume"]).returncode == 0
    assert rows_of(f"{bucket}/one", "path") == rows_of(alone, "path")
    done = command([str(pictures), "--out", "s3://nobucket/run"])
    assert done.returncode == 1
    assert "s3://nobucket/run/manifest.json" in done.stderr


@pytest.mark.slow
def test_two_nodes_give_the_same_rows(nodes: Any, bucket: str, pictures: Path, alone: Path, tmp_path: Path) -> None:
    words = [str(pictures), "--out", str(tmp_path / "run"), "--cluster", nodes.address]
    done = command(words)
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "run") == rows_of(alone)
    assert "Ray" not in done.stderr, done.stderr
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([*(str(path) for path in sorted(pictures.iterdir())), f"{bucket}/nothing.png"]))
    done = command([f"@{listed}", "--out", f"{bucket}/two", "--cluster", nodes.address])
    assert done.returncode == 3, done.stderr
    assert rows_of(f"{bucket}/two") == rows_of(alone)
    assert b"nothing.png" in (Store(f"{bucket}/two").read("failed.csv") or b"")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_what_ends_its_worker_is_skipped_alone(nodes: Any, tmp_path: Path) -> None:
    """Picture 37 ends whoever takes it; everything else is done once, and it is named after two tries."""
    from fsagn_onnx.scale.cluster import done_by_workers

    where, tries = str(tmp_path / "run"), tmp_path / "tries"
    Store(where)
    tries.mkdir()

    class Ending:
        def do(self, unit: Unit) -> Outcome:
            (tries / f"{unit.start}-{unit.stop}-{os.getpid()}").touch()
            if unit.start <= 37 < unit.stop:
                os._exit(9)
            facts = PartFacts(unit.stop - unit.start)
            content = PartContent()
            content.add({"number": number, "path": unit.name(number)} for number in range(unit.start, unit.stop))
            content.save(Store(where), unit.part, facts)
            return Outcome(unit.start, unit.stop, facts)

    names = tuple(f"{number}.png" for number in range(120))
    units = [Unit(start, start + 60, names[start : start + 60]) for start in (0, 60)]
    cluster = Cluster(nodes.address)
    with joined(nodes):
        outcomes = list(
            all_done(units, lambda some, careful: done_by_workers(some, Ending, cluster, 2, careful), Store(where))
        )
    assert sum(outcome.facts.explained for outcome in outcomes) == 119
    (failed,) = [failed for outcome in outcomes for failed in outcome.facts.failures]
    assert (failed.number, failed.path) == (37, "37.png")
    assert ENDED in failed.message
    assert [row["number"] for row in dataset_rows(Store(where))] == [n for n in range(120) if n != 37]
    assert len(list(tries.glob("37-38-*"))) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_node_that_leaves_is_made_up_for(nodes: Any, tmp_path: Path) -> None:
    from fsagn_onnx.scale.cluster import done_by_workers

    where, started = str(tmp_path / "run"), tmp_path / "started"
    Store(where)
    started.mkdir()

    class Slow:
        def do(self, unit: Unit) -> Outcome:
            from time import sleep

            import ray

            (started / f"{ray.get_runtime_context().get_node_id()}-{unit.start}").touch()
            sleep(0.2)
            facts, content = PartFacts(1), PartContent()
            content.add([{"number": unit.start, "path": unit.name(unit.start)}])
            content.save(Store(where), unit.part, facts)
            return Outcome(unit.start, unit.stop, facts)

    leaving = nodes.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    units = [Unit(number, number + 1, (f"{number}.png",)) for number in range(60)]
    done: list[Outcome] = []
    with joined(nodes):
        for outcome in all_done(
            units, lambda some, careful: done_by_workers(some, Slow, Cluster(nodes.address), 4, careful), Store(where)
        ):
            done.append(outcome)
            if leaving is not None and list(started.glob(f"{leaving.node_id}-*")):
                nodes.remove_node(leaving, allow_graceful=False)
                leaving = None
    assert leaving is None, "nothing was done on the node that was to leave"
    assert sorted(outcome.start for outcome in done) == list(range(60))
    assert [row["number"] for row in dataset_rows(Store(where))] == list(range(60))


@pytest.mark.slow
def test_dissect_and_perturb_say_the_same_as_one_process(nodes: Any, pictures: Path, tmp_path: Path) -> None:
    """To the bit: index, columns and tables."""
    model = str(EXPLAINER.with_name("demo_cnn.onnx"))
    missing = str(tmp_path / "nothing.png")
    both = {
        "dissect": ["--filters", "0,1,2", "--permutations", "99", "--batch-size", "2"],
        "perturb": ["--filters", "3,4", "--disturbances", "blur,noise"],
    }
    for name, options in both.items():
        for where, more in (("one", []), ("many", ["--cluster", nodes.address])):
            words = [name, model, str(EXPLAINER), str(pictures), missing, "--out", str(tmp_path / name / where)]
            done = subprocess.run(
                [sys.executable, "-c", RUN, *words, "--providers", "cpu", "--threads", "1", *options, *more],
                capture_output=True, text=True, timeout=1800,
            )  # fmt: skip
            assert done.returncode == 3, done.stderr
            assert "nothing.png" in done.stderr
        one, many = tmp_path / name / "one", tmp_path / name / "many"
        assert sorted(path.name for path in (one / "columns").iterdir()) == sorted(
            path.name for path in (many / "columns").iterdir()
        )
        told = [path.relative_to(one) for path in one.rglob("*") if path.suffix in ("", ".jsonl", ".csv", ".json")]
        for path in told:
            if (one / path).is_file() and path.name != "manifest.json":
                assert (one / path).read_bytes() == (many / path).read_bytes(), path
        assert (many / "rows").is_dir()


@pytest.mark.slow
def test_a_training_of_two_workers_agrees_with_one_process(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are those of the command, though Ray Train gives each worker a folder of its own."""
    monkeypatch.chdir(tmp_path)
    write_planted_folder(tmp_path, 8)
    learnt = []
    for more in ([], ["--cluster", nodes.address, "--devices", "2"]):
        out = f"{len(more)}.onnx"
        words = ["train", "planted.onnx", "images", "--out", out, "--pairs", "48", "--questions", "filters"]
        done = subprocess.run([sys.executable, "-c", RUN, *words, *more], capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        weights = {item.name: numpy_helper.to_array(item) for item in onnx.load(out).graph.initializer}
        learnt.append({name: value for name, value in weights.items() if value.dtype == np.float32})
    one, many = learnt
    assert one.keys() == many.keys()
    for name, value in one.items():
        np.testing.assert_allclose(many[name], value, atol=1e-3, err_msg=name)


def test_evaluate_by_workers_needs_a_folder(pictures: Path) -> None:
    model = str(EXPLAINER.with_name("demo_cnn.onnx"))
    done = subprocess.run(
        [sys.executable, "-c", RUN, "evaluate", model, str(EXPLAINER), str(pictures), "--cluster", "auto"],
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--cluster needs --out" in done.stderr


@pytest.mark.slow
def test_evaluate_says_the_same_as_one_process(nodes: Any, pictures: Path, tmp_path: Path) -> None:
    """To the bit: rows of all tables, and every picture's line but for its seconds."""
    words = ["evaluate", str(EXPLAINER.with_name("demo_cnn.onnx")), str(EXPLAINER), str(pictures)]
    options = ["--providers", "cpu", "--threads", "1", "--metrics", "retention,specificity,intervention"]
    told = []
    for name, more in (("one", []), ("many", ["--cluster", nodes.address])):
        out = tmp_path / name
        done = subprocess.run(
            [sys.executable, "-c", RUN, *words, "--out", str(out), *options, "--filters", "2", *more],
            capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document = json.loads((out / "evaluation.json").read_text())
        lines = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
        assert all(line.pop("seconds") for line in lines)
        assert document.pop("costs")
        told.append((document, lines))
    assert told[0] == told[1]
    assert (tmp_path / "many" / "rows").is_dir()
