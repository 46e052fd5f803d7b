"""What do questions about classes, and what does the contrast, cost the masks of filters?

    python -m benchmarks.truth.questions_apart [--pairs 4000] [--pictures 40] [--folder build/questions]

Four short trainings of the demo CNN's explainer that differ in nothing else: filters alone or filters and classes, with
and without the contrast of the shipped one. Retention AUC (inpaint), its gain over the feature map and specificity on
pictures of the validation half, 5 filters each, common granularity, with 95 % bootstrap intervals over pictures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.networks import DEMO_MODEL
from benchmarks.plan import plainly
from benchmarks.truth.filters_apart import Maps, Scene, TorchProbe, measure
from fsagn_onnx.data.images import list_images
from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.model import load_model
from fsagn_onnx.models.train_demo_explainer import OPTIONS
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.masks import from_rank
from fsagn_onnx.runtime.metadata import QUESTIONS
from fsagn_onnx.testing.synthetic import write_folder

TRAINED_ON = 600
CONTRASTS = (0.0, OPTIONS.objective.contrast)
FIGURES = ("AUC", "AUC - activation", "specificity")


def settings(classes: bool, contrast: float, pairs: int) -> TrainingOptions:
    """The defaults of `train`, with what is compared."""
    default = TrainingOptions(pairs=pairs, filters_per_image=4, crop=OPTIONS.crop, active=OPTIONS.active)
    questions = QUESTIONS if classes else QUESTIONS[:1]
    return replace(default, questions=questions, objective=replace(default.objective, contrast=contrast))


def maps_of(path: Path) -> Maps:
    engine = FileEngine(path, "cpu", 1)

    def maps(
        batch: NDArray[np.float32], features: NDArray[np.float32], filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return from_rank(engine.run(batch, filters).area_rank)

    return maps


@click.command()
@click.option("--pairs", default=4_000, show_default=True)
@click.option("--pictures", default=40, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/questions"), show_default=True)
@plainly
def main(pairs: int, pictures: int, folder: Path) -> None:
    torch.set_num_threads(1)
    for split, count in (("train", TRAINED_ON), ("val", pictures)):
        if not (folder / split).exists():
            write_folder(folder / split, split, count)
    model = load_model(DEMO_MODEL)
    layer = model.default_layer.value
    probe = TorchProbe(model, layer, "cpu", 64)
    scene = Scene.of(probe, list(list_images([folder / "val" / "images"]))[:pictures], 5)
    maps = {"activation": np.take_along_axis(scene.features, scene.filters[:, :, None, None], axis=1)}
    for classes in (False, True):
        for contrast in CONTRASTS:
            name = f"{'filters and classes' if classes else 'filters'}, contrast {contrast:g}"
            out = folder / f"{'classes' if classes else 'filters'}-{contrast:g}-{pairs}.onnx"
            if not out.exists():
                options = settings(classes, contrast, pairs)
                train(model, [folder / "train" / "images"], out, options=options, resume=True)
            maps[name] = scene.maps(maps_of(out))
            print(f"{name}: trained", flush=True)
    print(f"{pairs} pairs, {len(scene.paths)} pictures\n| training | {' | '.join(FIGURES)} |\n|---|---|---|---|")
    for name, row in measure(probe, scene, maps).items():
        print(f"| {name} | {' | '.join(str(row[figure]) for figure in FIGURES)} |")


if __name__ == "__main__":
    main()
