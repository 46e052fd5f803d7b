"""Sessions: threads, forks, spawned processes, cache, binding, missing libraries of CUDA."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from fsagn_onnx.errors import FsagnError
from fsagn_onnx.runtime import Binding, Explainer, Session, Tuning
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.providers import missing_libraries
from fsagn_onnx.testing.synthetic import SyntheticParts

EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
PICTURES = [sample.image for sample in SyntheticParts("test", 4)]


def ids(explainer: Explainer, picture: np.ndarray) -> list[int]:
    return [explained.id for explained in explainer.explain(picture, "top:3")[0].filters]


def test_threads_share_an_explainer_and_closing_meanwhile_is_an_error_not_a_crash() -> None:
    with Explainer(EXPLAINER, providers="cpu", threads=2) as explainer:
        expected = [ids(explainer, picture) for picture in PICTURES]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: ids(explainer, PICTURES[n % 4]), range(64)))
        assert found == expected * 16
        failures: list[FsagnError] = []

        def work() -> None:
            try:
                while True:
                    ids(explainer, PICTURES[0])
            except FsagnError as error:
                failures.append(error)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        explainer.close()
        for worker in workers:
            worker.join(timeout=1800)
        assert [str(error) for error in failures] == [f"{EXPLAINER}: the session is closed"] * 4
        explainer.close()


FORK = """
import faulthandler, multiprocessing, sys
from fsagn_onnx.testing.synthetic import SyntheticParts
from fsagn_onnx.runtime import Explainer
faulthandler.dump_traceback_later(1800, exit=True)
picture = SyntheticParts("test", 1)[0].image
explainer = Explainer(sys.argv[1], providers="cpu", threads=2)
def ids(_):
    return [explained.id for explained in explainer.explain(picture, "top:3")[0].filters]
before = ids(0)
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(ids, range(4)) == [before] * 4
assert ids(0) == before
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_an_explainer_works_in_a_forked_child() -> None:
    done = subprocess.run([sys.executable, "-c", FORK, EXPLAINER], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_graph_in_memory_says_so_in_a_forked_child() -> None:
    code = """
import os, sys, onnx
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.runtime import Session
session = Session(onnx.load(sys.argv[1]), "cpu")
child = os.fork()
if child == 0:
    try:
        session.live()
    except FsagnError as error:
        os._exit(7 if "open it in the child" in str(error) else 8)
    os._exit(9)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code, EXPLAINER], timeout=1800).returncode == 7


def test_an_explainer_can_be_sent_to_a_spawned_process() -> None:
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        expected = ids(explainer, PICTURES[0])
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(ids, (explainer, PICTURES[0])) == expected
    with pytest.raises(FsagnError, match="cannot go to another process"):
        pickle.dumps(Session(onnx.load(EXPLAINER), "cpu"))


def test_sessions_do_not_grow() -> None:
    resource = pytest.importorskip("resource")

    def peak() -> int:
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    for _ in range(3):
        FileEngine(EXPLAINER, "cpu", 1).close()
    gc.collect()
    before = peak()
    for _ in range(20):
        FileEngine(EXPLAINER, "cpu", 1).close()
    assert peak() - before < 20 * 1024  # kB; twenty files of 1.3 MB that stayed would be more


def test_the_cache_is_used_and_a_damaged_one_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuning = Tuning(cache=tmp_path / "cache")
    with Explainer(EXPLAINER, providers="cpu", threads=1) as plain:
        expected = ids(plain, PICTURES[0])
    for _ in range(2):
        with Explainer(EXPLAINER, providers="cpu", threads=1, tuning=tuning) as explainer:
            assert ids(explainer, PICTURES[0]) == expected
        (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(b"damaged")
    with Explainer(EXPLAINER, providers="cpu", threads=1, tuning=tuning) as explainer:
        assert ids(explainer, PICTURES[0]) == expected
    assert "making it anew" in caplog.text
    assert cached.stat().st_size > 100_000
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with Explainer(EXPLAINER, providers="cpu", tuning=Tuning(cache=tmp_path / "file")) as explainer:
        assert ids(explainer, PICTURES[0]) == expected
    assert "no cache in" in caplog.text


def check_binding(provider: str, tuning: Tuning) -> None:
    with Session(EXPLAINER, "cpu", 1) as plain, Session(EXPLAINER, provider, 1, tuning) as session:
        rng = np.random.default_rng(0)
        batches = [rng.standard_normal((2, 3, 128, 128)).astype(np.float32) for _ in range(3)]
        asked = {name: np.full((2, count), -1, dtype=np.int64) for name, count in (("filters", 3), ("classes", 1))}
        binding = Binding(session, {"image": batches[0], **asked})
        for batch in batches:
            binding.update({"image": batch})
            binding.run()
            expected = plain.run(None, {"image": batch, **asked})
            got = binding.fetch()
            np.testing.assert_array_equal(got["filter_ids"], expected["filter_ids"])
            np.testing.assert_allclose(got["filter_peaks"], expected["filter_peaks"], rtol=1e-2)


def test_binding_on_the_cpu() -> None:
    check_binding("cpu", Tuning())


def test_binding_of_a_graph_in_memory() -> None:
    proto = onnx.load(EXPLAINER)
    asked = {name: np.full((1, count), -1, dtype=np.int64) for name, count in (("filters", 3), ("classes", 1))}
    feeds = {"image": np.zeros((1, 3, 128, 128), np.float32), **asked}
    with Session(proto, "cpu", 1) as session:
        binding = Binding(session, feeds)
        binding.run()
        np.testing.assert_array_equal(binding.fetch()["filter_ids"], session.run(None, feeds)["filter_ids"])
    recorded = Session(proto, "cpu", 1, Tuning(cuda_graph=True), source="the explainer")
    with pytest.raises(FsagnError, match="the explainer: a graph in memory cannot be opened again"):
        Binding(recorded, feeds)


@pytest.mark.gpu
@pytest.mark.parametrize("tuning", [Tuning(tf32=False), Tuning(tf32=False, cuda_graph=True)])
def test_binding_and_cuda_graphs_on_the_device(tuning: Tuning) -> None:
    check_binding("cuda", tuning)


def test_missing_libraries_are_named(tmp_path: Path) -> None:
    library = tmp_path / "libprovider.so"
    library.write_bytes(b"\x7fELF\0libcudnn_none.so.9\0libcunothere.so.13\0libc.so.6\0xlibcufft.so.11\0")
    assert missing_libraries(library) == ["libcunothere.so.13"]
