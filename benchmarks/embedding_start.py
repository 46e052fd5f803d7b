"""Do embeddings that start at the filters' weights learn faster than random ones? Two short runs on the same pairs.

    python benchmarks/embedding_start.py PHOTOS... [--steps 700]

EfficientNet-Lite0's last conv at 128 px, default options otherwise; prints the running retention of both every 50
steps.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import click

from fsagn_onnx.data.images import list_images
from fsagn_onnx.generator import Trainer, TrainingOptions, keep_freed_memory
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import LAYER, build_lite0
from fsagn_onnx.models.train_lite0 import split


def run(photos: list[Path], steps: int, folder: Path, random: bool) -> list[float]:
    """Running retention after every 50 steps."""
    model = load_model(build_lite0(folder / "lite0.onnx"))
    options = TrainingOptions(ramp=((1.0, 0.57),), images_per_step=8, filters_per_image=2, pairs=16 * steps)
    start = "fsagn_onnx.generator.training.filter_embedding"
    with mock.patch(start, return_value=None) if random else nullcontext():
        trainer = Trainer(model, model.layer(LAYER), photos, folder / "x.safetensors", options=options)
    trainer.calibrate()
    seen = []
    for step in range(1, steps + 1):
        trainer.advance()
        if step % 50 == 0:
            seen.append(trainer.running["retention"])
    return seen


@click.command()
@click.argument("photos", nargs=-1, required=True)
@click.option("--steps", default=700, show_default=True)
def main(photos: tuple[str, ...], steps: int) -> None:
    keep_freed_memory()
    training, _ = split(list(list_images(photos)))
    with tempfile.TemporaryDirectory() as folder:
        weights = run(training, steps, Path(folder), random=False)
        random = run(training, steps, Path(folder), random=True)
    print("step   at the weights   random")
    for index, (first, second) in enumerate(zip(weights, random, strict=True), start=1):
        print(f"{50 * index:5d}{first:14.4f}{second:12.4f}")


if __name__ == "__main__":
    main()
