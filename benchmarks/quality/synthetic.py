"""Synthetic parts x demo CNN, VGG-like and ResNet-like network: everything, with part truth.

    python -m benchmarks.quality.synthetic [--network demo|vgg|resnet] [--images 200]

Renders the pictures, trains the network (the demo CNN comes with the repository) and its explainer (the demo CNN's
comes with the repository too, unless `--pairs` asks for a new one), and measures every metric on held-out pictures.
Writes OUT/NETWORK/evaluation.{json,md} and plots.
"""

from __future__ import annotations

from typing import Any

import click

from benchmarks.plan import Plan, measured, plan_options
from benchmarks.trained_networks import NAMES, subject
from fsagn_onnx.testing.synthetic import write_folder


@click.command()
@click.option("--network", type=click.Choice(NAMES), default="demo", show_default=True)
@plan_options("build/datasets/synthetic", 200)
def main(network: str, **options: Any) -> None:
    plan = Plan(**options)
    test = plan.out / f"test{plan.images}"
    if not (test / "names.json").exists():
        write_folder(test, "test", plan.images)
    model, explainer = subject(network, plan)
    measured(network, model, explainer, [test / "images"], plan, test / "names.json")


if __name__ == "__main__":
    main()
