"""`fsagn-onnx explain`: Show which area of each image each filter looks at."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import (
    PATH,
    FolderOrUrl,
    area_option,
    batch_size_option,
    classes_options,
    cluster_options,
    detections_option,
    formats_option,
    json_option,
    keep_options,
    reading_options,
    session_options,
)

if TYPE_CHECKING:
    from fsagn_onnx.explanations.job import ExplainRequest
    from fsagn_onnx.scale.cluster import Cluster


@click.command(epilog="Exit status: 0 done, 1 an error, 3 finished but some images failed.")
@click.argument("model_or_explainer", type=PATH)
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--out", type=FolderOrUrl(), required=True, help="Folder for the results; made if it is not there. Or a URL."
)
@click.option(
    "--why", is_flag=False, flag_value="top:1", metavar="[CLASS,...]",
    help="What the decision for a class rests on (its answer unless told): the evidence, the filters that carry it, "
    "and a sentence of measured numbers. With an explainer that knows classes the default; with a plain model at once, "
    "without training.",
)  # fmt: skip
@click.option("--filters", help="decisive:K, against:K, top:K, all, or ids like 3,17.  [default: decisive:5 or top:5]")
@click.option(
    "--contributions", type=click.Choice(["zero", "mean"]), default="zero", show_default=True,
    help="For a plain model with --why: what a filter adds against being switched off, or against its mean over the "
    "first pictures.",
)  # fmt: skip
@click.option(
    "--measure/--no-measure", default=None,
    help="Run the model on masked images (about 100 passes per image): what areas keep, what decisions rest on. "
    "Unless told: decisions of all images, areas of the first 20.",
)  # fmt: skip
@click.option("--verify", is_flag=True, hidden=True, help="The same as --measure.")
@area_option("image")
@click.option("--model", type=PATH, help="The model that the explainer must belong to.")
@click.option("--refine", type=click.IntRange(0), default=0, help="Optimise an explainer's masks for N steps more.")
@click.option("--method", help="For a plain model: activation, optimise, ...")
@click.option("--layer", help="For a plain model: the value to explain; see 'fsagn-onnx inspect'.")
@reading_options
@classes_options
@detections_option
@keep_options()
@click.option(
    "--style", type=click.Choice(["outline", "heat"]), default="outline", show_default=True,
    help="How pictures show areas: outlined, or as a blended heat map.",
)  # fmt: skip
@click.option(
    "--names", type=PATH, help="What filters are called: a folder of 'dissect', or JSON or CSV (filter,name)."
)
@click.option("--full-size", is_flag=True, help="Write the masks at the size of the original images.")
@batch_size_option()
@session_options
@cluster_options
@click.option(
    "--overlays", metavar="N|FILES",
    help="Write a dataset of rows (Parquet), and masks, overlays and a page of N pictures only, drawn from all, or of "
    "those named.  [default with --cluster: 200]",
)  # fmt: skip
@click.option(
    "--part-pictures", type=click.IntRange(1), default=1000, show_default=True,
    help="Images of a part of the dataset: what a killed worker does again.",
)  # fmt: skip
@formats_option("parquet", about="; parquet: the dataset, a row per image and filter")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    model_or_explainer: Path,
    images: tuple[str, ...],
    out: Path | str,
    reading: dict[str, Any],
    resume: bool,
    overwrite: bool,
    cluster: Cluster | None,
    overlays: str | None,
    part_pictures: int,
    formats: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Show which area of each image each filter of a layer looks at.

    MODEL_OR_EXPLAINER is an explainer file made by 'fsagn-onnx train', or a plain ONNX model. IMAGES are
    files, folders, globs, or - for paths on standard input. With --why it also says what the decision rests on.

    With --cluster or --overlays, for very many images: lists (@FILE), Parquet files of paths or bytes, WebDataset
    shards (.tar), and all of these by URL (s3://, gs://, az://) too.
    """
    from fsagn_onnx.explanations.job import ExplainRequest as Request

    asked = {
        name: options.pop(name)
        for name in ("filters", "area", "measure", "names", "why", "full_size", "batch_size", "style")
    }
    if options.pop("verify"):
        asked["measure"] = True
    read = {name: options[name] for name in ("output", "scores", "detections")}
    request = Request(images=images, **asked, **read)
    kept, opening = {"resume": resume, "overwrite": overwrite}, {**reading, **options}
    if cluster is not None or overlays is not None:
        failed = _many(
            model_or_explainer, out, request, opening, kept, (cluster, overlays, part_pictures), formats, as_json
        )
    elif isinstance(out, str):
        raise click.UsageError(f"--out {out}: a store takes the dataset of rows; add --cluster or --overlays N")
    else:
        failed = _some(model_or_explainer, out, request, opening, kept, formats, as_json)
    if failed:
        context.exit(3)


