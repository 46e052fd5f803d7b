"""Writes explainer files of format 1 anew, with what today's metadata says beside: `content`, `sha256`, `classes`.

python -m fsagn_onnx.models.renew_metadata models/demo_explainer.onnx models/demo_cnn.onnx

The graph stays as it is; so does the number of the format, where there is nothing to change.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from onnx import helper

from fsagn_onnx.data.files import write_file
from fsagn_onnx.model import load_model
from fsagn_onnx.model.onnx_file import read_proto
from fsagn_onnx.runtime.classes import classes_of_explainer
from fsagn_onnx.runtime.contract import RESULTS
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.metadata import FORMAT, KEY


@click.command()
@click.argument("explainer", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(explainer: Path, model: Path) -> None:
    """Write EXPLAINER, which was made for MODEL, anew."""
    loaded = load_model(model)
    engine = FileEngine(explainer, "cpu")
    engine.require_model(loaded)
    about = engine.metadata
    proto = read_proto(explainer)
    classes = classes_of_explainer(proto, about, RESULTS).described()
    engine.close()
    about = replace(about, format=FORMAT, sha256=loaded.sha256, classes=classes)
    helper.set_model_props(proto, {KEY: about.to_json()})
    write_file(explainer, [proto.SerializeToString()], durable=True)
    click.echo(f"{explainer}: format {about.format}, {classes}")


if __name__ == "__main__":
    main()
