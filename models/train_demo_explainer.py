"""Trains the explainer of the demo CNN's last conv layer on rendered pictures of the synthetic parts set.

python -m fsagn_onnx.models.train_demo_explainer --folder build/synthetic --out models/demo_explainer.onnx
"""

from __future__ import annotations

from pathlib import Path

import click

from fsagn_onnx.generator import Progress, TrainingOptions, keep_freed_memory, train
from fsagn_onnx.testing.synthetic import write_folder

MODEL = Path(__file__).with_name("demo_cnn.onnx")
IMAGES = 2_000
OPTIONS = TrainingOptions(pairs=32_000, images_per_step=16, crop=0.6, active=60)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/synthetic"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/demo_explainer.onnx"), show_default=True)
def main(folder: Path, out: Path) -> None:
    """Render the training pictures into FOLDER, train, and write the explainer to OUT."""
    if not folder.exists():
        write_folder(folder, "train", IMAGES)

    def show(progress: Progress) -> None:
        if progress.step % 50 == 0:
            click.echo(
                f"step {progress.step}/{progress.steps}  retention {progress.retention:.3f}  "
                f"{progress.pairs_per_second:.0f} pairs/s  {progress.seconds_left / 60:.1f} min left"
            )

    keep_freed_memory()
    report = train(MODEL, [folder / "images"], out, options=OPTIONS, resume=True, on_step=show)
    click.echo(f"{out}: {report}")


if __name__ == "__main__":
    main()
