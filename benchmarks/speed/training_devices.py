"""Pairs per second of training with several processes of one thread each, over those of one, in turns.

    python -m benchmarks.speed.training_devices [PHOTOS...] [--network demo] [--devices 1,2] [--rounds 6] [--steps 4]
        [--edge 1.0]

All processes are started first; then each group takes its steps while the others wait. Wall time counts on a machine
with idle cores only; CPU time per pair, and the share of a worker's time in which it gathers (it waits for the slowest
worker there), are printed too. That the groups train alike is asserted: the running loss.
Filters alone are asked about: a choice of teachers before the first step would take longer than the steps.
Writes build/bench_train_devices.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.distributed as dist

from benchmarks.photographs import given_photographs
from benchmarks.speed.training import opened
from fsagn_onnx.benchmark import machine
from fsagn_onnx.generator import TrainingOptions, keep_freed_memory
from fsagn_onnx.generator.share import Share
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime.metadata import QUESTIONS

WARM = 2
DEMO = Path(__file__).resolve().parents[2] / "models" / "demo_cnn.onnx"


class GatheringTime:
    """Seconds within `all_gather`, by wrapping it: all that workers tell each other in a step goes through it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inner = dist.all_gather
        dist.all_gather = self._timed

    def _timed(self, parts: list[torch.Tensor], own: torch.Tensor, **named: Any) -> Any:
        started = time.perf_counter()
        work = self._inner(parts, own, async_op=True)
        work.wait()
        self.seconds += time.perf_counter() - started
        return work


def worker(share: Share, network: str, photos: list[Path], folder: Path, edge: float, orders: Connection) -> None:
    """Takes as many steps as it is told, and answers with wall, CPU and gathering seconds, and the running loss."""
    torch.set_num_threads(1)
    keep_freed_memory()
    if not share.alone:
        meeting = f"file://{folder / f'meeting{share.workers}'}"
        dist.init_process_group("gloo", init_method=meeting, rank=share.rank, world_size=share.workers)
    gathering = GatheringTime()
    model = load_model(DEMO) if network == "demo" else opened(network)
    options = TrainingOptions(ramp=((1.0, edge),) if edge < 1 else (), pairs=10**6, questions=QUESTIONS[:1])
    checkpoint = folder / f"{share.workers}.safetensors"
    trainer = Trainer(model, model.default_layer, photos, checkpoint, options=options, share=share)
    trainer.calibrate()
    while steps := orders.recv():
        gathered, wall, cpu = gathering.seconds, time.perf_counter(), time.process_time()
        for _ in range(steps):
            trainer.advance()
        spent = (time.perf_counter() - wall, time.process_time() - cpu, gathering.seconds - gathered)
        orders.send((*spent, trainer.running["loss"]))
    if not share.alone:
        dist.destroy_process_group()


def measured(
    network: str, photos: list[Path], devices: list[int], rounds: int, steps: int, edge: float
) -> dict[str, Any]:
    options, context = TrainingOptions(), get_context("spawn")
    pairs = steps * options.images_per_step * options.filters_per_image
    groups: dict[int, list[Connection]] = {}
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for count in devices:
            for rank in range(count):
                ours, theirs = context.Pipe()
                groups.setdefault(count, []).append(ours)
                given = (Share(rank, count), network, photos, Path(folder), edge, theirs)
                processes.append(context.Process(target=worker, args=given))
                processes[-1].start()
        spent = np.empty((rounds, len(devices), 4))
        for number in range(-1, rounds):
            for place, count in enumerate(devices):
                for orders in groups[count]:
                    orders.send(WARM if number < 0 else steps)
                answers = np.array([orders.recv() for orders in groups[count]])
                spent[max(number, 0), place] = (
                    answers[:, 0].max(),
                    answers[:, 1].sum(),
                    answers[:, 2].mean() / answers[:, 0].mean(),
                    answers[0, 3],
                )
        for orders in (one for group in groups.values() for one in group):
            orders.send(0)
        for process in processes:
            process.join()
    assert np.allclose(spent[:, :, 3], spent[:, :1, 3], rtol=1e-3), "the groups train differently"
    found: dict[str, Any] = {"pairs_per_step": pairs // steps, "rounds": rounds, "steps_per_round": steps}
    for place, count in enumerate(devices):
        wall, cpu, gathering, _ = spent[:, place].T
        ratio = spent[:, 0, 0] / wall
        low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75]).tolist()
        found[str(count)] = {
            "pairs_per_s": pairs / float(np.median(wall)), "cpu_ms_per_pair": 1e3 * float(np.median(cpu)) / pairs,
            "gathering_share": float(np.median(gathering)), "ratio": middle, "quartiles": [low, high],
            "best_ratio": float(spent[:, 0, 0].min() / wall.min()),
            "loss_apart": float(np.abs(spent[:, place, 3] / spent[:, 0, 3] - 1).max()),
        }  # fmt: skip
        told = found[str(count)]
        print(
            f"{network}, {count} processes: {told['pairs_per_s']:.2f} pairs/s, {middle:.3f} times {devices[0]} "
            f"(quartiles {low:.3f} to {high:.3f}; quickest round against quickest {told['best_ratio']:.3f}), "
            f"{told['cpu_ms_per_pair']:.1f} ms CPU a pair, {told['gathering_share']:.1%} gathering, "
            f"loss apart by {told['loss_apart']:.1e}"
        )
    return found


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--network", default="demo", show_default=True, help="demo, lite0, or a network of torchvision.")
@click.option("--devices", default="1,2", show_default=True, help="Processes of each group; the first is the base.")
@click.option("--rounds", default=6, show_default=True)
@click.option(
    "--steps", default=4, show_default=True, help="Of a round; a multiple of those that see the same pictures."
)
@click.option("--edge", default=1.0, show_default=True, help="Edge of the input, as a share of the model's own.")
def main(photos: tuple[str, ...], network: str, devices: str, rounds: int, steps: int, edge: float) -> None:
    counts = [int(count) for count in devices.split(",")]
    found = measured(network, given_photographs(photos), counts, rounds, steps, edge)
    document = {"machine": machine(), "threads": 1, "edge": edge, "network": network, "devices": found}
    Path("build").mkdir(exist_ok=True)
    Path("build/bench_train_devices.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
