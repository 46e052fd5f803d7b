"""The server's worker: what goes wrong in a pass fails its request and nothing else, and a stop always ends."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.model.classifier import find_classifier
from fsagn_onnx.model.outputs import Output
from fsagn_onnx.runtime.engine import Pass
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.server import Settings, make_app
from fsagn_onnx.server import app as app_module
from fsagn_onnx.server.batching import Batcher
from fsagn_onnx.server.jobs import Job
from fsagn_onnx.server.metrics import Metrics
from fsagn_onnx.server.passes import rows_are_images


def awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives, run in a thread of its own: a browser's tests leave a loop running in the main one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
BROKEN = 13


class Engine:
    """Answers a job's own numbers; one number breaks every pass that it is in."""

    def __init__(self, outputs: Callable[[NDArray[Any]], dict[str, Any]], error: BaseException | None = None) -> None:
        self.outputs, self.error = outputs, error or ValueError("odd")
        self.passes: list[int] = []

    def run(self, values: NDArray[Any], filters: NDArray[np.int64]) -> Pass:
        self.passes.append(len(values))
        if BROKEN in values:
            raise self.error
        peaks = filters.astype(np.float32)
        return Pass(self.outputs(values), filters, peaks, peaks[..., None, None], None)


def job(number: int) -> Job:
    return Job(np.full((1, 1), number), np.array([[number]]), None, None, (None,))


def answers(engine: Engine, numbers: list[int], **settings: Any) -> list[Any]:
    """What a worker answers to jobs that come at once; afterwards it must still answer."""

    async def ask() -> list[Any]:
        batcher = Batcher(engine, Settings(max_delay=0.05, **settings), Metrics())  # type: ignore[arg-type]
        batcher.start()
        found = await asyncio.gather(*(batcher.run(job(number)) for number in numbers), return_exceptions=True)
        assert batcher.works
        assert (await batcher.run(job(99))).filter_ids.tolist() == [[99]]
        await batcher.stop()
        assert not batcher.works
        return list(found)

    return awaited(ask())


def rows(values: NDArray[Any]) -> dict[str, Any]:
    return {"own": values.copy()}


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError(), StopIteration(), SystemExit(1), KeyError()])
def test_only_the_request_that_fails_alone_fails(error: BaseException) -> None:
    engine = Engine(rows, error)
    first, odd, last = answers(engine, [1, BROKEN, 2])
    assert isinstance(odd, Exception)
    assert (first.outputs["own"].tolist(), last.outputs["own"].tolist()) == ([[1]], [[2]])
    assert engine.passes[:4] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "outputs",
    [
        lambda values: {"own": np.float32(values.sum())},
        lambda values: {"own": np.array(values.sum())},
        lambda values: {"own": np.arange(7) + values.sum()},
        lambda values: {"own": [values, values]},
        lambda values: {"own": values[:0]},
    ],
    ids=["number", "scalar", "list", "sequence", "no rows"],
)
def test_outputs_without_a_row_per_image_come_whole_and_from_no_other_request(
    outputs: Callable[[NDArray[Any]], dict[str, Any]],
) -> None:
    for number, answer in zip((1, 2, 3), answers(Engine(outputs), [1, 2, 3]), strict=True):
        expected = outputs(np.full((1, 1), number))["own"]
        assert np.array_equal(np.asarray(answer.outputs["own"]), np.asarray(expected))


def test_rows_are_images_asks_for_an_axis_of_that_length() -> None:
    def pass_of(**outputs: Any) -> Pass:
        return Pass(outputs, *[np.zeros((3, 1))] * 3, None)

    assert rows_are_images(pass_of(a=np.zeros(3), b=np.zeros((3, 4))), 3)
    assert not rows_are_images(pass_of(a=np.zeros(3), b=np.zeros((4, 3))), 3)
    assert not rows_are_images(pass_of(a=np.float32(1)), 3)


def test_parts_of_outputs_follow_the_graph() -> None:
    """Constants come whole though they have as many rows as the batch has images; time comes before images."""
    made = [
        Output(name, "float32", axis, constant, False, None, "other", name)
        for name, axis, constant in (("rows", 0, False), ("time", 1, False), ("anchors", None, True))
    ]
    classifier = find_classifier(made, None)

    def outputs(values: NDArray[Any]) -> dict[str, Any]:
        return {"rows": values, "time": np.stack([values, -values]), "anchors": np.arange(12).reshape(3, 4)}

    async def ask() -> list[Any]:
        engine = Engine(outputs)
        batcher = Batcher(engine, Settings(max_delay=0.05), Metrics(), classifier=classifier)  # type: ignore[arg-type]
        batcher.start()
        found = await asyncio.gather(*(batcher.run(job(number)) for number in (1, 2, 3)))
        await batcher.stop()
        assert engine.passes == [3]
        return list(found)

    for number, answer in zip((1, 2, 3), awaited(ask()), strict=True):
        assert answer.outputs["rows"].tolist() == [[number]]
        assert answer.outputs["time"].tolist() == [[[number]], [[-number]]]
        assert answer.outputs["anchors"].shape == (3, 4)
    together = find_classifier([Output("score", "float32", None, False, False, None, "other", "score")], None)
    assert not rows_are_images(Pass({"score": np.zeros(3)}, *[np.zeros((3, 1))] * 3, None), 3, together)


