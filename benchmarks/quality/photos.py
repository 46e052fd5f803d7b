"""Photographs x Lite0 at two layers: the last conv layer and a middle one.

    python -m benchmarks.quality.photos PHOTOS... [--unseen MORE] [--layer head] [--layer block10.expand]

Every fifth photograph (by name) is held out, whole: no crop of it is seen in training; so are all of `--unseen`. The
explainer of the last layer is the shipped one unless `--pairs` asks for a new one; that of a middle layer is trained.
Writes OUT/LAYER/evaluation.{json,md} and plots.
"""

from __future__ import annotations

from typing import Any

import click

from benchmarks.plan import Plan, measured, plan_options, trained
from fsagn_onnx.data.images import list_images
from fsagn_onnx.models.lite0 import LAYER, build_lite0, build_lite0_explainer
from fsagn_onnx.models.train_lite0 import split

MIDDLE = "block10.expand"


@click.command()
@click.argument("photos", nargs=-1, required=True)
@click.option("--unseen", multiple=True, help="More photographs, all of them held out.")
@click.option("--layer", "layers", multiple=True, default=(LAYER, MIDDLE), show_default=True)
@plan_options("build/datasets/photos", 100)
def main(photos: tuple[str, ...], unseen: tuple[str, ...], layers: tuple[str, ...], **options: Any) -> None:
    import torch

    plan = Plan(**options)
    torch.set_num_threads(plan.threads)
    found = [path for path in list_images(photos) if path.exists()]
    if len(found) < 2:
        raise click.ClickException(
            f"at least 2 photographs must be named, but found {len(found)} in {', '.join(photos)}"
        )
    training, held_out = split(found)
    held_out += list(list_images(unseen)) if unseen else []
    print(f"{len(training)} photographs to train on, {len(held_out)} held out", flush=True)
    plan.out.mkdir(parents=True, exist_ok=True)
    model = build_lite0(plan.out / "lite0.onnx")
    for layer in layers:
        if layer == LAYER and plan.pairs is None and plan.explainer is None:
            explainer = build_lite0_explainer(plan.out / "lite0_explainer.onnx", model=model)
        else:
            explainer = trained(model, training, plan, layer, crop=0.1)
        measured(layer, model, explainer, held_out, plan)


if __name__ == "__main__":
    main()
