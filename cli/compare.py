"""`fsagn-onnx compare`: Find what moved between two runs of explain, dissect or perturb."""

from __future__ import annotations

from pathlib import Path

import click

from .options import PATH, format_option, json_option

DRIFTED = 4
"""Exit status where something drifted."""


@click.command(epilog="Exit status: 0 nothing drifted, 4 something did, 1 an error.")
@click.argument("run_a", type=PATH)
@click.argument("run_b", type=PATH)
@click.option("--out", type=PATH, help="Folder for changes.csv, changes.jsonl and report.html.")
@click.option("--level", type=float, default=0.05, show_default=True, help="q value up to which a change counts.")
@click.option("--least", type=float, default=0.05, show_default=True, help="Size from which a change counts.")
@format_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    run_a: Path,
    run_b: Path,
    out: Path | None,
    level: float,
    least: float,
    formats: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find what moved from RUN_A to RUN_B: two folders of explain, dissect or perturb.

    Two versions of a model on the same images, or last month's images against today's: filters whose areas or parts
    moved, classes whose decisions hang on others now. The exit status is 4 where something drifted, for use in CI.
    """
    from fsagn_onnx.comparison.comparison import compare, write_comparison
    from fsagn_onnx.comparison.table import comparison_table
    from fsagn_onnx.report.table import write_formats
    from fsagn_onnx.terminal.comparison import comparison_json, comparison_lines

    if formats and out is None:
        raise click.UsageError("--format writes into --out DIR; give one")
    comparison = compare(run_a, run_b, level=level, least=least)
    if out is not None:
        write_comparison(comparison, out)
        write_formats(out, formats, comparison_table(comparison), lambda: [comparison_json(comparison), "\n"])
    click.echo(comparison_json(comparison) if as_json else "\n".join(comparison_lines(comparison, out)))
    if comparison.drifted:
        context.exit(DRIFTED)
