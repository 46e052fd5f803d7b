"""`fsagn-onnx train`: Train a mask generator for a model and export it as an explainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    PATH,
    classes_options,
    cluster_options,
    json_option,
    keep_options,
    read_model,
    reading_options,
    seed_option,
)

if TYPE_CHECKING:
    from fsagn_onnx.scale.cluster import Cluster


@click.command(epilog="Exit status: 0 done, 1 an error, 3 trained but some images could not be read.")
@click.argument("model", type=PATH)
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="The explainer file; its checkpoint is kept beside it.")
@click.option("--layer", help="Value to explain; see 'fsagn-onnx inspect'. Default: the model's default layer.")
@click.option("--own", is_flag=True, help="An encoder of the generator's own: a file without the model inside.")
@click.option("--objective", type=click.Choice(["budget", "fsagn"]), default="budget", help="What is minimised.")
@click.option(
    "--pairs", type=click.IntRange(1), default=40_000, show_default=True, help="(image, filter) pairs to see."
)
@click.option("--images-per-step", type=click.IntRange(1), default=8, show_default=True, help="Fewer take less memory.")
@click.option(
    "--questions",
    type=click.Choice(["filters", "filters,classes"]),
    help="What can be asked about. Default: classes too where the model classifies.",
)
@click.option(
    "--contrast", type=click.FloatRange(0), default=1.0, show_default=True, help="Tell filters apart; 0: keep most."
)
@click.option(
    "--particular",
    type=click.FloatRange(0, 100),
    help="Bring out what is particular to a filter, once trained.  [default: as far as .85 of the gain is kept]",
)
@click.option("--crop", type=click.FloatRange(0.01, 1), help="Smallest random crop; default: .1 (few images) to .5.")
@click.option("--no-flip", is_flag=True, help="Never mirror the pictures.")
@seed_option
@click.option("--device", default="cpu", show_default=True, help="torch device: cpu, cuda, ...")
@click.option(
    "--devices",
    type=click.IntRange(1),
    help="Processes that share every step.  [default: 1; with --cluster all that it has room for]",
)
@cluster_options
@reading_options
@classes_options
@click.option("--checkpoint-every", type=click.IntRange(1), default=100, show_default=True, help="Steps.")
@keep_options("Go on from the checkpoint, bit for bit; --pairs may differ.", "Start anew though there is a checkpoint.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    images: tuple[str, ...],
    out: Path,
    layer: str | None,
    own: bool,
    objective: str,
    pairs: int,
    images_per_step: int,
    questions: str | None,
    contrast: float,
    particular: float | None,
    crop: float | None,
    no_flip: bool,
    seed: int,
    device: str,
    devices: int | None,
    cluster: Cluster | None,
    reading: dict[str, Any],
    output: str | None,
    scores: str | None,
    checkpoint_every: int,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a mask generator on IMAGES (files, folders, globs, or -) and write it as an explainer file."""
    from fsagn_onnx.generator import Objective, TrainingOptions, keep_freed_memory, train
    from fsagn_onnx.terminal.training import TrainingBar

    keep_freed_memory()
    elsewhere = None
    if cluster is not None:
        from functools import partial

        from fsagn_onnx.scale.training import train_on_cluster

        elsewhere = partial(train_on_cluster, cluster=cluster, workers=devices)
    minimised = Objective("fsagn" if objective == "fsagn" else "budget", contrast=contrast)
    options = TrainingOptions(
        pairs=pairs, images_per_step=images_per_step, crop=crop, flip=not no_flip,
        questions=tuple(questions.split(",")) if questions else None, particular=particular,
        seed=seed, checkpoint_every=checkpoint_every, objective=minimised,
    )  # fmt: skip
    with TrainingBar() as bar:
        bar.phase("reading the model")
        loaded = read_model(model, reading)
        report = train(
            loaded, images, out, layer=layer, encoder="own" if own else "shared", options=options,
            resume=resume, overwrite=overwrite, device=device, devices=devices or 1, output=output, scores=scores,
            on_step=bar.step, on_failure=bar.failure, on_phase=bar.phase, elsewhere=elsewhere,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"explainer": str(out), "parity": vars(report), "failures": bar.failures}))
    else:
        click.echo(f"{out}: trained on {pairs} pairs, retention {bar.retention:.3f} under soft masks")
        click.echo(f"onnxruntime against torch: retention differs by at most {report.retention:.1e}")
        click.echo(f"next: fsagn-onnx explain {out} {images[0]} --out explanations")
    if bar.failures:
        context.exit(3)
