"""The server as clients meet it: protocol, masks, limits, malformed and slow requests, stopping."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from fsagn_onnx.errors import UsageError
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.server import Settings
from fsagn_onnx.server.jobs import encode_mask
from fsagn_onnx.server.worker_group import WorkerGroup
from fsagn_onnx.testing.synthetic import SyntheticParts

EXPLAINER = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
PICTURE = SyntheticParts("test", 1)[0].image
MODEL = "/v2/models/demo_explainer"
PATIENCE = 1800
"""Seconds that a busy machine gets for what takes an idle one moments."""
PNG = cv2.imencode(".png", cv2.resize(PICTURE, (200, 90))[..., ::-1])[1].tobytes()


class Server:
    def __init__(self, *options: str) -> None:
        code = "from fsagn_onnx.cli.main import main; main()"
        words = ["serve", str(EXPLAINER), "--port", "0", "--json", "--providers", "cpu", "--threads", "1", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        address = urlsplit(json.loads(line)["url"])
        self.host, self.port = str(address.hostname), int(address.port or 0)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        try:
            content = json.dumps(body).encode() if isinstance(body, dict | list) else body
            connection.request(method, path, content, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def infer(self, body: Any, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, _, content = self.ask("POST", f"{MODEL}/infer", body, headers)
        return status, json.loads(content)

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server("--timeout", str(PATIENCE), "--max-body", "1")
    yield running
    status, err = running.stop()
    assert status == 0
    assert set(err.splitlines()) <= {"WARNING:  Invalid HTTP request received."}


def outputs(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {entry["name"]: np.array(entry["data"]).reshape(entry["shape"]) for entry in answer["outputs"]}


def png(count: int = 1) -> dict[str, Any]:
    data = [base64.b64encode(PNG).decode()] * count
    return {"name": "image", "shape": [count], "datatype": "BYTES", "data": data}


def test_health_metadata_and_metrics(server: Server) -> None:
    assert server.ask("GET", "/v2/health/live")[0] == server.ask("GET", f"{MODEL}/ready")[0] == 200
    about = json.loads(server.ask("GET", MODEL)[2])
    assert {port["name"] for port in about["inputs"]} == {"image", "filters", "classes"}
    assert about["parameters"]["fsagn"]["layer"]
    assert about["parameters"]["provider"] == "CPUExecutionProvider"
    assert server.ask("GET", "/v2/models/other")[0] == server.ask("POST", "/v2/models/other/infer", {})[0] == 404
    assert server.ask("GET", f"{MODEL}/infer")[0] == 405
    server.infer({"inputs": [png()]})
    assert b'fsagn_requests_total{code="200"}' in server.ask("GET", "/metrics")[2]


def test_the_root_says_what_it_is_and_what_it_answers(server: Server) -> None:
    status, headers, content = server.ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "application/json")
    about = json.loads(content)
    assert about["model"] == "demo_explainer"
    for path in about["endpoints"]:
        if not path.endswith("/infer"):
            assert server.ask("GET", path)[0] == 200, path
    status, headers, content = server.ask("GET", "/", headers={"accept": "text/html,*/*"})
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert MODEL.encode() in content


def test_what_a_decision_rests_on_is_answered_as_in_python(server: Server) -> None:
    picture = np.ascontiguousarray(cv2.imdecode(np.frombuffer(PNG, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        names = explainer.classes.names()
        (expected,) = explainer.explain(picture, "decisive:3,against:1", classes=[names[2], -1])
        default = [found.id for found in explainer.explain(picture)[0].filters]
    words = {"filters": "decisive:3,against:1", "classes": f"{names[2]},-1", "masks": "rle"}
    ids = {"name": "filters", "shape": [1, 4], "datatype": "INT64", "data": [-2, -2, -2, -3]}
    about = {"name": "classes", "shape": [1, 2], "datatype": "INT64", "data": [2, -1]}
    asked = ({"inputs": [png()], "parameters": words}, {"inputs": [png(), ids, about], "parameters": {"masks": "rle"}})
    for body in asked:
        status, answer = server.infer(body)
        assert status == 200, answer
        got = outputs(answer)
        assert got["filter_ids"][0].tolist() == [found.id for found in expected.filters]
        assert got["class_ids"][0].tolist() == [found.index for found in expected.evidence]
        np.testing.assert_allclose(got["decision"][0], [found.decision for found in expected.evidence], rtol=1e-4)
        np.testing.assert_allclose(got["support"][0], [found.support for found in expected.evidence], rtol=1e-4)
        own = [found.contribution for found in expected.filters]
        np.testing.assert_allclose(got["contributions"][0, 0], own, rtol=1e-4)
        told = json.loads(got["evidence"][0, 0])
        for place, (found, said) in enumerate(zip(expected.evidence, told, strict=True)):
            np.testing.assert_allclose(got["evidence_rank"][0, place], found.area_rank, atol=1e-6)
            assert got["evidence_areas"][0, place] == pytest.approx(found.area, rel=1e-4)
            mask = json.loads(got["evidence_masks"][0, place])
            flat = np.repeat(np.arange(len(mask["counts"])) % 2, mask["counts"])
            assert np.array_equal(flat.reshape(mask["size"][::-1]).T, expected.mask(found))
            assert (said["class"], said["label"]) == (found.index, found.label)
            assert said["area"] == pytest.approx(found.area, rel=1e-4)
            assert [one["id"] for one in said["filters"]] == [one.id for one in expected.filters]
        assert [one["share"] for one in told[0]["filters"]] == pytest.approx(
            [f.share for f in expected.filters], rel=1e-3
        )
    _, answer = server.infer({"inputs": [png()]})
    assert outputs(answer)["filter_ids"][0].tolist() == default
    _, answer = server.infer({"inputs": [png(), ids], "outputs": [{"name": "area_rank"}], "parameters": {"area": 0.1}})
    assert list(outputs(answer)) == ["area_rank"]


def test_answers_are_those_of_python(server: Server) -> None:
    picture = cv2.imdecode(np.frombuffer(PNG, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    with Explainer(EXPLAINER, providers="cpu", threads=1) as explainer:
        (expected,) = explainer.explain(np.ascontiguousarray(picture), "top:3", 0.1)
        values = explainer.metadata.input.preprocess(np.ascontiguousarray(picture))[0]
    ids = {"name": "filters", "shape": [1, 3], "datatype": "INT64", "data": [-1, -1, -1]}
    raw = {"name": "image", "shape": [1, *picture.shape], "datatype": "UINT8", "data": picture.ravel().tolist()}
    tensor = {"name": "image", "shape": [1, *values.shape], "datatype": "FP32", "data": values.tolist()}
    for image in (png(), raw, tensor):
        status, answer = server.infer({"id": "7", "inputs": [image, ids], "parameters": {"masks": "rle", "area": 0.1}})
        assert status == 200, answer
        assert answer["id"] == "7"
        got = outputs(answer)
        assert got["filter_ids"][0].tolist() == [f.id for f in expected.filters]
        np.testing.assert_allclose(got["area_rank"][0], [f.area_rank for f in expected.filters], atol=1e-6)
        for text, f in zip(got["masks"][0], expected.filters, strict=True):
            mask = json.loads(text)
            whole = expected.input_mask(f) if image is tensor else expected.mask(f)
            assert mask["size"] == list(whole.shape)
            flat = np.repeat(np.arange(len(mask["counts"])) % 2, mask["counts"])
            assert np.array_equal(flat.reshape(mask["size"][::-1]).T, whole)


def test_png_masks_and_binary_tensors(server: Server) -> None:
    packed = struct.pack("<I", len(PNG)) + PNG
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps(
        {
            "inputs": [image],
            "parameters": {"masks": "png"},
            "outputs": [{"name": "area_rank", "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, given, content = server.ask("POST", f"{MODEL}/infer", head + packed, headers)
    assert status == 200
    length = int(given["Inference-Header-Content-Length"])
    entries = {entry["name"]: entry for entry in json.loads(content[:length])["outputs"]}
    ranks = np.frombuffer(content[length:], "<f4").reshape(entries["area_rank"]["shape"])
    assert sorted((ranks[0, 0] * ranks[0, 0].size).round().astype(int).ravel()) == list(range(1, ranks[0, 0].size + 1))
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(entries["masks"]["data"][0]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (90, 200)
    assert set(np.unique(mask)) == {0, 255}


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"], **changes}]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "broken JSON"),
        (b"{", "broken JSON"),
        (b"[" * 100_000, "must be an object"),
        (b'{"inputs": 3}', "field 'inputs' must be a list, but got 3"),
        ({"inputs": []}, "'image' is missing"),
        ({"inputs": [3]}, "field 'inputs[0]' must be an object, but got 3"),
        (tensor(), "no image of a known format"),
        (tensor(data=["?"]), "base64"),
        (tensor(data=[]), "1 elements, data has 0"),
        (tensor(name="x"), "unknown input 'x'"),
        (tensor(datatype="FP31"), "field 'inputs[0].datatype' must be one of BOOL"),
        (tensor(datatype=[0]), "field 'inputs[0].datatype' must be one of BOOL"),
        (tensor(datatype={}), "field 'inputs[0].datatype' must be one of BOOL"),
        (tensor(datatype=None), "field 'inputs[0].datatype' must be one of BOOL"),
        (tensor(name="\ud800"), "broken JSON"),
        (tensor(shape=[int("9" * 4000)] * 2), "whole numbers"),
        (tensor(datatype="FP32", data=["a" * 1000]), "numbers that fit"),
        (tensor(datatype="FP32", data=[10**400]), "numbers that fit"),
        (tensor(datatype="FP32", data=[{}]), "numbers that fit"),
        ({"inputs": [{"name": "N" * 300_000, "shape": [1], "datatype": "INT64", "data": [1]}] * 2}, "given twice"),
        ({"inputs": [png()], "id": ["x"] * 1000}, "field 'id' must be"),
        ({"inputs": [png()], "id": "x" * 1000}, "field 'id' must be"),
        ({"inputs": [png()], "parameters": [1]}, "field 'parameters' must be an object"),
        ({"inputs": [png()], "parameters": {"masks": {"a": 1}}}, "field 'parameters.masks' must be one of rle, png"),
        ({"inputs": [png()], "outputs": [{"name": "\udfff" * 5000}]}, "broken JSON"),
        ({"inputs": [png()], "outputs": [{"name": []}]}, "field 'outputs[0].name' must be a text, but got []"),
        (tensor(shape=[-1]), "whole numbers"),
        (tensor(shape=[2**62]), "elements"),
        (tensor(shape=[2**31] * 8, datatype="FP32", data=[]), "elements"),
        (tensor(datatype="FP32", shape=[2], data=[[1], 1]), "numbers that fit"),
        (tensor(datatype="FP32", shape=[1, 1], data=[1e300]), "must be FP32"),
        (tensor(parameters={"binary_data_size": 10**12}), "binary_data_size must be 0..0"),
        ({"inputs": [png(), png()]}, "given twice"),
        ({"inputs": [png()], "parameters": {"masks": "gif"}}, "field 'parameters.masks' must be one of rle, png"),
        (
            {"inputs": [png()], "parameters": {"masks": "rle", "area": 2}},
            "'parameters.area' must be a number in",
        ),
        ({"inputs": [png()], "outputs": [{"name": "x"}]}, "unknown output"),
        ({"inputs": [png(), {"name": "filters", "shape": [1, 1], "datatype": "INT64", "data": [96]}]}, "0..95"),
        ({"inputs": [png(), {"name": "filters", "shape": [1, 1], "datatype": "INT64", "data": [-4]}]}, "-3 for what"),
        (
            {"inputs": [png(), {"name": "classes", "shape": [1, 1], "datatype": "INT64", "data": [9999]}]},
            "no class 9999",
        ),
        ({"inputs": [png(), {"name": "classes", "shape": [1, 2], "datatype": "INT64", "data": [1, 1]}]}, "twice"),
        ({"inputs": [png(), {"name": "classes", "shape": [1], "datatype": "INT64", "data": [1]}]}, "INT64 [N, J]"),
        ({"inputs": [png()], "parameters": {"classes": "elephant"}}, "no class 'elephant'"),
        ({"inputs": [png()], "parameters": {"filters": "best:3"}}, "filters must be"),
        ({"inputs": [png(), {"name": "filters", "shape": [1, 2], "datatype": "INT64", "data": [4, 4]}]}, "twice"),
        ({"inputs": [png(), {"name": "filters", "shape": [2, 1], "datatype": "INT64", "data": [4, 4]}]}, "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_requests_are_told_what_is_wrong(server: Server, body: Any, message: str) -> None:
    status, answer = server.infer(body)
    assert status == 400
    assert message in answer["error"]
    assert len(answer["error"]) < 400
    assert server.infer({"inputs": [png()]})[0] == 200


def test_header_length_beyond_the_body_and_bytes_left_over(server: Server) -> None:
    for length in ("99999", "-1", "x", "9" * 4400):
        assert server.infer({"inputs": []}, {"Inference-Header-Content-Length": length})[0] == 400
    head = json.dumps({"inputs": [png()]}).encode()
    assert server.infer(head + b"12", {"Inference-Header-Content-Length": str(len(head))})[0] == 400


def test_bodies_may_be_gzip(server: Server) -> None:
    body = json.dumps({"inputs": [png()]}).encode()
    assert server.infer(gzip.compress(body), {"Content-Encoding": "gzip"})[0] == 200
    for packed, encoding, expected, message in (
        (body, "gzip", 400, "is no gzip"),
        (gzip.compress(body)[:-20], "gzip", 400, "stops before its end"),
        (gzip.compress(b" " * 2**24), "gzip", 413, "once it is unpacked"),
        (body, "br", 415, "must be gzip"),
    ):
        status, answer = server.infer(packed, {"Content-Encoding": encoding})
        assert (status, message in answer["error"]) == (expected, True)


def black(side: int) -> str:
    """A square of one bit per pixel, a thousand times smaller as a file than as pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head, rows = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0), bytes((1 + side // 8) * side)
    pieces = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + pieces).decode()


def test_pictures_that_are_too_large_together_are_refused_before_one_is_decoded(server: Server) -> None:
    many = {"name": "image", "shape": [5], "datatype": "BYTES", "data": [black(8192)] * 5}
    status, answer = server.infer({"inputs": [many]})
    assert status == 413
    assert "5 pictures of 335544320 pixels together" in answer["error"]


def test_masks_of_many_filters_over_large_pictures_are_refused(server: Server) -> None:
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [black(3000)]}
    ids = {"name": "filters", "shape": [1, 40], "datatype": "INT64", "data": [-1] * 40}
    status, answer = server.infer({"inputs": [image, ids], "parameters": {"masks": "png"}})
    assert status == 413
    assert "41 masks for each picture have 369000000 pixels" in answer["error"]
    assert server.infer({"inputs": [image, ids]})[0] == 200


