"""`fsagn-onnx evaluate`: retention AUC of explainers beside the feature map and random masks."""

from __future__ import annotations

import json
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command(epilog="Exit status: 0 done, 1 an error, 3 finished but some images failed.")
@click.argument("model", type=PATH)
@click.argument("explainer", type=PATH)
@click.argument("images", nargs=-1, required=True)
@click.option("--methods", default="random,activation", show_default=True, help="Methods to compare with.")
@click.option("--infills", default="inpaint,blur,mean", show_default=True, help="inpaint is never trained on.")
@click.option("--filters", type=click.IntRange(1), default=5, show_default=True, help="Filters drawn per image.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes all that is drawn.")
@click.option("--out", type=PATH, help="Write the table as JSON to this file too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    explainer: Path,
    images: tuple[str, ...],
    methods: str,
    infills: str,
    filters: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure EXPLAINER on held-out IMAGES at the common granularity, with 95 % bootstrap intervals over images."""
    from fsagn_onnx.evaluate.run import evaluate, write_table

    table = evaluate(
        model,
        explainer,
        images,
        methods=methods.split(","),
        infills=infills.split(","),
        filters=filters,
        seed=seed,
    )
    document = json.dumps(table.to_dict())
    if out is not None:
        write_table(out, document)
    if as_json:
        click.echo(document)
    else:
        click.echo(f"retention AUC, layer {table.layer}, {table.images} images x {table.filters} filters")
        for infill, row in table.auc.items():
            for name, interval in row.items():
                beside = table.against_activation[infill].get(name)
                click.echo(f"  {infill:8} {name:12} {interval}" + (f"  - activation: {beside}" if beside else ""))
    for failure in table.failures:
        click.echo(f"failed: {failure.message}", err=True)
    if table.failures:
        context.exit(3)
