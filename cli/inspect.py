"""`fsagn-onnx inspect`: Show a model's inputs, layers and whether it can be explained, or an explainer's metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import PATH, classes_options, detections_option, json_option, reading_options


@click.command(epilog="Exit status: 0 done, 1 an error, 3 done but some images could not be read.")
@click.argument("model", type=PATH)
@click.option("--images", multiple=True, metavar="IMAGES", help="Find filters that are dead on these; may be repeated.")
@reading_options
@classes_options
@detections_option
@click.option("--no-convert", is_flag=True, help="Do not try the conversion to torch that training needs.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    model: Path,
    images: tuple[str, ...],
    reading: dict[str, Any],
    output: str | None,
    scores: str | None,
    detections: str | None,
    no_convert: bool,
    as_json: bool,
) -> None:
    """Show what is in an ONNX file: the inputs, the layers that can be explained, what the conversion lacks.

    MODEL is a trained CNN or an explainer made by 'fsagn-onnx train'.
    """
    from fsagn_onnx.inspection.document import inspect_file
    from fsagn_onnx.terminal.inspection import counting, print_inspection, print_json

    with counting() as count:
        document = inspect_file(
            model,
            conversion=not no_convert,
            images=images,
            on_image=count,
            output=output,
            scores=scores,
            detections=detections,
            **reading,
        )
    if as_json:
        print_json(document)
    else:
        print_inspection(document)
    for failure in document.get("failures", ()):
        click.echo(f"failed: {failure['message']}", err=True)
    if document.get("failures"):
        context.exit(3)
