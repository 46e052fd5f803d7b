"""Runs the cells of the tutorial and writes it with their outputs.

    python docs/tutorial/make.py [--out docs/tutorial/tutorial.ipynb]

The cells are those of `cells.md`: text, and code between ```python fences. A cell's last expression is shown as a
notebook would show it. It needs the extras train, demo and dissect.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
FENCE = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def cells(text: str) -> Iterator[tuple[str, str]]:
    """("markdown" or "code", source), in order."""
    for place, piece in enumerate(FENCE.split(text)):
        if piece.strip():
            yield ("code" if place % 2 else "markdown"), piece.strip("\n")


def run(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Execute one code cell; its printed text and the value of its last expression as outputs."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append(
            {"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)}
        )
    if value is not None:
        outputs.append({"output_type": "display_data", "metadata": {}, "data": shown(value)})
    return outputs


def shown(value: Any) -> dict[str, Any]:
    """A value as a notebook shows it."""
    if hasattr(value, "_repr_png_"):
        return {"image/jpeg": smaller(value._repr_png_()), "text/plain": [type(value).__name__]}
    if hasattr(value, "_repr_html_"):
        return {"text/html": value._repr_html_().splitlines(keepends=True), "text/plain": [type(value).__name__]}
    return {"text/plain": repr(value).splitlines(keepends=True)}


def smaller(png: bytes) -> str:
    """A picture as JPEG in base64: the notebook stays below 2 MB."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return b64encode(encoded.tobytes()).decode("ascii")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "tutorial.ipynb", show_default=True)
def main(out: Path) -> None:
    """Run the cells and write the notebook."""
    names: dict[str, Any] = {"__name__": "__main__"}
    listed = []
    for number, (kind, source) in enumerate(cells((HERE / "cells.md").read_text(encoding="utf-8"))):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = source.splitlines(keepends=True)
        if kind == "code":
            click.echo(f"cell {number}", err=True)
            cell |= {"execution_count": number, "outputs": run(source, names)}
        listed.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": listed, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    out.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
