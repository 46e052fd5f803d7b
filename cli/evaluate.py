"""`fsagn-onnx evaluate`: Measure masks: retention against area, beside the feature map and random masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    PATH,
    cluster_options,
    json_option,
    keep_options,
    read_model,
    reading_options,
    seed_option,
    session_options,
)

if TYPE_CHECKING:
    from fsagn_onnx.scale.cluster import Cluster


@click.command(epilog="Exit status: 0 done, 1 an error, 3 finished but some images failed.")
@click.argument("model", type=PATH)
@click.argument("explainers_and_images", nargs=-1, required=True, metavar="[EXPLAINER]... IMAGES...")
@click.option("--methods", default="generator,activation,random", show_default=True, help="Names, in this order.")
@click.option("--infills", default="inpaint,blur,mean", show_default=True, help="inpaint is never trained on.")
@click.option("--metrics", help="Names of families; default: all but decision. See docs/reference/metrics.md.")
@click.option("--filters", type=click.IntRange(1), default=5, show_default=True, help="Filters drawn per image.")
@click.option("--layer", help="Value to explain, where no explainer says it.")
@click.option("--class-methods", help="For the family decision: names, NAME@LAYER at another layer.")
@click.option("--good", type=PATH, help="For decision: folder of aligned good pictures of the same names.")
@click.option("--parts", type=PATH, help="Part annotations, as in dissect, for the part metrics.")
@click.option("--refine", type=click.IntRange(0), default=0, help="Measure the explainers refined by N steps too.")
@click.option("--beside", type=PATH, help="Folder of an earlier evaluation whose methods join the tables.")
@seed_option
@reading_options
@click.option("--out", type=PATH, help="Folder for tables, plots and a line per image.")
@keep_options()
@session_options
@cluster_options
@json_option
@click.pass_context
def command(
    context: click.Context, /, model: Path, explainers_and_images: tuple[str, ...], methods: str, infills: str,
    metrics: str | None, filters: int, layer: str | None, class_methods: str | None, good: Path | None,
    parts: Path | None, refine: int, beside: Path | None,
    seed: int, reading: dict[str, Any], out: Path | None, resume: bool, overwrite: bool, threads: int | None,
    providers: str, cluster: Cluster | None, as_json: bool,
) -> None:  # fmt: skip
    """Measure masks on held-out IMAGES: EXPLAINER files (.onnx) beside other methods, all at one granularity.

    Every figure comes with its 95 % bootstrap interval over images.
    """
    from fsagn_onnx.data.files import write_file
    from fsagn_onnx.evaluation import Options, evaluate
    from fsagn_onnx.evaluation.page import evaluation_page
    from fsagn_onnx.evaluation.plots import write_plots
    from fsagn_onnx.terminal.evaluation import EvaluationBar, failures, show

    told: dict[str, Any] = {"metrics": metrics, "class_methods": class_methods}
    told = {name: names.split(",") for name, names in told.items() if names}
    options = Options(
        methods=methods.split(","),
        infills=infills.split(","),
        filters=filters, layer=layer, good=good, parts=parts, refine=refine, beside=beside, seed=seed,
        threads=threads, providers=providers, **told,
    )  # fmt: skip
    explainers = [name for name in explainers_and_images if name.endswith(".onnx")]
    images = [name for name in explainers_and_images if not name.endswith(".onnx")]
    if not images:
        raise click.UsageError("name images after the explainers: files, folders, globs, or -", context)
    measuring = None
    if cluster is not None:
        if out is None:
            raise click.UsageError("--cluster needs --out: its workers write what they measure there", context)
        from fsagn_onnx.scale.records import MeasuredByWorkers

        measuring = MeasuredByWorkers(cluster, reading)
    with EvaluationBar() as bar:
        found = evaluate(
            read_model(model, reading), explainers, images, options,
            out=out, resume=resume, overwrite=overwrite, on_image=bar.image, measuring=measuring,
        )  # fmt: skip
    plots = write_plots(found, out / "plots") if out is not None else None
    if out is not None:
        write_file(out / "report.html", (piece.encode() for piece in evaluation_page(found.to_dict())))
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        show(found, out, plots)
    failures(found)
    if found.failures:
        context.exit(3)
