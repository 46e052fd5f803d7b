"""What a change of the generator or of its training brings: one short run, measured on photographs left out of it.

    python -m benchmarks.quality.tries PHOTOS... [--also MORE] [--set NAME=JSON] [--width NAME=N] [--pairs 8000]

EfficientNet-Lite0's last conv layer. Every fifth photograph of `train_lite0.py`'s *training* half is left out (its
held-out ones stay unseen, for the final figures), and four crops of each are measured with 5 filters: retention AUC
under blur and under two infills that training never sees. `--set` changes a `TrainingOptions` field or one of its
objective's (`--set learning_rate=0.005`, `--set tau=[0.08,0.03]`), `--width` a width of the network (`--width
maps=128`), `--random-embeddings` starts the embeddings at random instead of at the filters' weights.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
import cv2
import numpy as np

from fsagn_onnx.data.images import list_images, read_image
from fsagn_onnx.evaluation import Options, evaluate
from fsagn_onnx.generator import TrainingOptions, keep_freed_memory, train
from fsagn_onnx.generator.batches import random_crop
from fsagn_onnx.generator.config import make_config
from fsagn_onnx.generator.objective import Objective
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import LAYER, build_lite0
from fsagn_onnx.models.train_lite0 import split

CROPS = 4
SIZE_160 = ((1.0, 0.72),)
"""All pairs at 160 px, so that a run takes minutes."""


def crops(photos: list[Path], folder: Path) -> Path:
    """Crops of photographs as PNG files: nearly the whole one, and three random ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    for path in photos:
        picture = read_image(path)
        for number in range(CROPS):
            crop = random_crop(picture, 0.1 if number else 0.9, False, rng)
            cv2.imwrite(str(folder / f"{path.stem}_{number}.png"), np.ascontiguousarray(crop)[..., ::-1])
    return folder


def options(changes: dict[str, Any], pairs: int) -> TrainingOptions:
    """The default options at 160 px, changed."""
    objective = {field.name for field in fields(Objective)}
    inner = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    own = {name: value for name, value in inner.items() if name not in objective}
    aim = Objective(**{name: value for name, value in inner.items() if name in objective})
    return replace(TrainingOptions(pairs=pairs, ramp=SIZE_160, objective=aim), **own)


def pairs_of(texts: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=JSON`` as a dictionary."""
    return {name: json.loads(value) for name, _, value in (text.partition("=") for text in texts)}


@click.command()
@click.argument("photos", nargs=-1, required=True)
@click.option("--also", multiple=True, help="More photographs to train on.")
@click.option("--set", "changes", multiple=True, metavar="NAME=JSON")
@click.option("--width", "widths", multiple=True, metavar="NAME=N")
@click.option("--random-embeddings", is_flag=True)
@click.option("--pairs", default=8_000, show_default=True)
@click.option("--methods", default="generator,activation", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/tries"), show_default=True)
def main(
    photos: tuple[str, ...],
    also: tuple[str, ...],
    changes: tuple[str, ...],
    widths: tuple[str, ...],
    random_embeddings: bool,
    pairs: int,
    methods: str,
    out: Path,
) -> None:
    keep_freed_memory()
    known, _ = split(list(list_images(photos)))
    left_out = known[2::5]
    training = [path for path in known if path not in left_out] + (list(list_images(also)) if also else [])
    model, made = load_model(build_lite0(out / "lite0.onnx")), out / "explainer.onnx"
    settings = pairs_of(widths)
    with ExitStack() as stack:
        where = "fsagn_onnx.generator.trainer"
        stack.enter_context(mock.patch(f"{where}.make_config", lambda *of: make_config(*of, **settings)))
        if random_embeddings:
            stack.enter_context(mock.patch(f"{where}.filter_embedding", return_value=None))
        train(model, training, made, layer=LAYER, options=options(pairs_of(changes), pairs), overwrite=True)
    chosen = Options(
        methods=methods.split(","), metrics=["retention"], infills=["inpaint", "shuffle", "blur"], threads=2
    )
    found = evaluate(model, made, sorted(crops(left_out, out / "crops").iterdir()), chosen)
    print(f"{len(training)} photographs, {pairs} pairs, {' '.join((*changes, *widths)) or 'as it is'}")
    for row in found.rows:
        print(f"{row.metric:24}{row.infill or '':10}{row.method:14}{row.value.mean:8.4f}")


if __name__ == "__main__":
    main()
