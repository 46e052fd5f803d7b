"""Trains the explainer of the demo CNN's last conv layer on rendered pictures of the synthetic parts set.

python -m fsagn_onnx.models.train_demo_explainer --device cuda --out models/demo_explainer.onnx
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from fsagn_onnx.generator import Objective, TrainingOptions, keep_freed_memory, train
from fsagn_onnx.terminal.training import TrainingBar
from fsagn_onnx.testing.synthetic import write_folder

MODEL = Path(__file__).with_name("demo_cnn.onnx")
IMAGES = 6_000
OPTIONS = TrainingOptions(
    pairs=253_312,
    images_per_step=32,
    filters_per_image=4,
    crop=0.6,
    active=60,
    teacher=0.5,
    objective=Objective(contrast=1.0, area_range=(0.03, 0.25)),
    particular=1.2,
)
"""Minutes on a GPU, 41 on a core of a CPU. Areas up to .25: the masks of parts are as small."""


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/synthetic"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/demo_explainer.onnx"), show_default=True)
@click.option("--pairs", default=OPTIONS.pairs, show_default=True)
@click.option("--contrast", default=OPTIONS.objective.contrast, show_default=True)
@click.option("--particular", default=OPTIONS.particular, show_default=True)
@click.option("--seed", default=OPTIONS.seed, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(folder: Path, out: Path, pairs: int, contrast: float, particular: float, seed: int, device: str) -> None:
    """Render the training pictures into FOLDER, train, and write the explainer to OUT."""
    if not folder.exists():
        write_folder(folder, "train", IMAGES)

    keep_freed_memory()
    objective = replace(OPTIONS.objective, contrast=contrast)
    options = replace(OPTIONS, pairs=pairs, objective=objective, particular=particular, seed=seed)
    with TrainingBar() as bar:
        report = train(
            MODEL,
            [folder / "images"],
            out,
            options=options,
            resume=True,
            device=device,
            on_step=bar.step,
        )
    click.echo(f"{out}: {report}")


if __name__ == "__main__":
    main()
