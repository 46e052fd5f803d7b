"""What the same masks cost otherwise: RISE, per-image optimisation, and the explainer in torch eager.

    python -m benchmarks.speed.rivals [PHOTO] [--masks 1000] [--steps 80] [--rounds 5] [--threads 2]

EfficientNet-Lite0's last conv layer, one filter, one picture. RISE runs the model in onnxruntime in batches of 32,
optimisation in torch. Passes take turns ten by ten: after each, torch's threads spin for a while on the cores that
onnxruntime needs. The torch explainer is the converted CNN up to its taps, plus the generator; it does not even
compute the prediction. Its answer is compared with the file's before anything is timed. Ratios within a round,
median of the rounds. Writes build/bench_rivals.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.networks import lite0
from fsagn_onnx.benchmark import Spread, machine
from fsagn_onnx.benchmark.paired import timed
from fsagn_onnx.conversion import convert
from fsagn_onnx.data.images import read_image
from fsagn_onnx.generator import load_checkpoint, load_generator
from fsagn_onnx.methods.optimise import Optimise
from fsagn_onnx.methods.rise import Rise
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import GENERATOR, LAYER
from fsagn_onnx.runtime import FileEngine

TURN = 10


def picture(photo: Path | None) -> np.ndarray:
    if photo is not None:
        return read_image(photo)
    from skimage import data

    chelsea: np.ndarray = data.chelsea()
    return chelsea


@click.command()
@click.argument("photo", required=False, type=click.Path(path_type=Path))
@click.option("--masks", default=1000, show_default=True)
@click.option("--steps", default=80, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(photo: Path | None, masks: int, steps: int, rounds: int, threads: int) -> None:
    torch.set_num_threads(threads)
    plain, explainer = lite0()
    model = load_model(plain)
    batch = model.input_spec.preprocess(picture(photo))[0][None]
    engine = FileEngine(explainer, "cpu", threads)
    asked = engine.run(batch, np.full((1, 1), -1, dtype=np.int64)).filter_ids
    generator = load_generator(load_checkpoint(GENERATOR))
    tapped = convert(model, [tap.value for tap in generator.config.taps], check=False).eval()
    image, filters = torch.from_numpy(batch), torch.from_numpy(asked)

    def in_torch() -> Any:
        with torch.inference_mode():
            return generator({"image": image} | tapped(image), filters)

    assert np.allclose(in_torch().retention.numpy(), engine.run(batch, asked).retention, atol=1e-3)
    own = tapped(image)[LAYER].detach().numpy()
    rise = Rise(model, LAYER, masks=masks, providers="cpu", threads=threads)
    optimise = Optimise(model, LAYER, steps=steps)
    turns = [lambda: [engine.run(batch, asked) for _ in range(TURN)], lambda: [in_torch() for _ in range(TURN)]]
    quick = timed(turns, 2 * rounds)
    slow = timed(
        [
            lambda: [engine.run(batch, asked) for _ in range(20)],
            lambda: rise.saliency(batch, own, asked),
            lambda: optimise.saliency(batch, own, asked),
        ],
        rounds,
        warm=1,
    )
    ours = slow[:, 0] / 20
    result = {
        "machine": machine(),
        "threads": threads,
        "explainer_ms": 1e3 * float(np.median(ours)),
        "rise_over_ours": vars(Spread.of(slow[:, 1] / ours)),
        "optimise_over_ours": vars(Spread.of(slow[:, 2] / ours)),
        "torch_over_onnxruntime": vars(Spread.of(quick[:, 1] / quick[:, 0])),
    }
    Path("build").mkdir(exist_ok=True)
    Path("build/bench_rivals.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, bar in (("rise_over_ours", 300), ("optimise_over_ours", 100), ("torch_over_onnxruntime", 3)):
        spread = result[name]
        print(f"{name}: {spread['median']:.1f} ({spread['low']:.1f}-{spread['high']:.1f}), bar {bar}")  # type: ignore[index]


if __name__ == "__main__":
    main()
