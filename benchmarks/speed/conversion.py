"""What conversion costs: forward+backward of the converted graph beside the torch module it came from; time and memory.

    python -m benchmarks.speed.conversion [--pairs 12] [--threads 2]

ResNet-50 and EfficientNet-Lite0: both get the same batch of 8 and the gradient of the image, in turns, both in
channels_last; their outputs are compared before anything is timed. ResNet-152: seconds and peak memory of loading and
converting it in a fresh process, without and with the parity check. Writes build/bench_convert.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.networks import torchvision_network
from fsagn_onnx.conversion import convert
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import build_lite0, load_torch_lite0

BUILD = Path("build/bench_convert")
WARM = 3


def seconds(run: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Forward, and the gradient of the image."""
    leaf = images.clone(memory_format=torch.preserve_format).requires_grad_(True)
    started = time.perf_counter()
    run(leaf).square().mean().backward()
    return time.perf_counter() - started


def compare(name: str, module: nn.Module, path: Path, pairs: int) -> dict[str, Any]:
    """Median seconds of both and the median of their ratio."""
    model = load_model(path)
    output = model.outputs[0].name
    ours = convert(model, [output], check=False)
    module = module.requires_grad_(False).to(memory_format=torch.channels_last)
    height = model.input_spec.size[0]
    images = torch.randn(8, 3, height, height, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    expected, got = module(images), ours(images)[output]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    times = np.empty((pairs, 2))
    runs: tuple[Callable[[Tensor], Tensor], ...] = (module, lambda x: ours(x)[output])
    for index in range(-WARM, pairs):
        for column, run in enumerate(runs):
            times[max(index, 0), column] = seconds(run, images)
    ratios = times[:, 1] / times[:, 0]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"{name}: torch {np.median(times[:, 0]):.3f} s, converted {np.median(times[:, 1]):.3f} s, ", end="")
    print(f"ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f})")
    return {"torch_s": float(np.median(times[:, 0])), "ratio": float(middle), "quartiles": [float(low), float(high)]}


def peak() -> int:
    """Peak resident memory of this process in bytes (Linux; `ru_maxrss` would carry over the parent's)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def once(path: Path, check: bool) -> None:
    """Load and convert one file; print seconds and the growth of the peak memory in bytes."""
    before, started = peak(), time.perf_counter()
    model = load_model(path)
    convert(model, [model.default_layer.value], check=check)
    print(json.dumps({"seconds": time.perf_counter() - started, "bytes": peak() - before}))


@click.command()
@click.option("--pairs", default=12, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--once", "single", type=click.Path(path_type=Path), hidden=True)
@click.option("--check", is_flag=True, hidden=True)
def main(pairs: int, threads: int, single: Path | None, check: bool) -> None:
    torch.set_num_threads(threads)
    if single is not None:
        once(single, check)
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    results["resnet50"] = compare("ResNet-50", *torchvision_network("resnet50", BUILD, batch="N"), pairs)
    results["lite0"] = compare("EfficientNet-Lite0", load_torch_lite0(), build_lite0(BUILD / "lite0.onnx"), pairs)
    _, path = torchvision_network("resnet152", BUILD, batch="N")
    size = path.stat().st_size
    for words in ([], ["--check"]):
        command = [sys.executable, "-m", "benchmarks.speed.conversion", "--once", str(path), *words]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        kind = "with the parity check" if words else "alone"
        print(f"ResNet-152, loading and converting {kind}: {found['seconds']:.2f} s, ", end="")
        print(f"peak memory {found['bytes'] / size:.2f} times the file of {size / 2**20:.0f} MiB")
        results["resnet152" + (" checked" if words else "")] = {**found, "file": size}
    Path("build/bench_convert.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
