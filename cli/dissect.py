"""`fsagn-onnx dissect`: which object part does each filter stand for?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .reading import read_model, reading_options

PATH = click.Path(path_type=Path)
FORMATS = click.Choice(["json", "md", "png"])


@click.command(epilog="Exit status: 0 done, 1 an error, 3 finished but some images failed.")
@click.argument("model", type=PATH)
@click.argument("explainer", type=PATH)
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the results; made if it is not there.")
@click.option("--parts", type=PATH, help="Part annotations: file or folder, see the README for layouts.")
@click.option("--labels", help="Classes of the images: CSV (file,label), JSON, or 'folders'.")
@click.option("--names", type=PATH, help="Your own names of filters: JSON or CSV (filter,name).")
@click.option("--filters", default="all", show_default=True, help="all, or ids like 3,17.")
@click.option("--area", type=float, default=0.08, show_default=True, help="Share of the image in every mask.")
@click.option("--groups", type=click.IntRange(1), help="Number of groups of filters; else whichever separate best.")
@click.option("--permutations", type=click.IntRange(99), default=999, show_default=True, help="Of each test.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes all that is drawn.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Passes at the same time.")
@reading_options
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images per pass.")
@click.option("--threads", type=click.IntRange(1), help="Threads of onnxruntime.")
@click.option("--providers", default="auto", show_default=True, help="auto, cpu, cuda, or onnxruntime's names.")
@click.option("--resume", is_flag=True, help="Do what an interrupted run left undone.")
@click.option("--overwrite", is_flag=True, help="Replace the results in the folder.")
@click.option("--format", "formats", multiple=True, type=FORMATS, help="Write report.FORMAT too; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_context
def command(
    context: click.Context,
    /,
    model: Path,
    explainer: Path,
    images: tuple[str, ...],
    out: Path,
    parts: Path | None,
    labels: str | None,
    formats: tuple[str, ...],
    reading: dict[str, Any],
    as_json: bool,
    **options: Any,
) -> None:
    """Find out which object part each filter stands for, over a whole set of IMAGES, with q values.

    Without --parts, filters are grouped by where and on what they fire.
    """
    from fsagn_onnx.data.annotations import open_annotations, read_labels
    from fsagn_onnx.dissect import DissectRun, Request
    from fsagn_onnx.dissect.grids import dissection_grid
    from fsagn_onnx.dissect.speaking import dissection_json, dissection_lines
    from fsagn_onnx.report.following import follow, stage
    from fsagn_onnx.report.grid import write_formats

    session = {name: options.pop(name) for name in ("threads", "providers")}
    kept = {name: options.pop(name) for name in ("names", "resume", "overwrite")}
    annotations = None if parts is None else open_annotations(parts)
    classes = None if labels is None else read_labels(labels)
    request = Request(images, session=session, **options)
    run = DissectRun(
        read_model(model, reading), explainer, out, request, annotations=annotations, labels=classes, **kept
    )
    with run:
        follow(run.images(), "dissecting")
        dissection = run.finish(stage)
        failed = run.folder.failures()
    write_formats(out, formats, dissection_grid(dissection), lambda: dissection_json(dissection))
    click.echo(dissection_json(dissection) if as_json else "\n".join(dissection_lines(dissection)))
    if failed:
        context.exit(3)
