"""`fsagn-onnx demo`: Explain real photographs with a trained explainer of EfficientNet-Lite0."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from .options import PATH, json_option, session_options


@click.command()
@click.option(
    "--out",
    type=PATH,
    default=Path("fsagn-demo"),
    show_default=True,
    help="Folder for photographs, explainer and results; an explainer that it holds is reused.",
)
@click.option("--filters", default="top:5", show_default=True, help="top:K, all, or ids like 3,17.")
@click.option("--area", default="0.15", show_default=True, help="Share of the image to show, or auto: sufficient.")
@click.option("--verify", is_flag=True, help="Measure retention by running the model on the masked images.")
@session_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    out: Path,
    filters: str,
    area: str,
    verify: bool,
    threads: int | None,
    providers: str,
    as_json: bool,
) -> None:
    """Explain real photographs with a trained explainer of EfficientNet-Lite0.

    The network comes out of a package (see models/lite0.py), its mask generator with fsagn-onnx, the
    photographs with scikit-image. The first run builds the explainer, later ones reuse it; explaining is what
    'fsagn-onnx explain' does.
    """
    from fsagn_onnx.explanations.job import ExplainRequest, Written, explain_into, open_folder
    from fsagn_onnx.explanations.subject import open_explainer
    from fsagn_onnx.models.demo import lite0_explainer, photographs, sufficient_areas
    from fsagn_onnx.terminal.explanations import Terminal, print_explanations

    paths = photographs(out / "photographs")
    built = lite0_explainer(out / "models")
    terminal = Terminal(quiet=as_json)
    if not as_json:
        click.echo(f"explainer {built.path} ({'reused' if built.reused else 'built'})")
    request = ExplainRequest(images=tuple(map(str, paths)), filters=filters, area=area, verify=verify)
    opened = open_explainer(built.path, threads=threads, providers=providers)
    with opened.explainer:
        results = out / "results"
        folder = open_folder(opened, built.path, results, request, resume=False, overwrite=True)
        with folder:
            for result in terminal.follow(explain_into(folder, opened, paths, request)):
                if isinstance(result, Written) and not as_json:
                    click.echo(f"  {sufficient_areas(result.explanation)}")
    if as_json:
        print_explanations(folder)
    else:
        terminal.summary(folder, opened.explainer.provider)
        program = "fsagn-onnx" if shutil.which("fsagn-onnx") else sys.argv[0]
        click.echo(f"next      {program} explain {built.path} YOUR_PHOTOGRAPHS... --out explained")
    if folder.failed:
        context.exit(3)
