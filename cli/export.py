"""`fsagn-onnx export`: Write an explainer file out of a checkpoint of train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import PATH, json_option, read_model, reading_options


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("--model", type=PATH, required=True, help="The model that the checkpoint was trained for.")
@click.option("--out", type=PATH, required=True, help="The explainer file.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16 (for GPUs) or int8.")
@click.option("--calibrate", multiple=True, metavar="IMAGES", help="Images for fp16 and int8; may be repeated.")
@click.option("--with-preprocessing", is_flag=True, help="Take uint8 RGB images of any size.")
@click.option("--filters", help="Answer these filters only, for example 3,17,40.")
@click.option("--top", type=click.IntRange(1), help="Answer the K strongest filters; no second input.")
@click.option("--own", is_flag=True, help="Insist on a file without the model inside.")
@click.option("--opset", type=click.IntRange(1), help="Opset of the file, 18 or later.")
@click.option("--quality", type=PATH, help="evaluation.json of 'evaluate --out': figures for the metadata.")
@reading_options
@json_option
def command(
    checkpoint: Path, model: Path, out: Path, reading: dict[str, Any], own: bool, as_json: bool, **options: Any
) -> None:
    """Write the explainer file of CHECKPOINT, compared with the torch generator before it gets its name."""
    from fsagn_onnx.generator import export_explainer, load_checkpoint, read_quality
    from fsagn_onnx.generator.variants import asked_variant, insist_on_own

    known = load_checkpoint(checkpoint)
    if own:
        insist_on_own(known, checkpoint)
    variant = asked_variant(**{name: options[name] for name in ("precision", "with_preprocessing", "filters", "top")})
    report = export_explainer(
        read_model(model, reading),
        known,
        out,
        quality=read_quality(options["quality"]) if options["quality"] else None,
        variant=variant,
        opset=options["opset"],
        calibrate=options["calibrate"],
    )
    if as_json:
        size = out.stat().st_size
        click.echo(
            json.dumps({"explainer": str(out), "bytes": size, "parity": vars(report), "loss": dict(report.loss)})
        )
        return
    click.echo(f"{out}: {out.stat().st_size / 2**20:.1f} MiB")
    click.echo(
        f"onnxruntime against torch: retention {report.retention:.1e}, order {report.saliency:.1e}, "
        f"model outputs {report.outputs:.1e}"
    )
    if loss := report.loss:
        click.echo(
            f"{variant.precision} against float32 on {loss['images']:.0f} images: same strongest filters "
            f"{loss['filters']:.0%}, areas overlap by {loss['overlap']:.2f} (IoU), retention differs by "
            f"{loss['retention']:.4f}"
        )
    click.echo(f"next: fsagn-onnx explain {out} IMAGES... --out explanations")
