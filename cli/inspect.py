"""`fsagn-onnx inspect`: what a model takes, its layers and whether it converts; or what an explainer is."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command(epilog="Exit status: 0 done, 1 an error.")
@click.argument("model", type=PATH)
@click.option("--preprocess", type=PATH, help="JSON file with fields of the model's input spec.")
@click.option("--no-convert", is_flag=True, help="Do not try the conversion to torch that training needs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(model: Path, preprocess: Path | None, no_convert: bool, as_json: bool) -> None:
    """Show what is in an ONNX file: the inputs, the layers that can be explained, what the conversion lacks.

    MODEL is a trained CNN or an explainer made by 'fsagn-onnx train'.
    """
    from fsagn_onnx.report.inspection import inspect_file
    from fsagn_onnx.report.inspection_text import print_inspection, print_json

    document = inspect_file(model, preprocess=preprocess, conversion=not no_convert)
    if as_json:
        print_json(document)
    else:
        print_inspection(document)
