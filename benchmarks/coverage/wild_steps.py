"""What is done with one network of the wild list: each step a process of its own, with a limit on its time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from .wild_network import Network

PAIRS = 48
TRAINING_PICTURES = ("chelsea.png", "coffee.png", "rocket.jpg", "astronaut.png", "page.png", "text.png")
PROGRAM = Path(sys.executable).with_name("fsagn-onnx")
Result = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit status (None: over its limit), what it printed, largest memory in MB.

    `seconds` are those of a clock on the wall, `cpu` those of the processor: on a busy machine only these mean much.
    """

    status: int | None
    out: str
    err: str
    seconds: float
    cpu: float
    memory: float

    @property
    def line(self) -> str:
        """The one line with which it refused; what it is instead, if it is none."""
        if self.status is None:
            return f"over the limit of {self.seconds:.0f} s"
        if "Traceback (most recent call last)" in self.err:
            return "TRACEBACK: " + self.err.strip().splitlines()[-1]
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return errors[-1] if errors else f"exit {self.status} without a line that begins with 'error: '"


def run(command: list[str], limit: float) -> Ended:
    """Run a command on one thread; its whole process group ends at the limit."""
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **alone},
        )
        status, usage, over = 0, None, False
        while usage is None:
            pid, code, spent = os.wait4(process.pid, os.WNOHANG)
            if pid:
                status, usage = os.waitstatus_to_exitcode(code), spent
            elif time.monotonic() - started > limit and not over:
                os.killpg(process.pid, signal.SIGKILL)
                over = True
            else:
                time.sleep(0.05)
        process.returncode = status
        seconds = time.monotonic() - started
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Ended(
        None if over else status, texts[0], texts[1], seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    )


def code() -> str:
    """Which program ran: its version and the beginning of a SHA-256 over its files."""
    import fsagn_onnx

    digest = hashlib.sha256()
    root = Path(fsagn_onnx.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{fsagn_onnx.__version__}+{digest.hexdigest()[:12]}"


def picture(name: str) -> Path:
    """A picture of scikit-image that its wheel ships."""
    folder = Path(skimage.data.__file__).parent
    return folder / name


def preprocessed(spec: dict[str, Any], path: Path) -> NDArray[np.float32]:
    """A picture as the package feeds it, by Pillow and numpy alone: (1, ...) by layout."""
    height, width = spec["size"]
    image = Image.open(path).convert("RGB")
    if spec["resize"].startswith("letterbox"):
        pad = int(spec["resize"].split(":")[1])
        ratio = min(width / image.width, height / image.height)
        inner = _resized(image, (round(image.width * ratio), round(image.height * ratio)))
        image = Image.new("RGB", (width, height), (pad, pad, pad))
        image.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    else:
        image = _resized(image, (width, height))
    pixels = np.asarray(image.convert("L") if spec["color"] == "GRAY" else image, dtype=np.float32)
    pixels = pixels.reshape(height, width, -1)
    if spec["color"] == "BGR":
        pixels = pixels[..., ::-1]
    batch = ((pixels * spec["scale"] - spec["mean"]) / spec["std"])[None].astype(np.float32)
    return np.ascontiguousarray(batch if spec["layout"] == "NHWC" else batch.transpose(0, 3, 1, 2))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Area averages where it shrinks, bilinear where it grows: small inputs answer otherwise to other filters."""
    pixels = np.asarray(image, dtype=float)
    for axis, wanted in ((0, size[1]), (1, size[0])):
        if wanted < pixels.shape[axis]:
            pixels = np.moveaxis(np.tensordot(_shares(pixels.shape[axis], wanted), pixels, (1, axis)), 0, axis)
    return Image.fromarray(pixels.round().astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _shares(before: int, after: int) -> NDArray[np.float64]:
    """(after, before): how much of each old pixel lies in each new one, the rows summing to 1."""
    edges = np.arange(after + 1) * before / after
    left, right = edges[:-1, None], edges[1:, None]
    old = np.arange(before)
    shares: NDArray[np.float64] = np.clip(np.minimum(right, old + 1) - np.maximum(left, old), 0, 1) * after / before
    return shares


def sample(network: Network, path: Path, image: Path) -> dict[str, NDArray[Any]]:
    """What a model or an explainer is given for one picture."""
    given: dict[str, Any] = {network.spec["name"]: preprocessed(network.spec, image)}
    for port in _session(path).get_inputs():
        if port.name in given:
            continue
        if port.name in ("filters", "classes") and port.type == "tensor(int64)":
            given[port.name] = np.array([[-1]], dtype=np.int64)  # an explainer's questions: the strongest
            continue
        value = json.loads(dict(feed.split("=", 1) for feed in network.feeds)[port.name])
        shape = [side if isinstance(side, int) else 1 for side in port.shape]
        given[port.name] = np.broadcast_to(np.asarray(value, dtype=np.float32), shape).copy()
    return given


def answers(network: Network, path: Path, image: Path, fused: bool = True) -> dict[str, NDArray[Any]]:
    """All outputs of a model or an explainer for one picture, by onnxruntime and nothing of this program.

    Args:
        network: of the list.
        path: the file.
        image: the picture.
        fused: as a user's session computes; else node by node, since 8-bit nodes that are fused round differently.
    """
    session = _session(path, fused)
    found = session.run(None, sample(network, path, image))
    return dict(zip([port.name for port in session.get_outputs()], found, strict=True))


def _session(path: Path, fused: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def probabilities(row: NDArray[Any]) -> NDArray[np.float64]:
    """A row of classes as probabilities: as it is if it sums to one, [1 - p, p] of one number, else its softmax."""
    numbers = row.reshape(-1).astype(np.float64)
    if numbers.size == 1:
        return np.array([1 - numbers[0], numbers[0]])
    if abs(numbers.sum() - 1) < 1e-3 and numbers.min() >= 0:
        return numbers
    weights = np.exp(numbers - numbers.max())
    softmax: NDArray[np.float64] = weights / weights.sum()
    return softmax


def as_result(ended: Ended) -> Result:
    """What is kept of a step."""
    kept = asdict(ended)
    del kept["out"], kept["err"]
    kept |= {"seconds": round(ended.seconds, 1), "cpu": round(ended.cpu, 1), "memory": round(ended.memory)}
    return {**kept, "ok": ended.status == 0} | ({} if ended.status == 0 else {"line": ended.line})
