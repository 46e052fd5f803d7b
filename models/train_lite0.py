"""Trains the generator of EfficientNet-Lite0's last conv layer on crops of photographs.

    python -m fsagn_onnx.models.train_lite0 PHOTOS... --device cuda --out build/lite0_head.onnx

Every fifth of PHOTOS (in the order of names) stays out of training and is there for testing; all of `--also` (see
`photographs.py`) is trained on. `--masks-of` teaches only the retention head. The checkpoint beside the output carries
everything; `--ship` writes its averaged weights alone, as committed here.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from fsagn_onnx.data.images import list_images
from fsagn_onnx.generator import (
    Checkpoint,
    Objective,
    Trainer,
    TrainingOptions,
    keep_freed_memory,
    load_checkpoint,
    save_checkpoint,
    train,
)
from fsagn_onnx.generator.training_run import checkpoint_path
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import LAYER, build_lite0
from fsagn_onnx.terminal.training import TrainingBar

HOLD_OUT_EVERY = 5
OPTIONS = TrainingOptions(
    pairs=298_240,
    images_per_step=64,
    filters_per_image=4,
    classes_weight=1.0,
    teacher=0.5,
    particular=0.0,
    checkpoint_every=200,
    objective=Objective(contrast=0.7),
)


def split(photos: list[Path]) -> tuple[list[Path], list[Path]]:
    """Training and held-out photographs: every fifth, by name, is held out."""
    ordered = sorted(photos, key=lambda path: path.name)
    held_out = ordered[::HOLD_OUT_EVERY]
    return [path for path in ordered if path not in held_out], held_out


def ship(source: Path, out: Path) -> None:
    """Write the averaged weights of a checkpoint, without the state of the optimiser and the paths of its pictures."""
    checkpoint = load_checkpoint(source)
    weights = {name: value for name, value in checkpoint.tensors.items() if name.startswith("weights/")}
    save_checkpoint(out, Checkpoint({**checkpoint.description, "calibration": []}, weights))


def keep_masks(trainer: Trainer, source: Path) -> None:
    """Begin where the masks of another checkpoint stand, so that only the retention head is left to teach."""
    checkpoint = load_checkpoint(source)
    weights, running = checkpoint.group("weights"), checkpoint.description["running"]
    masks = {name: value for name, value in weights.items() if not name.startswith("retention_")}
    trainer.generator.load_state_dict(masks, strict=False)
    trainer.average = {name: value.detach().clone() for name, value in trainer.generator.state_dict().items()}
    trainer.step, trainer.running = trainer.options.steps, {"retention": float(running["retention"])}
    trainer.seconds = float(checkpoint.description["training"]["seconds"])
    trainer.save()


@click.command()
@click.argument("photos", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/lite0_head.onnx"), show_default=True)
@click.option("--also", multiple=True, help="More photographs, all of them to train on.")
@click.option("--masks-of", type=click.Path(path_type=Path), help="Keep these weights' masks; teach the rest.")
@click.option("--pairs", default=OPTIONS.pairs, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--ship", "shipped", type=click.Path(path_type=Path), help="Write the weights alone here at the end.")
def main(
    photos: tuple[str, ...],
    out: Path,
    also: tuple[str, ...],
    masks_of: Path | None,
    pairs: int,
    device: str,
    shipped: Path | None,
) -> None:
    """Train on PHOTOS (files, folders, globs); goes on from the checkpoint where there is one."""
    training, held_out = split(list(list_images(photos)))
    training += list(list_images(also)) if also else []
    click.echo(f"{len(training)} photographs to train on, {len(held_out)} held out")
    model = build_lite0(out.parent / "lite0.onnx")

    keep_freed_memory()
    options = replace(OPTIONS, pairs=pairs)
    if masks_of is not None and not checkpoint_path(out).exists():
        loaded = load_model(model)
        keep_masks(Trainer(loaded, loaded.layer(LAYER), training, checkpoint_path(out), options=options), masks_of)
    with TrainingBar() as bar:
        report = train(model, training, out, layer=LAYER, options=options, resume=True, device=device, on_step=bar.step)
    click.echo(f"{out}: {report}")
    if shipped is not None:
        ship(checkpoint_path(out), shipped)
        click.echo(f"weights: {shipped}")


if __name__ == "__main__":
    main()