def _some(
    source: Path,
    out: Path,
    request: ExplainRequest,
    opening: dict[str, Any],
    kept: dict[str, bool],
    formats: tuple[str, ...],
    as_json: bool,
) -> int:
    """Explain images one after the other, each with its files; gives the number of those that failed."""
    from fsagn_onnx.explanations.job import explain_into, found_images, open_folder
    from fsagn_onnx.explanations.subject import open_explainer
    from fsagn_onnx.explanations.table import write_explained
    from fsagn_onnx.runtime.depth_choice import MOST_PICTURES
    from fsagn_onnx.terminal.explanations import Terminal, print_explanations

    if "parquet" in formats and request.full_size:
        raise click.UsageError("--full-size: not in the dataset of rows, whose masks are those of the model's input")
    paths = found_images(request, out)
    first = list(islice(paths, MOST_PICTURES)) if request.why is not None else []
    opened = open_explainer(source, why=request.why is not None, pictures=first, **opening)
    terminal = Terminal(quiet=as_json)
    with opened.explainer:
        for hint in opened.hints:
            terminal.hint(hint)
        folder = open_folder(opened, source, out, request, **kept)
        with folder:
            for _ in terminal.follow(explain_into(folder, opened, chain(first, paths), request)):
                pass
    write_explained(folder, [name for name in formats if name != "parquet"])
    if "parquet" in formats:
        from fsagn_onnx.explanations.export import write_dataset

        write_dataset(folder)
    if as_json:
        print_explanations(folder)
    else:
        terminal.summary(folder, opened.explainer.provider)
    return folder.failed


def _many(
    source: Path,
    out: Path | str,
    request: ExplainRequest,
    opening: dict[str, Any],
    kept: dict[str, bool],
    scale: tuple[Cluster | None, str | None, int],
    formats: tuple[str, ...],
    as_json: bool,
) -> int:
    """Explain very many images into a dataset of rows; gives the number of those that failed."""
    from fsagn_onnx.explanations.subject import open_explainer
    from fsagn_onnx.scale.dataset import places
    from fsagn_onnx.scale.explain import DatasetRun, Scale, first_pictures
    from fsagn_onnx.scale.pictures import units_of
    from fsagn_onnx.terminal.datasets import DatasetTerminal

    if set(formats) - {"parquet"}:
        raise click.UsageError("--format: of a dataset of rows parquet only; its sample has a page of its own")
    cluster, overlays, part_pictures = scale
    opening |= {"why": request.why is not None}
    units = list(units_of(request.images, part_pictures))  # once: names on standard input are gone then
    opened = open_explainer(source, pictures=first_pictures(units) if opening["why"] else (), **opening)
    terminal = DatasetTerminal(quiet=as_json)
    with opened.explainer:
        how = Scale(cluster, "200" if overlays is None else overlays, part_pictures)
        run = DatasetRun(opened, source, opening, out, request, how, units=units, **kept)
        for hint in opened.hints:
            terminal.hint(hint)
        for _ in terminal.follow_parts(run.outcomes(), places(run.units)):
            pass
        run.finish()
    terminal.dataset_summary(run.folder, as_json=as_json)
    return len(run.folder.failures)
