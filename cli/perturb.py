"""`fsagn-onnx perturb`: what happens to the model when parts are disturbed?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
FORMATS = click.Choice(["json", "md", "png"])


@click.command(epilog="Exit status: 0 done, 1 an error, 3 finished but some images failed.")
@click.argument("model", type=PATH)
@click.argument("explainer", type=PATH)
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the results; made if it is not there.")
@click.option("--labels", help="True classes of the images: CSV (file,label), JSON, or 'folders'.")
@click.option("--parts", type=PATH, help="Part annotations: their parts are disturbed too.")
@click.option("--dissection", type=PATH, help="Folder of a dissect run: filters get the names found there.")
@click.option("--filters", default="top:5", show_default=True, help="top:K of each image, all, or ids like 3,17.")
@click.option("--area", type=float, default=0.08, show_default=True, help="Share of the image in the filters' masks.")
@click.option("--disturbances", default="all", show_default=True, help="blur,noise,brightness,hue,occlusion,shift.")
@click.option("--ablate/--no-ablate", default=True, show_default=True, help="Switch every filter off too.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes all that is drawn.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Images at the same time.")
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
    labels: str | None,
    parts: Path | None,
    formats: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Disturb what each filter looks at, and see whether score, decision and accuracy change.

    The same disturbance in area-matched random regions of each image is the control: what is left is the effect of
    the part.
    """
    from fsagn_onnx.data.annotations import open_annotations, read_labels
    from fsagn_onnx.dissect.grids import perturbation_grid
    from fsagn_onnx.dissect.perturb import PerturbRequest, PerturbRun
    from fsagn_onnx.dissect.speaking import perturbation_json, perturbation_lines
    from fsagn_onnx.model import load_model
    from fsagn_onnx.report.following import follow
    from fsagn_onnx.report.grid import write_formats

    session = {name: options.pop(name) for name in ("threads", "providers")}
    kept = {name: options.pop(name) for name in ("dissection", "resume", "overwrite")}
    annotations = None if parts is None else open_annotations(parts)
    classes = None if labels is None else read_labels(labels)
    request = PerturbRequest(images, session=session, **options)
    run = PerturbRun(load_model(model), explainer, out, request, annotations=annotations, labels=classes, **kept)
    with run:
        follow(run.images(), "disturbing")
        result = run.finish()
        failed = run.folder.failures()
    write_formats(out, formats, perturbation_grid(result), lambda: perturbation_json(result))
    click.echo(perturbation_json(result) if as_json else "\n".join(perturbation_lines(result)))
    if failed:
        context.exit(3)