def test_many_filters_of_many_pictures_are_refused(server: Server) -> None:
    ids = {"name": "filters", "shape": [64, 90], "datatype": "INT64", "data": [-1] * 5760}
    small = base64.b64encode(cv2.imencode(".png", PICTURE[:8, :8])[1].tobytes()).decode()
    image = {"name": "image", "shape": [64], "datatype": "BYTES", "data": [small] * 64}
    status, answer = server.infer({"inputs": [image, ids]})
    assert status == 413
    assert "64 images with" in answer["error"]
    assert "more than the limit of 4096" in answer["error"]


def test_huge_bodies_are_refused(server: Server) -> None:
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as declared:
        declared.sendall(f"POST {MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n".encode())
        assert b" 413 " in declared.recv(100)
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as chunked:
        chunked.sendall(f"POST {MODEL}/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(40):
                chunked.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has answered and closed already
        else:
            assert b" 413 " in chunked.recv(100)
    assert server.infer({"inputs": [png()]})[0] == 200


def test_a_length_of_thousands_of_digits_is_refused(server: Server) -> None:
    """Python reads no number of more than 4,300 digits."""
    for digits in (30, 4400):
        with socket.create_connection((server.host, server.port), timeout=PATIENCE) as declared:
            head = f"POST {MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * digits}\r\n\r\n"
            declared.sendall(head.encode())
            assert declared.recv(100).split()[1] in (b"400", b"413")
    assert server.infer({"inputs": [png()]})[0] == 200


def test_slow_connections_are_dropped() -> None:
    hasty = Server("--timeout", "1")
    started = time.monotonic()
    with socket.create_connection((hasty.host, hasty.port), timeout=PATIENCE) as headers:
        headers.sendall(b"POST / HTTP/1.1\r\nHos")
        assert headers.recv(100) == b""
    with socket.create_connection((hasty.host, hasty.port), timeout=PATIENCE) as body:
        body.sendall(f"POST {MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in body.recv(100)
    assert time.monotonic() - started > 1.5
    assert hasty.stop() == (0, "")


def test_broken_connections_are_dropped(server: Server) -> None:
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as noise:
        noise.sendall(b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n")
        assert b" 400 " in noise.recv(100)
    with socket.create_connection((server.host, server.port), timeout=PATIENCE) as gone:
        gone.sendall(f"POST {MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    assert server.infer({"inputs": [png()]})[0] == 200


def test_a_full_queue_says_come_again_and_a_stop_lets_requests_finish() -> None:
    server = Server("--queue", "2", "--max-batch", "4")
    answers: list[tuple[int, Any]] = []
    lock = threading.Lock()

    def client() -> None:
        while not {200, 429} <= {status for status, _ in answers}:
            status, headers, content = server.ask("POST", f"{MODEL}/infer", {"inputs": [png(8)]})
            with lock:
                answers.append((status, headers.get("Retry-After")))
            assert json.loads(content)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert {status for status, _ in answers} == {200, 429}  # and not 500
    assert all(int(again) >= 1 for status, again in answers if status == 429)
    last: list[int] = []
    thread = threading.Thread(target=lambda: last.append(server.infer({"inputs": [png(16)]})[0]))
    thread.start()
    while not last and b"fsagn_requests_in_hand 1.0" not in server.ask("GET", "/metrics")[2]:
        pass
    status, err = server.stop()
    thread.join()
    assert (status, err, last) == (0, "", [200])


def test_wrong_settings_and_taken_ports_are_one_line(server: Server) -> None:
    with pytest.raises(UsageError, match="max_batch must be greater than 0"):
        Settings(max_batch=0)
    code = "from fsagn_onnx.cli.main import main; main()"
    words = ["serve", str(EXPLAINER), "--port", str(server.port)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot listen on 127.0.0.1")
    assert done.stderr.count("\n") == 1


def test_run_lengths_start_with_zeros_and_go_down_the_columns() -> None:
    mask = np.array([[True, False], [True, True]])
    assert json.loads(encode_mask(mask, "rle"))["counts"] == [0, 2, 1, 1]
    assert json.loads(encode_mask(~mask, "rle"))["counts"] == [2, 1, 1]


def test_a_group_is_warm_when_all_its_processes_are(tmp_path: Path) -> None:
    group = WorkerGroup(tmp_path, 2)
    assert not group.is_warm
    group.join()
    assert not group.is_warm
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / f"{other.pid}.warm").touch()
        assert group.is_warm
        other.communicate(b"\n")
    assert not group.is_warm  # one is gone, without a word
    group.join()
    assert [path.name for path in tmp_path.iterdir()] == [f"{os.getpid()}.warm"]
    group.leave()
    group.leave()
    assert list(tmp_path.iterdir()) == []


def children(parent: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            about = path.read_text().rpartition(")")[2].split()
            if int(about[1]) == parent and b"spawn_main" in (path.parent / "cmdline").read_bytes():
                found.add(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_two_processes_serve_as_one_until_sigterm() -> None:
    server = Server("--workers", "2")
    first = children(server.process.pid)
    assert len(first) == 2
    assert server.ask("GET", "/v2/health/ready")[0] == 200  # all are warm once the address is said
    for _ in range(10):
        assert server.infer({"inputs": [png()]})[0] == 200
    counted = [server.ask("GET", "/metrics")[2] for _ in range(6)]
    assert all(b'fsagn_requests_total{code="200"} 10.0' in text for text in counted)  # whichever process is asked
    os.kill(min(first), signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while len(children(server.process.pid) - {min(first)}) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    now = children(server.process.pid)
    while server.ask("GET", f"{MODEL}/ready")[0] != 200 and time.monotonic() < until:
        time.sleep(0.05)
    assert server.infer({"inputs": [png()]})[0] == 200
    assert server.stop() == (0, "")
    assert not any(Path(f"/proc/{process}").exists() for process in now)


def test_an_explainer_that_no_process_could_open_is_one_line(tmp_path: Path) -> None:
    code = "from fsagn_onnx.cli.main import main; main()"
    words = ["serve", str(tmp_path / "x.onnx"), "--port", "0", "--workers", "2", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: ")
