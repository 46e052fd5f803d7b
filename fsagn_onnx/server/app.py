"""The application: routes of the KServe v2 protocol, limits and errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from html import escape
from typing import Any, Final
from urllib.parse import quote

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from .. import __version__
from ..errors import FsagnError
from ..runtime.contract import FILTERS
from ..runtime.file_engine import FileEngine
from ..schema import shown
from .batching import Batcher
from .findings import findings_of
from .jobs import AREAS, EVIDENCE_AREAS, EVIDENCE_MASKS, MASKS, Order, make_job, make_order, outputs_of
from .metrics import Metrics
from .passes import rows_are_images
from .settings import Settings
from .tensors import HEADER_LENGTH, InferRequest, OutputEntry, RequestError, format_answer, parse_request, unpacked
from .worker_group import WorkerGroup

LONGEST_WAIT: Final = 60
WORKERS: Final = 4
"""Threads that decode requests and encode answers."""
PROBED: Final = 3
"""Images of the first pass, which shows whether every output has a row per image."""
LONGEST_ERROR: Final = 1000
SHOWN_CLASSES: Final = 8
"""Classes that the page names."""
DRAWN: Final = (MASKS, EVIDENCE_MASKS)
SIZES: Final = (AREAS, EVIDENCE_AREAS)
KSERVE: Final = {
    "tensor(float)": "FP32", "tensor(float16)": "FP16", "tensor(double)": "FP64", "tensor(int64)": "INT64",
    "tensor(int32)": "INT32", "tensor(uint8)": "UINT8", "tensor(int8)": "INT8", "tensor(bool)": "BOOL",
}  # fmt: skip


class _Server:
    """The routes of one explainer."""

    def __init__(self, engine: FileEngine, name: str, settings: Settings, group: WorkerGroup | None) -> None:
        self.engine, self.name, self.settings = engine, name, settings
        self.metrics = Metrics(None if group is None else group.folder)
        self.batcher: Batcher | None = None
        self.in_hand = 0
        self.group = group
        self.heavy = anyio.CapacityLimiter(1)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = WORKERS
        warm = await run_in_threadpool(self.engine.warm_up, PROBED)
        classifier = self.engine.classes.classifier
        shares = rows_are_images(warm, PROBED, classifier)
        self.batcher = Batcher(self.engine, self.settings, self.metrics, shares=shares, classifier=classifier)
        self.batcher.start()
        if self.group is not None:
            self.group.join()
        yield
        if self.group is not None:
            self.group.leave()
        batcher, self.batcher = self.batcher, None
        await batcher.stop()

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        if "name" in request.path_params:
            self._check_name(request)
        warm = self.group is None or self.group.is_warm
        ready = warm and self.batcher is not None and self.batcher.works
        return JSONResponse({"name": self.name, "ready": ready}, 200 if ready else 503)

    async def about_server(self, request: Request) -> Response:
        return JSONResponse({"name": "fsagn-onnx", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def front(self, request: Request) -> Response:
        """What this is and what it answers: a page for a browser, JSON for anything else."""
        model = f"/v2/models/{quote(self.name, safe='')}"
        endpoints = {
            "/v2": "name and version of the server",
            "/v2/health/live": "whether it lives",
            "/v2/health/ready": "whether it answers requests",
            model: f"inputs, outputs and metadata of '{self.name}'",
            f"{model}/ready": "whether the model is ready",
            f"{model}/infer": "POST: explain images (KServe v2)",
            "/metrics": "counts and times, for Prometheus",
        }
        if "text/html" not in request.headers.get("accept", ""):
            about = {"name": "fsagn-onnx", "version": __version__, "model": self.name, "layer": self._layer}
            return JSONResponse({**about, "decisions": self.engine.answers_classes, "endpoints": endpoints})
        rows = "".join(f"<li>{_link(path)} {escape(words)}</li>" for path, words in endpoints.items())
        text = (
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>fsagn-onnx {__version__}</title>"
            f"<h1>fsagn-onnx {__version__}</h1><p>Explains images with <b>{escape(self.name)}</b>: where the "
            f"filters of layer {escape(self._layer)} look{self._decides}. "
            f"It speaks the KServe v2 protocol:</p><ul>{rows}</ul></html>"
        )
        return HTMLResponse(text, headers={"content-security-policy": "default-src 'none'"})

    @property
    def _decides(self) -> str:
        """What it says about decisions, in HTML."""
        if not self.engine.answers_classes:
            return ""
        names = self.engine.classes.names()
        few = escape(", ".join(names[:SHOWN_CLASSES])) + (", ..." if len(names) > SHOWN_CLASSES else "")
        which = f" ({few})" if names else ""
        return f", and what its decision for a class{which} rests on: the evidence, and the filters that carry it"

    @property
    def _layer(self) -> str:
        return str(self.engine.metadata.layer)

    async def about_model(self, request: Request) -> Response:
        self._check_name(request)
        ports = [
            [
                {"name": p.name, "datatype": KSERVE.get(p.dtype, p.dtype), "shape": [s or -1 for s in p.shape]}
                for p in side
            ]
            for side in (self.engine.inputs, self.engine.outputs)
        ]
        about = json.loads(self.engine.metadata.to_json())
        return JSONResponse(
            {"name": self.name, "versions": ["1"], "platform": "onnxruntime_onnx", "inputs": ports[0],
             "outputs": ports[1], "parameters": {"fsagn": about, "classes": self.engine.classes.to_dict(),
                                                 "provider": self.engine.provider}}
        )  # fmt: skip

    async def show_metrics(self, request: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def infer(self, request: Request) -> Response:
        started = time.monotonic()
        try:
            self._check_name(request)
            response = await self._admitted(request)
        except RequestError as error:
            response = _refusal(str(error), error.status)
        except FsagnError as error:
            response = _refusal(str(error), 500)
        except MemoryError:
            response = _refusal("not enough memory for this request: send fewer or smaller pictures", 413)
        if response.status_code in (429, 503):
            ahead = self.batcher.seconds_ahead if self.batcher else 1.0
            response.headers["retry-after"] = str(min(LONGEST_WAIT, max(1, math.ceil(ahead))))
        if response.status_code >= 400:
            response.headers["connection"] = "close"  # what is left of the body is not read
        self.metrics.request(response.status_code, time.monotonic() - started)
        return response

    async def _admitted(self, request: Request) -> Response:
        if self.batcher is None or not self.batcher.works:
            raise RequestError("the server is stopping", 503)
        if self.in_hand >= self.settings.queue:
            raise RequestError(f"{self.in_hand} requests are in hand already, come again later", 429)
        self.in_hand += 1
        self.metrics.in_hand(self.in_hand)
        try:
            return await self._answered(request, self.batcher)
        finally:
            self.in_hand -= 1
            self.metrics.in_hand(self.in_hand)

    async def _answered(self, request: Request, batcher: Batcher) -> Response:
        body = await self._body(request)
        light = len(body) <= self.settings.light
        asked, order = await self._in_thread(light, self._parse, body, request.headers)
        del body
        light = order.pixels <= self.settings.light
        job = await self._in_thread(light, make_job, order, self.engine, self.settings)
        del order
        computed = await batcher.run(job)
        outputs = await self._in_thread(light, outputs_of, job, computed, self.engine)
        wanted = None if asked.outputs is None else [entry.name for entry in asked.outputs]
        outputs |= await self._in_thread(light, findings_of, job, computed, self.engine, outputs.keys(), wanted)
        names, binary = _wanted_outputs(asked, list(outputs))
        head = {"model_name": self.name, "model_version": "1", "id": "" if asked.id is None else str(asked.id)}
        chosen = {name: outputs[name] for name in names}
        content, length = await self._in_thread(light, format_answer, head, chosen, binary)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(length)})

    async def _in_thread(self, light: bool, work: Callable[..., Any], *given: Any) -> Any:
        """What a call gives; heavy ones take turns in a thread of their own, light ones share the others."""
        return await anyio.to_thread.run_sync(partial(work, *given), limiter=None if light else self.heavy)

    def _parse(self, body: bytes, headers: Headers) -> tuple[InferRequest, Order]:
        plain = unpacked(body, headers.get("content-encoding"), self.settings.max_body)
        asked, tensors = parse_request(plain, headers.get(HEADER_LENGTH))
        return asked, make_order(asked, tensors, self.engine, self.settings)

    async def _body(self, request: Request) -> bytes:
        limit = self.settings.max_body
        declared = request.headers.get("content-length", "")
        digits = declared.lstrip("0")
        if declared.isdigit() and (len(digits) > len(str(limit)) or int(digits or "0") > limit):
            raise RequestError(f"the body has {shown(declared)} bytes, more than the limit of {limit}", 413)
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.body_timeout):
                async for piece in request.stream():
                    body += piece
                    if len(body) > limit:
                        raise RequestError(f"the body has more than {limit} bytes", 413)
        except TimeoutError:
            raise RequestError(f"the body did not arrive within {self.settings.body_timeout:g} s", 408) from None
        except ClientDisconnect:
            raise RequestError("the client went away within the body", 400) from None
        return bytes(body)

    def _check_name(self, request: Request) -> None:
        if request.path_params["name"] != self.name or request.path_params.get("version", "1") != "1":
            raise HTTPException(404, f"no such model or version; there is '{self.name}', version 1")


def _refusal(message: str, status: int) -> Response:
    """An answer that says what is wrong, in few words and in letters that any answer can hold."""
    text = message if len(message) <= LONGEST_ERROR else f"{message[:LONGEST_ERROR]}..."
    return JSONResponse({"error": text.encode("utf-8", "backslashreplace").decode("utf-8")}, status)


def _wanted_outputs(asked: InferRequest, known: list[str]) -> tuple[list[str], set[str]]:
    """Names of the outputs that a request wants, and which of them as raw bytes."""
    all_binary = asked.asked.binary_data_output is True
    entries = [OutputEntry(name) for name in known] if asked.outputs is None else asked.outputs
    names, binary = [], set()
    for entry in entries:
        if entry.name not in known:
            raise RequestError(f"unknown output {shown(entry.name)}; there are {', '.join(known)}")
        names.append(entry.name)
        own = entry.parameters.binary_data if entry.parameters is not None else None
        if all_binary if own is None else own:
            binary.add(entry.name)
    names += [name for name in (*DRAWN, *SIZES) if name in known and name not in names]
    return names, binary - set(DRAWN)


def _link(path: str) -> str:
    """A path of a page; one that takes POST alone leads nowhere."""
    shown = f"<code>{escape(path)}</code>"
    return shown if path.endswith("/infer") else f"<a href='{escape(path)}'>{shown}</a>"


async def _http_error(request: Request, error: Exception) -> Response:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "internal error")
    return _refusal(detail, status)


def make_app(
    engine: FileEngine, name: str, settings: Settings | None = None, group: WorkerGroup | None = None
) -> Starlette:
    """The ASGI application that serves one explainer.

    Args:
        engine: the explainer; the caller closes it after the application has stopped.
        name: what clients call it.
        settings: limits and batching.
        group: the processes that serve together with this one; None: it is alone.
    """
    server = _Server(engine, name, settings or Settings(), group)
    model = "/v2/models/{name}"
    routes = [
        Route("/", server.front),
        Route("/v2", server.about_server),
        Route("/v2/health/live", server.live),
        Route("/v2/health/ready", server.ready),
        Route("/metrics", server.show_metrics),
    ]
    for path in (model, model + "/versions/{version}"):
        routes += [
            Route(path, server.about_model),
            Route(path + "/ready", server.ready),
            Route(path + "/infer", server.infer, methods=["POST"]),
        ]
    handlers: dict[Any, Any] = {HTTPException: _http_error, 500: _http_error}
    return Starlette(routes=routes, lifespan=server.lifespan, exception_handlers=handlers)


__all__ = ["FILTERS", "make_app"]
