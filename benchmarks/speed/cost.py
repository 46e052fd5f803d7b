"""What an explanation costs: explainer beside plain model, batch 1, in pairs in one run.

    python -m benchmarks.speed.cost [--networks lite0,resnet50,vgg16] [--filters 5,32] [--pairs 8] [--threads N] \
        [--classes 1]

EfficientNet-Lite0 is the trained one; the others are torchvision's, untrained (cost does not depend on weights), each
with an untrained generator of its default layer. The model's outputs of both files are compared before anything is
timed. With `--classes J` the generators can be asked about classes, and each pass asks for the evidence of J classes
and for the filters that decide the first.

A pair is a turn of runs of the one and a turn of the other, of each the median: so each finds the caches as it left
them itself, as where an explainer stands in the model's place. "run by run" is the same strictly in turn, where each
finds the other's weights there: both are slower, the explainer by more. Threads of the session that waits do not spin.
Prints medians and quartiles of the ratio, and what each further filter costs as a share of the model, and writes
build/bench_cost.json. With `--threads 1` it prints the ratio of the CPU time too, which other work on the machine
changes much less (waiting threads burn CPU time, so it means nothing with more). The ratio of the multiplications,
counted in one run of each (`arithmetic.py`), is exact; it leaves out all but convolutions and matrix products.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.arithmetic import multiply_adds
from benchmarks.networks import torchvision_network
from fsagn_onnx.generator import Checkpoint, Generator, TrainingOptions, export_explainer, make_config
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import build_lite0
from fsagn_onnx.runtime.contract import DECISIVE, STRONGEST

Array = NDArray[np.float64]
BUILD = Path("build/bench_cost")
TURN = {"lite0": 20}
"""Runs of a turn; `FEW` for larger networks, which fill the caches by themselves."""
FEW = 5
SEED = 0
"""Of the generators: another may draw maps so flat that rounding orders them."""
CLASS_BARS = {"lite0": {5: 1.2}, "resnet50": {5: 1.1}}
"""With one class."""
BARS = {"lite0": {5: 1.15, 32: 1.5}, "resnet50": {5: 1.1}, "vgg16": {5: 1.05}}


def files(network: str, *, classes: bool = False) -> tuple[Path, Path]:
    """The model and its explainer, built where they are missing."""
    BUILD.mkdir(parents=True, exist_ok=True)
    model = build_lite0(BUILD / "lite0.onnx") if network == "lite0" else torchvision_network(network, BUILD)[1]
    explainer = BUILD / f"{network}-{'classes' if classes else 'explainer'}.onnx"
    loaded = load_model(model)
    torch.manual_seed(SEED)
    generator = Generator(make_config(loaded, loaded.default_layer, classes=classes)).eval()
    description: dict[str, Any] = {
        "content": loaded.content,
        "generator": generator.config.to_dict(),
        "options": TrainingOptions().to_dict(),
        "training": {},
    }
    weights = {f"weights/{name}": value for name, value in generator.state_dict().items()}
    export_explainer(loaded, Checkpoint(description, weights), explainer)
    return model, explainer


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def turns(runs: list[Callable[[], Any]], pairs: int, turn: int) -> tuple[Array, Array]:
    """Median seconds of each run in each pair, (pairs, 2), wall and CPU time: ``turn`` runs of one, then the other."""
    warm = turn // 4
    wall, cpu = np.empty((2, pairs + 1, 2))
    for pair in range(pairs + 1):
        for column, run in enumerate(runs):
            times = []
            for _ in range(warm + turn):
                started = time.perf_counter(), time.process_time()
                run()
                used = time.process_time() - started[1]
                times.append((time.perf_counter() - started[0], used))
            wall[pair, column], cpu[pair, column] = np.median(times[warm:], axis=0)
    return wall[1:], cpu[1:]


def measure(
    model: Path, explainer: Path, asked: list[int], pairs: int, turn: int, threads: int, classes: int = 0
) -> dict[str, Any]:
    """Median times in ms and ratios; at each K the plain model and the explainer take turns."""
    plain, explaining = session(model, threads), session(explainer, threads)
    port = plain.get_inputs()[0]
    shape = [extent if isinstance(extent, int) else 1 for extent in port.shape]
    feeds: dict[str, NDArray[Any]] = {port.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    about: dict[str, NDArray[Any]] = {"classes": np.full((1, classes), -1, dtype=np.int64)} if classes else {}
    wish = DECISIVE if classes else STRONGEST
    both: list[dict[str, NDArray[Any]]] = [
        {**feeds, **about, "filters": np.full((1, count), wish, dtype=np.int64)} for count in asked
    ]
    outputs = [output.name for output in plain.get_outputs()]
    for expected, got in zip(plain.run(outputs, feeds), explaining.run(outputs, both[0]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    result: dict[str, Any] = {"pairs": pairs, "turn": turn, "explainer": {}}
    medians = []
    for count, feed in zip(asked, both, strict=True):
        runs: list[Callable[[], Any]] = [partial(plain.run, None, feeds), partial(explaining.run, None, feed)]
        wall, cpu = turns(runs, pairs, turn)
        strictly, _ = turns(runs, pairs * turn // 2, 1)
        ratios = wall[:, 1] / wall[:, 0]
        medians.append(float(np.median(ratios)))
        result["explainer"][count] = {
            "model_ms": 1e3 * float(np.median(wall[:, 0])),
            "ms": 1e3 * float(np.median(wall[:, 1])),
            "ratio": medians[-1],
            "quartiles": np.quantile(ratios, [0.25, 0.75]).tolist(),
            "run_by_run": float(np.median(strictly[:, 1] / strictly[:, 0])),
            "cpu_ratio": float(np.median(cpu[:, 1] / cpu[:, 0])) if threads == 1 else None,
            "multiply_adds": multiply_adds(explainer, feed) / multiply_adds(model, feeds),
        }
    for (low, first), (high, second) in pairwise(zip(asked, medians, strict=True)):
        result["each_further_filter"] = float((second - first) / (high - low))
    result["added_bytes"] = explainer.stat().st_size - model.stat().st_size
    return result


@click.command()
@click.option("--networks", default="lite0,resnet50,vgg16", show_default=True)
@click.option("--filters", default="5,32", show_default=True)
@click.option("--pairs", default=8, show_default=True)
@click.option("--threads", default=0, help="Threads of onnxruntime; its own choice unless told.")
@click.option("--classes", default=0, help="Classes asked about.")
def main(networks: str, filters: str, pairs: int, threads: int, classes: int) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    asked = [int(count) for count in filters.split(",")]
    results = {}
    for network in networks.split(","):
        pair, turn = files(network, classes=classes > 0), TURN.get(network, FEW)
        results[network] = found = measure(*pair, asked, pairs, turn, threads, classes)
        print(f"{network}: explainer adds {found['added_bytes'] / 2**20:.2f} MiB")
        for count, cost in found["explainer"].items():
            low, high = cost["quartiles"]
            times = f"{cost['model_ms']:.2f} and {cost['ms']:.2f} ms"
            by_cpu = f", by CPU time {cost['cpu_ratio']:.3f}" if threads == 1 else ""
            bar = (CLASS_BARS if classes == 1 else {} if classes else BARS).get(network, {}).get(count)
            print(
                f"  K = {count}: {times}, ratio {cost['ratio']:.3f} (quartiles {low:.3f} to {high:.3f}; "
                f"{f'bar {bar}; ' if bar else ''}run by run {cost['run_by_run']:.3f}){by_cpu}, "
                f"by multiplications {cost['multiply_adds']:.3f}"
            )
        if "each_further_filter" in found:
            print(f"  each further filter: {found['each_further_filter']:.2%} of the model (bar 1 %)")
    Path("build/bench_cost.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
