"""`fsagn-onnx dissect`: Find out which object part each filter stands for, with q values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import PATH, batch_size_option, cluster_options, read_model, running_options, set_reading_options

if TYPE_CHECKING:
    from fsagn_onnx.scale.cluster import Cluster


@click.command(epilog="Exit status: 0 done, 1 an error, 3 finished but some images failed.")
@click.argument("model", type=PATH)
@click.argument("explainer", type=PATH)
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the results; made if it is not there.")
@click.option("--names", type=PATH, help="Your own names of filters: JSON or CSV (filter,name).")
@click.option(
    "--filters", default="all", show_default=True,
    help="all, ids like 3,17, or decisive:K: those among the K that add most to the answer in any image, and in how "
    "many images of which class they are.",
)  # fmt: skip
@click.option("--groups", type=click.IntRange(1), help="Number of groups of filters; else whichever separate best.")
@click.option("--permutations", type=click.IntRange(99), default=999, show_default=True, help="Of each test.")
@set_reading_options
@batch_size_option()
@running_options
@cluster_options
@click.pass_context
def command(
    context: click.Context,
    /,
    model: Path,
    explainer: Path,
    images: tuple[str, ...],
    out: Path,
    names: Path | None,
    formats: tuple[str, ...],
    reading: dict[str, Any],
    kept: dict[str, Any],
    cluster: Cluster | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find out which object part each filter stands for, over a whole set of IMAGES, with q values.

    Without --parts, filters are grouped by where and on what they fire.
    """
    from fsagn_onnx.dissection import DissectRequest, DissectRun
    from fsagn_onnx.dissection.table import dissection_table
    from fsagn_onnx.report.table import write_formats
    from fsagn_onnx.terminal.dissection import dissection_json, dissection_lines
    from fsagn_onnx.terminal.progress import show_progress, stage

    request = DissectRequest(images, **options)
    with DissectRun(read_model(model, reading), explainer, out, request, names=names, **kept) as run:
        passed = run.images()
        if cluster is not None:
            from fsagn_onnx.scale.columns import dissect_by_workers

            passed = dissect_by_workers(run, explainer, reading, cluster)
        show_progress(passed, "dissecting")
        dissection = run.finish(stage)
        failed = run.folder.failures()
    document = dissection_json(dissection)
    write_formats(out, formats, dissection_table(dissection), lambda: [document, "\n"])
    click.echo(document if as_json else "\n".join(dissection_lines(dissection)))
    if failed:
        context.exit(3)
