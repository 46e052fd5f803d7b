"""`fsagn-onnx export`: an explainer file out of a checkpoint of train."""

from __future__ import annotations

import json
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("--model", type=PATH, required=True, help="The model that the checkpoint was trained for.")
@click.option("--out", type=PATH, required=True, help="The explainer file.")
@click.option("--preprocess", type=PATH, help="JSON file with the model's input spec.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def command(checkpoint: Path, model: Path, out: Path, preprocess: Path | None, as_json: bool) -> None:
    """Write the explainer file of CHECKPOINT, compared with the torch generator before it gets its name."""
    from fsagn_onnx.generator import export_explainer
    from fsagn_onnx.model import load_model

    report = export_explainer(load_model(model, preprocess=preprocess), checkpoint, out)
    if as_json:
        click.echo(json.dumps({"explainer": str(out), "parity": vars(report)}))
        return
    click.echo(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")
    click.echo(
        f"onnxruntime against torch: retention {report.retention:.1e}, order {report.saliency:.1e}, "
        f"model outputs {report.outputs:.1e}"
    )
    click.echo(f"next: fsagn-onnx explain {out} IMAGES... --out explanations")
