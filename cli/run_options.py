"""Options of the commands that look at a whole set of images: `dissect` and `perturb`, and formats of reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
format_option = click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["json", "md", "png"]),
    help="Write report.FORMAT too; may be repeated.",
)


def running_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `dissect` and `perturb` share.

    The command gets ``session`` (threads and providers), ``kept`` (resume and overwrite), ``annotations`` and
    ``classes`` as they were read, ``formats``, and the rest as it is.
    """

    @click.option("--parts", type=PATH, help="Part annotations: file or folder, see the README for layouts.")
    @click.option("--labels", help="Classes of the images: CSV (file,label), JSON, or 'folders'.")
    @click.option("--area", type=float, default=0.08, show_default=True, help="Share of the image in every mask.")
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes all that is drawn.")
    @click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Passes at the same time.")
    @click.option("--threads", type=click.IntRange(1), help="Threads of onnxruntime.")
    @click.option("--providers", default="auto", show_default=True, help="auto, cpu, cuda, or onnxruntime's names.")
    @click.option("--resume", is_flag=True, help="Do what an interrupted run left undone.")
    @click.option("--overwrite", is_flag=True, help="Replace the results in the folder.")
    @format_option
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
    @wraps(command)
    def packed(*arguments: Any, parts: Path | None, labels: str | None, **options: Any) -> Any:
        from fsagn_onnx.data.annotations import open_annotations, read_labels

        session = {name: options.pop(name) for name in ("threads", "providers")}
        kept = {name: options.pop(name) for name in ("resume", "overwrite")}
        annotations = None if parts is None else open_annotations(parts)
        classes = None if labels is None else read_labels(labels)
        kept |= {"annotations": annotations, "labels": classes}
        return command(*arguments, session=session, kept=kept, **options)

    return packed
