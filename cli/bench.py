"""`fsagn-onnx bench`: Time an explainer beside the plain model."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import PATH, json_option


def numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    """Whole numbers with commas between them."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"expected whole numbers from 1 with commas between them, but got {text!r}")
    return [int(part) for part in parts]


@click.command()
@click.argument("model", type=PATH)
@click.argument("explainer", type=PATH)
@click.argument("images", nargs=-1)
@click.option("--also", type=PATH, multiple=True, help="A further explainer file, for example int8; may be repeated.")
@click.option(
    "--batch", "batches", callback=numbers, metavar="N,N,...", default="1,8", show_default=True, help="Images per pass."
)
@click.option(
    "--filters", callback=numbers, metavar="N,N,...", default="1,5,32", show_default=True, help="Numbers of filters K."
)
@click.option(
    "--threads", callback=numbers, metavar="N,N,...", help="Numbers of threads; onnxruntime's own choice unless told."
)
@click.option("--providers", multiple=True, help="auto, cpu, cuda, or onnxruntime's names; may be repeated.")
@click.option("--pairs", type=click.IntRange(1), default=30, show_default=True, help="Pairs of runs.")
@click.option("--preprocess", type=PATH, help="JSON file with the model's input spec.")
@click.option("--out", type=PATH, help="Write the figures as JSON to this file too.")
@json_option
def command(
    model: Path,
    explainer: Path,
    images: tuple[str, ...],
    also: tuple[Path, ...],
    batches: list[int],
    filters: list[int],
    threads: list[int] | None,
    providers: tuple[str, ...],
    pairs: int,
    preprocess: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Time EXPLAINER beside MODEL in pairs: by batch, number of filters, precision, provider and threads."""
    from rich.console import Console

    from fsagn_onnx.benchmark import Benchmark, run_benchmark
    from fsagn_onnx.benchmark.table import as_table
    from fsagn_onnx.data.files import write_file
    from fsagn_onnx.model import load_model

    files, tried = (explainer, *also), providers or ("auto",)
    known = load_model(model, preprocess=preprocess)
    benchmark = Benchmark(known, files, images, batches, filters, threads or (None,), tried, pairs)
    waiting = Console(stderr=True)
    with waiting.status("measuring") if waiting.is_terminal else waiting:
        rows = list(run_benchmark(benchmark))
    text = json.dumps(benchmark.document(), indent=None if as_json else 1)
    if out is not None:
        write_file(out, [text.encode("ascii"), b"\n"])
    if as_json:
        click.echo(text)
        return
    Console(width=None if Console().is_terminal else 200).print(as_table(rows))
    click.echo(f"medians of {pairs} pairs, quartiles of the ratio; next: fsagn-onnx serve {explainer}")
