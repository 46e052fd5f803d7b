"""Synthetic parts x demo CNN, VGG-like and ResNet-like network: everything, with part truth.

    python benchmarks/datasets/synthetic.py [--network demo|vgg|resnet] [--images 200]

Renders the pictures, trains the network (the demo CNN comes with the repository) and its explainer (the demo CNN's
comes with the repository too, unless `--pairs` asks for a new one), and measures every metric on held-out pictures.
Writes OUT/NETWORK/evaluation.{json,md} and plots.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from common import Plan, measured, plan_options, trained
from networks import NETWORKS, trained_network

from fsagn_onnx.data.synthetic import write_folder

MODELS = Path(__file__).resolve().parents[2] / "models"
TRAINING_PICTURES = 2_000


@click.command()
@click.option("--network", type=click.Choice(["demo", *NETWORKS]), default="demo", show_default=True)
@plan_options("build/datasets/synthetic", 200)
def main(network: str, **options: Any) -> None:
    import torch

    plan = Plan(**options)
    torch.set_num_threads(plan.threads)
    train, test = plan.out / "train", plan.out / f"test{plan.images}"
    if not (test / "names.json").exists():
        write_folder(test, "test", plan.images)
    if network == "demo":
        model = MODELS / "demo_cnn.onnx"
    else:
        model = trained_network(network, plan.out / f"{network}.onnx", plan.threads)
    if network == "demo" and plan.pairs is None and plan.explainer is None:
        explainer = MODELS / "demo_explainer.onnx"
    else:
        if plan.explainer is None and not (train / "names.json").exists():
            write_folder(train, "train", TRAINING_PICTURES)
        explainer = trained(model, [train / "images"], plan)
    measured(network, model, explainer, [test / "images"], plan, test / "names.json")


if __name__ == "__main__":
    main()
