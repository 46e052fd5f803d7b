"""`fsagn-onnx demo`: Explain real defects on boards, and photographs with EfficientNet-Lite0."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import PATH, area_option, json_option, session_options

if TYPE_CHECKING:
    from fsagn_onnx.explanations.folder import ExplanationFolder
    from fsagn_onnx.terminal.explanations import Terminal


@click.command()
@click.option(
    "--out",
    type=PATH,
    default=Path("fsagn-demo"),
    show_default=True,
    help="Folder for pictures, explainer and results; an explainer that it holds is reused.",
)
@click.option(
    "--part", type=click.Choice(["all", "boards", "photographs"]), default="all", show_default=True,
    help="Boards need no torch; photographs build EfficientNet-Lite0's explainer first.",
)  # fmt: skip
@click.option("--filters", default="top:5", show_default=True, help="Of photographs: top:K, all, or ids like 3,17.")
@area_option("image", note="Of photographs. ")
@click.option("--measure/--no-measure", default=None, help="See 'fsagn-onnx explain'.")
@session_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    out: Path,
    part: str,
    filters: str,
    area: str,
    measure: bool | None,
    threads: int | None,
    providers: str,
    as_json: bool,
) -> None:
    """Explain real defects on boards, then photographs with a trained explainer of EfficientNet-Lite0.

    Boards: what each decision rests on, through which filters, and what the model says when just that area is
    exchanged for the good board's; everything comes with the package, and no torch is needed. Photographs: the
    network comes out of a package (see models/lite0.py), its mask generator with fsagn-onnx, the photographs with
    scikit-image; the first run builds the explainer.
    """
    from fsagn_onnx.terminal.explanations import Terminal, print_explanations

    terminal, session = Terminal(quiet=as_json), {"threads": threads, "providers": providers}
    folders: list[ExplanationFolder] = []
    if part in ("all", "boards"):
        folders.append(_boards(out, terminal, measure, session, quiet=as_json))
    if part in ("all", "photographs"):
        folders.append(_photographs(out, terminal, filters, area, measure, session, quiet=as_json))
    if as_json:
        print_explanations(folders[-1])
    if any(folder.failed for folder in folders):
        context.exit(3)


def _boards(
    out: Path, terminal: Terminal, measure: bool | None, session: dict[str, Any], *, quiet: bool
) -> ExplanationFolder:
    """One defect of every type: evidence, decisive filters, and the answer after the exchange."""
    from fsagn_onnx.explanations.job import ExplainRequest, Written, explain_into, open_folder
    from fsagn_onnx.explanations.subject import open_explainer
    from fsagn_onnx.models.demo_boards import EXPLAINER, NAMES, ExchangeDemo

    shown = ExchangeDemo(session["threads"])
    names = NAMES if NAMES.is_file() else None
    request = ExplainRequest(
        images=tuple(map(str, shown.paths)), filters="decisive:5", measure=measure, why="top:1", names=names
    )
    opened = open_explainer(EXPLAINER, why=True, pictures=shown.paths, **session)
    explanations = []
    with opened.explainer:
        folder = open_folder(opened, EXPLAINER, out / "boards", request, resume=False, overwrite=True)
        with folder:
            for result in terminal.follow(explain_into(folder, opened, shown.paths, request)):
                if isinstance(result, Written):
                    explanations.append(result.explanation)
                    exchange = shown.exchange(result.explanation)
                    if exchange is not None and not quiet:
                        click.echo(f"  {exchange[0]}")
    panel = shown.write_panel(explanations, out / "boards" / "exchange.png")
    shown.close()
    if not quiet:
        terminal.summary(folder, opened.explainer.provider)
        click.echo(f"exchange  {panel}: good board, defect, evidence, evidence exchanged")
        click.echo("")
    return folder


def _photographs(
    out: Path,
    terminal: Terminal,
    filters: str,
    area: str,
    measure: bool | None,
    session: dict[str, Any],
    *,
    quiet: bool,
) -> ExplanationFolder:
    """Photographs with EfficientNet-Lite0, whose explainer is built where it is not there."""
    from fsagn_onnx.explanations.job import ExplainRequest, explain_into, open_folder
    from fsagn_onnx.explanations.subject import open_explainer
    from fsagn_onnx.models.demo import lite0_explainer, photographs

    paths = photographs(out / "photographs")
    built = lite0_explainer(out / "models")
    if not quiet:
        click.echo(f"explainer {built.path} ({'reused' if built.reused else 'built'})")
    request = ExplainRequest(images=tuple(map(str, paths)), filters=filters, area=area, measure=measure)
    opened = open_explainer(built.path, **session)
    with opened.explainer:
        results = out / "results"
        folder = open_folder(opened, built.path, results, request, resume=False, overwrite=True)
        with folder:
            for _ in terminal.follow(explain_into(folder, opened, paths, request)):
                pass
    if not quiet:
        terminal.summary(folder, opened.explainer.provider)
        program = "fsagn-onnx" if shutil.which("fsagn-onnx") else sys.argv[0]
        click.echo(f"next      {program} explain {built.path} YOUR_PHOTOGRAPHS... --out explained")
    return folder
