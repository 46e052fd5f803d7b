"""What `--why` on a plain model costs: decision, evidence and contributions of one class, in its forward passes.

    python -m benchmarks.speed.gradient [--networks lite0,resnet50,boards,demo] [--pairs 10] [--threads 1]

One picture at a time, the plain model and the evidence graph in turn in one run; per pair the ratio of their times, the
median and the quartiles over the pairs. Three graphs of each network: every candidate depth (which the choice of a
depth runs on the first pictures), the deepest three together, and the shallowest alone (the longest way back).
ResNet-50 is torchvision's, untrained: cost does not depend on weights. With one thread, CPU time is compared, which
other work on the machine changes least. Writes build/bench_gradient.json; fails where a graph costs more than 3.5
forwards.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.networks import DEMO_MODEL, ROOT, lite0, torchvision_network
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.depth_choice import SUMMED
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.runtime.session import Session

BUILD = Path("build/bench_gradient")
BAR = 3.5


def network(name: str) -> Model:
    """The model, built where it is missing."""
    if name == "lite0":
        return load_model(lite0(BUILD)[0])
    if name in ("boards", "demo"):
        return load_model(DEMO_MODEL if name == "demo" else ROOT / "models" / "boards_cnn.onnx")
    return load_model(torchvision_network(name, BUILD, batch="N")[1])


def ratios(model: Model, depths: Sequence[str] | None, pairs: int, threads: int) -> tuple[list[float], float, int]:
    """Time of the evidence graph over that of the plain model per pair, the latter's median in ms, and nodes added."""
    clock: Callable[[], float] = time.process_time if threads == 1 else time.perf_counter
    x = np.random.default_rng(0).normal(size=(1, *model.input_spec.sample_shape)).astype(np.float32)
    feeds, asked = {model.input_spec.name: x}, np.array([-1])
    found, plain_times = [], []
    with (
        Session(model.proto, "cpu", threads) as plain,
        PlainEvidence(model, depths=depths, providers="cpu", threads=threads) as engine,
    ):
        turns = max(1, round(0.2 / timed(lambda: plain.run(None, feeds), clock, 2)))
        for _ in range(pairs):
            first = timed(lambda: plain.run(None, feeds), clock, turns)
            second = timed(lambda: engine.maps(x, asked), clock, turns)
            found.append(second / first)
            plain_times.append(first * 1000)
        nodes = len(engine.explaining_graph().graph.node)
    return found, float(np.median(plain_times)), nodes - len(model.proto.graph.node)


def timed(run: Callable[[], Any], clock: Callable[[], float], turns: int) -> float:
    """Seconds of the quickest half of some runs after a first one, on average."""
    run()
    times = []
    for _ in range(turns + 1):
        start = clock()
        run()
        times.append(clock() - start)
    return float(np.mean(sorted(times)[: max(1, len(times) // 2)]))


@click.command(help=__doc__)
@click.option("--networks", default="lite0,resnet50,boards,demo")
@click.option("--pairs", default=10)
@click.option("--threads", default=1)
def main(networks: str, pairs: int, threads: int) -> None:
    """Print and check the ratios."""
    rows = []
    for name in networks.split(","):
        model = network(name)
        with PlainEvidence(model, providers="cpu", threads=1) as engine:
            depths = engine.depths
        graphs = {"all depths": depths, "deepest three": depths[-SUMMED:], "shallowest": depths[:1]}
        for what, chosen in graphs.items():
            found, plain, nodes = ratios(model, chosen, pairs, threads)
            low, median, high = np.quantile(found, [0.25, 0.5, 0.75])
            rows.append({"network": name, "graph": what, "depths": list(chosen), "forwards": median, "nodes": nodes})
            print(
                f"{name:9} {what:14} {len(chosen)} depths: {median:.2f} forwards [{low:.2f}, {high:.2f}]; plain "
                f"{plain:.1f} ms, {nodes} nodes more",
                flush=True,
            )
    BUILD.parent.mkdir(exist_ok=True)
    (BUILD.parent / "bench_gradient.json").write_text(json.dumps(rows, indent=1) + "\n")
    raise SystemExit(any(row["forwards"] > BAR for row in rows))


if __name__ == "__main__":
    main()
