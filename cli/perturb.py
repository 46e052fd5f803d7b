"""`fsagn-onnx perturb`: Disturb what filters look at, and see what becomes of the model's answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import PATH, cluster_options, read_model, running_options, set_reading_options

if TYPE_CHECKING:
    from fsagn_onnx.scale.cluster import Cluster


@click.command(epilog="Exit status: 0 done, 1 an error, 3 finished but some images failed.")
@click.argument("model", type=PATH)
@click.argument("explainer", type=PATH)
@click.argument("images", nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the results; made if it is not there.")
@click.option("--dissection", type=PATH, help="Folder of a dissect run: filters get the names found there.")
@click.option(
    "--filters", default="auto",
    help="decisive:K or top:K of each image, all, or ids like 3,17.  [default: decisive:3 where the explainer knows "
    "classes, else top:3]",
)  # fmt: skip
@click.option("--disturbances", default="all", show_default=True, help="all, or some, like blur,noise.")
@click.option("--ablate/--no-ablate", default=True, show_default=True, help="Switch every filter off too.")
@set_reading_options
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
    dissection: Path | None,
    formats: tuple[str, ...],
    reading: dict[str, Any],
    kept: dict[str, Any],
    cluster: Cluster | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Disturb what each filter looks at, and see whether score, decision and accuracy change.

    The same disturbance in area-matched random regions of each image is the control: what is left is the effect of
    the part. With --parts, annotated parts are disturbed too; --labels says the true classes. Before it starts, it
    says how many passes that takes, and after the first image how long.
    """
    from fsagn_onnx.perturbation.run import PerturbRequest, PerturbRun
    from fsagn_onnx.perturbation.table import perturbation_table
    from fsagn_onnx.report.table import write_formats
    from fsagn_onnx.terminal.perturbation import perturbation_json, perturbation_lines, saying_time, workload_line
    from fsagn_onnx.terminal.progress import show_progress

    request = PerturbRequest(images, **options)
    loaded = read_model(model, reading)
    with PerturbRun(loaded, explainer, out, request, dissection=dissection, **kept) as run:
        work = run.workload()
        if not as_json:
            click.echo(workload_line(work), err=True)
        passed = run.images()
        if cluster is not None:
            from fsagn_onnx.scale.columns import perturb_by_workers

            passed = perturb_by_workers(run, explainer, reading, cluster)
        timed = not as_json and cluster is None
        disturbed = saying_time(passed, work.images, partial(click.echo, err=True)) if timed else passed
        show_progress(disturbed, "disturbing")
        result = run.finish()
        failed = run.folder.failures()
    document = perturbation_json(result)
    write_formats(out, formats, perturbation_table(result), lambda: [document, "\n"])
    click.echo(document if as_json else "\n".join(perturbation_lines(result)))
    if failed:
        context.exit(3)
