"""Training's pairs per second over a bare forward+backward loop of the frozen CNN at the same batch, in turns.

    python -m benchmarks.speed.training [PHOTOS...] [--networks lite0,resnet50] [--steps 12] [--threads 2] [--edge 1.0]

The bare loop runs as many images as a step has (image, filter) pairs through the converted CNN up to the explained
layer, and back to the image. A step of training also looks at the unmasked images once, without a gradient, draws and
decodes them, runs the generator both ways and updates it. Wall and CPU time; the bar is for wall time on a machine
with nothing else to do. The parts of a step are timed in further steps, on their own. Writes build/bench_train.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.networks import torchvision_network
from benchmarks.photographs import given_photographs
from fsagn_onnx.benchmark import machine
from fsagn_onnx.generator import TrainingOptions
from fsagn_onnx.generator import step as step_module
from fsagn_onnx.generator.schedule import input_size
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.models.lite0 import build_lite0

BUILD = Path("build/bench_train")
WARM = 3
Clock = Callable[[], float]


def opened(network: str) -> Model:
    if network == "lite0":
        return load_model(build_lite0(BUILD / "lite0.onnx"))
    return load_model(torchvision_network(network, BUILD)[1])


def bare_loop(trainer: Trainer, pairs: int) -> Callable[[], None]:
    """Forward and backward of the CNN alone; its answer is that of the CNN on the same images."""
    height, width = input_size(trainer.model.input_spec, trainer.options, 0)
    channels = trainer.model.input_spec.channels
    images = torch.randn(pairs, channels, height, width, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    module, layer = trainer.stepper.module, trainer.config.layer

    def loop() -> None:
        leaf = images.clone(memory_format=torch.preserve_format).requires_grad_(True)
        module(leaf)[layer].square().mean().backward()
        assert leaf.grad is not None

    return loop


def in_turns(calls: list[Callable[[], None]], rounds: int) -> np.ndarray:
    """Wall and CPU seconds, (rounds, calls, 2)."""
    seconds = np.empty((rounds, len(calls), 2))
    for number in range(-WARM, rounds):
        for place, call in enumerate(calls):
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            seconds[max(number, 0), place] = time.perf_counter() - wall, time.process_time() - cpu
    return seconds


class Parts:
    """CPU time within named calls of a step, by wrapping them; what lies between them is the rest."""

    def __init__(self, trainer: Trainer) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        stepper = trainer.stepper
        self._wrap(stepper.source, "draw", "draw and decode images")
        self._wrap(stepper, "look", "unmasked forward")
        self._wrap(stepper, "mask", "masks")
        self._wrap(stepper.generator, "forward", "generator forward")
        self._wrap(stepper.source, "infills", "infills")
        self._wrap(step_module, "blend", "blending")
        self._wrap(stepper.source, "filters", "drawing filters")
        self._wrap(torch.Tensor, "backward", "backward of all")
        self._wrap(trainer.optimiser, "step", "optimiser")

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        inner = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return inner(*arguments, **named)
            finally:
                self.spent[part] += time.process_time() - started

        setattr(owner, name, wrapped)


def measure(network: str, photos: list[Path], steps: int, edge: float) -> dict[str, Any]:
    options = TrainingOptions(ramp=((1.0, edge),) if edge < 1 else (), pairs=10**6)
    pairs = options.images_per_step * options.filters_per_image
    model = opened(network)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, model.default_layer, photos, Path(folder) / "x.safetensors", options=options)
        trainer.calibrate()
        seconds = in_turns([bare_loop(trainer, pairs), trainer.advance], steps)
        visits = seconds.reshape(-1, options.visits, 2, 2).sum(axis=1)  # only the first step of some looks at pictures
        ratio = visits[:, 0] / visits[:, 1]  # of pairs per second
        low, middle, high = np.quantile(ratio[:, 0], [0.25, 0.5, 0.75]).tolist()
        backward = torch.Tensor.backward
        parts = Parts(trainer)
        started = time.process_time()
        for _ in range(steps):
            trainer.advance()
        whole = time.process_time() - started
        torch.Tensor.backward = backward  # type: ignore[method-assign]
    bare, trained = np.median(visits, axis=0) / options.visits
    print(
        f"{network}, {pairs} pairs a step: bare {pairs / bare[0]:.1f} pairs/s, trained {pairs / trained[0]:.1f}; ",
        end="",
    )
    print(f"ratio {middle:.3f} (quartiles {low:.3f} to {high:.3f}), by CPU time {np.median(ratio[:, 1]):.3f} (bar .85)")
    shares = {part: spent / whole for part, spent in parts.spent.items()}
    shares["rest: masked forward, loss, averages"] = 1 - sum(shares.values())
    for part, share in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"  {share:6.1%}  {part}")
    return {
        "pairs_per_step": pairs,
        "bare_pairs_per_s": pairs / float(bare[0]),
        "trained_pairs_per_s": pairs / float(trained[0]),
        "ratio": middle,
        "quartiles": [low, high],
        "cpu_ratio": float(np.median(ratio[:, 1])),
        "cpu_shares": shares,
    }


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--networks", default="lite0,resnet50", show_default=True)
@click.option("--steps", default=12, show_default=True, help="A multiple of the steps that see the same pictures.")
@click.option("--threads", default=2, show_default=True)
@click.option("--edge", default=1.0, show_default=True, help="Edge of the input, as a share of the model's own.")
def main(photos: tuple[str, ...], networks: str, steps: int, threads: int, edge: float) -> None:
    torch.set_num_threads(threads)
    BUILD.mkdir(parents=True, exist_ok=True)
    paths = given_photographs(photos)
    results = {network: measure(network, paths, steps, edge) for network in networks.split(",")}
    document = {"machine": machine(), "threads": threads, "edge": edge, "networks": results}
    Path("build/bench_train.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
