"""How a plain model is to be read: options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--preprocess`, `--input` and `--feed`; the command gets them as one argument, `reading`.

    `load_model(path, **reading)` takes it as it is.
    """

    @click.option("--preprocess", type=PATH, help="File with the model's input spec, where the model does not say it.")
    @click.option("--input", "image", metavar="NAME", help="The image input of a model with several inputs.")
    @click.option(
        "--feed", "feeds", multiple=True, metavar="NAME=VALUE",
        help="Constant for another input: a number, a list like [640,640], or an .npy file; may be repeated.",
    )  # fmt: skip
    @wraps(command)
    def packed(*arguments: Any, preprocess: Path | None, image: str | None, feeds: tuple[str, ...], **rest: Any) -> Any:
        return command(*arguments, reading={"preprocess": preprocess, "image": image, "feeds": feeds}, **rest)

    return packed


def read_model(path: Path, reading: dict[str, Any]) -> Any:
    """Load a plain model; one line on standard error says what was guessed of its input."""
    from fsagn_onnx.model import load_model

    model = load_model(path, **reading)
    model.require_one_input()
    if model.guess_warning:
        click.echo(f"warning: {model.guess_warning}", err=True)
    return model