def test_a_stop_does_not_wait_for_a_pass_that_never_ends() -> None:
    entered, freed, ended = threading.Event(), threading.Event(), threading.Event()

    def hang(values: Any) -> dict[str, Any]:
        entered.set()
        freed.wait()
        ended.set()
        return {"own": True}

    async def stopped() -> Any:
        engine = Engine(hang)
        batcher = Batcher(engine, Settings(drain=0.1), Metrics())  # type: ignore[arg-type]
        batcher.start()
        hanging, waiting = (asyncio.ensure_future(batcher.run(job(number))) for number in (1, 2))
        await asyncio.to_thread(entered.wait)
        await batcher.stop()
        assert not ended.is_set()
        assert "stopping" in str((await asyncio.gather(hanging, return_exceptions=True))[0])
        return (await asyncio.gather(waiting, return_exceptions=True))[0]

    try:
        assert "stopping" in str(awaited(stopped()))
    finally:
        freed.set()


def with_output(node: onnx.NodeProto, shape: list[int], path: Path, *weights: onnx.TensorProto) -> Path:
    proto = onnx.load(EXPLAINER)
    proto.graph.node.append(node)
    proto.graph.initializer.extend(weights)
    proto.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, shape))
    onnx.save(proto, path)
    return path


async def ask(app: Any, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    """One request to an application, without a network."""
    sent: list[dict[str, Any]] = []
    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b"", "scheme": "http"}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent))


@pytest.mark.parametrize("kind", ["scalar", "constant"])
def test_files_with_an_output_for_all_images_are_served(kind: str, tmp_path: Path) -> None:
    if kind == "scalar":
        node = helper.make_node("ReduceMax", ["logits"], ["more"], keepdims=0)
        path = with_output(node, [], tmp_path / "e.onnx")
    else:
        table = numpy_helper.from_array(np.arange(28, dtype=np.float32).reshape(7, 4), "table")
        path = with_output(helper.make_node("Identity", ["table"], ["more"]), [7, 4], tmp_path / "e.onnx", table)
    engine = FileEngine(path, "cpu", 1)
    picture = np.full((1, 40, 40, 3), 90, dtype=np.uint8)
    image = {"name": "image", "shape": [1, 40, 40, 3], "datatype": "UINT8", "data": picture.ravel().tolist()}

    body = json.dumps({"inputs": [image], "outputs": [{"name": "more"}, {"name": "logits"}]}).encode()
    app = make_app(engine, "m", Settings(max_delay=0.05))

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            found = await asyncio.gather(*(ask(app, "POST", "/v2/models/m/infer", body) for _ in range(3)))
            for status, answer in found:
                assert status == 200, answer
                more, logits = answer["outputs"]
                assert more["shape"] == ([] if kind == "scalar" else [7, 4])
                if kind == "scalar":
                    assert more["data"] == [max(logits["data"])]
            assert (await ask(app, "GET", "/v2/models/m/ready"))[1]["ready"]

    awaited(serve())
    engine.close()


def infer_body(side: int, masks: bool = True) -> bytes:
    picture = np.full((side, side, 3), 90, dtype=np.uint8)
    encoded = base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [encoded]}
    ids = {"name": "filters", "shape": [1, 1], "datatype": "INT64", "data": [0]}
    return json.dumps({"inputs": [image, ids], **({"parameters": {"masks": "rle"}} if masks else {})}).encode()


@pytest.mark.parametrize("where", ["make_job", "outputs_of"])
def test_heavy_requests_do_not_hold_light_ones_up(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many heavy ones as there are threads stand still; a light one is answered all the same."""
    freed, entered, inner = threading.Event(), threading.Event(), getattr(app_module, where)
    engine = FileEngine(EXPLAINER, "cpu", 1)

    def slow(first: Any, *given: Any) -> Any:
        large = first.geometries[0].original if where == "outputs_of" else None
        pixels = first.pixels if large is None else large[0] * large[1]
        if pixels > 1000**2:
            entered.set()
            freed.wait()
        return inner(first, *given)

    monkeypatch.setattr(app_module, where, slow)
    app = make_app(engine, "m", Settings(max_delay=0, light=1000**2))

    async def serve() -> None:
        path = "/v2/models/m/infer"
        async with app.router.lifespan_context(app):
            heavy = [asyncio.create_task(ask(app, "POST", path, infer_body(1100))) for _ in range(app_module.WORKERS)]
            await asyncio.to_thread(entered.wait)
            for _ in range(3):
                status, answer = await ask(app, "POST", path, infer_body(50))
                assert status == 200, answer
            assert not any(task.done() for task in heavy)
            status, answer = await ask(app, "POST", path, infer_body(50, masks=False)[:-1])
            assert (status, "broken JSON" in answer["error"]) == (400, True)
            freed.set()
            assert [status for status, _ in await asyncio.gather(*heavy)] == [200] * len(heavy)

    try:
        awaited(serve())
    finally:
        freed.set()
        engine.close()


def test_a_request_of_many_images_goes_in_passes_and_lets_others_in_between() -> None:
    made: list[int] = []

    def outputs(values: NDArray[Any]) -> dict[str, Any]:
        made.append(len(values))
        return {"own": values * 2}

    async def ask_both() -> tuple[Pass, Pass]:
        batcher = Batcher(Engine(outputs), Settings(max_batch=2, max_delay=0), Metrics())  # type: ignore[arg-type]
        batcher.start()
        numbers = np.arange(20, 27).reshape(7, 1, 1)
        large = Job(numbers, numbers[:, :, 0], None, None, (None,) * 7)
        first = asyncio.ensure_future(batcher.run(large))
        await asyncio.sleep(0)
        second = await batcher.run(job(1))
        assert not first.done()
        found = await first
        await batcher.stop()
        return found, second

    found, second = awaited(ask_both())
    assert found.outputs["own"].ravel().tolist() == list(range(40, 54, 2))
    assert found.filter_ids.ravel().tolist() == list(range(20, 27))
    assert second.filter_ids.tolist() == [[1]]
    assert max(made) == 2
