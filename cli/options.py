"""Options that several commands share, each written once; a command stacks the ones that it has."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]

PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Fixes all that is drawn."
)
parts_option = click.option(
    "--parts", type=PATH, help="Part annotations: file or folder, see the documentation for layouts."
)


def formats_option(*more: str, about: str = "") -> Callable[[Command], Command]:
    """`--format`: reports beside the page, and what a command can write besides."""
    return click.option(
        "--format",
        "formats",
        multiple=True,
        type=click.Choice(["json", "md", "png", *more]),
        help=f"Write report.FORMAT too{about}; may be repeated.",
    )


format_option = formats_option()


class FolderOrUrl(click.Path):
    """A folder, or the URL of one in a store."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leave a URL as it is: a path would lose one of its slashes."""
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


def cluster_options(command: Command) -> Command:
    """Add `--cluster` and `--gpus-per-worker`; the command gets both as ``cluster``, None where it is not asked for."""

    @click.option(
        "--cluster", "address", is_flag=False, flag_value="local", metavar="[ADDRESS]",
        help="Do it with workers of a Ray cluster: of this machine's cores without an address, auto (the running "
        "cluster), HOST:PORT, ray://HOST:PORT.",
    )  # fmt: skip
    @click.option("--gpus-per-worker", type=click.FloatRange(0), help="GPUs of each worker, a share too.  [default: 0]")
    @wraps(command)
    def packed(*arguments: Any, address: str | None, gpus_per_worker: float | None, **options: Any) -> Any:
        if address is None:
            if gpus_per_worker is not None:
                raise click.UsageError("--gpus-per-worker goes with --cluster")
            return command(*arguments, cluster=None, **options)
        from fsagn_onnx.scale.cluster import Cluster, require_ray

        require_ray()
        return command(*arguments, cluster=Cluster(address, gpus_per_worker or 0.0), **options)

    return packed


def batch_size_option(default: int = 8, of: str = "Images") -> Callable[[Command], Command]:
    """`--batch-size`."""
    return click.option(
        "--batch-size", type=click.IntRange(1), default=default, show_default=True, help=f"{of} per pass."
    )


def area_option(of: str, default: str = "auto", note: str = "") -> Callable[[Command], Command]:
    """`--area` of commands that choose it by themselves."""
    said = f"{note}Share of the {of} to keep; auto: the smallest that leads a random area; r:.8: that keeps so much."
    return click.option("--area", default=default, show_default=True, help=said)


def session_options(command: Command) -> Command:
    """Add `--threads` and `--providers` of onnxruntime; see `Session`."""
    providers = "auto, cpu, cuda, or onnxruntime's names."
    command = click.option("--providers", default="auto", show_default=True, help=providers)(command)
    return click.option("--threads", type=click.IntRange(1), help="Threads of onnxruntime.")(command)


def keep_options(
    resume: str = "Do what an interrupted run left undone.", overwrite: str = "Replace the results in the folder."
) -> Callable[[Command], Command]:
    """`--resume` and `--overwrite`: what becomes of results that are there already."""

    def add(command: Command) -> Command:
        command = click.option("--overwrite", is_flag=True, help=overwrite)(command)
        return click.option("--resume", is_flag=True, help=resume)(command)

    return add


def classes_options(command: Command) -> Command:
    """Add `--output` and `--scores`: how the model's outputs are read, where the graph does not tell."""
    scores = click.option(
        "--scores",
        type=click.Choice(["logits", "probabilities", "log-probabilities", "logit", "sigmoid", "labels", "none"]),
        help="What the numbers of that output are; found in the graph unless told.",
    )
    return click.option(
        "--output", metavar="NAME", help="The model's output that classifies; found in the graph unless told."
    )(scores(command))


detections_option = click.option(
    "--detections",
    metavar="LAYOUT",
    help="How a detector's boxes are read, where the graph does not tell: yolov5, yolov8, yolox, end2end, picodet, "
    "boxes-scores, torchvision, tensorflow, efficientnms, selected; segmentation: a map; none: show neither.",
)


labels_option = click.option(
    "--labels", "--class-names", "labels", type=PATH, help="Names of the classes: text (a line each), JSON or YAML."
)
"""For an explainer file; plain models have it among `reading_options`."""


def _reading(*names: str) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        @click.option(
            "--preprocess",
            type=PATH,
            help="The model's input spec: a file, or imagenet, 0..1, 0..255, -1..1, caffe-bgr, timm-inception.",
        )
        @click.option("--input", "image", metavar="NAME", help="The image input of a model with several inputs.")
        @click.option(
            "--feed", "feeds", multiple=True, metavar="NAME=VALUE",
            help="Constant for another input: a number, a list like [640,640], or an .npy file; may be repeated.",
        )  # fmt: skip
        @click.option(*names, "class_names", type=PATH, help="Names of the classes: text (a line each), JSON or YAML.")
        @wraps(command)
        def packed(
            *arguments: Any,
            preprocess: Path | None,
            image: str | None,
            feeds: tuple[str, ...],
            class_names: Path | None,
            **rest: Any,
        ) -> Any:
            reading = {"preprocess": preprocess, "image": image, "feeds": feeds, "labels": class_names}
            return command(*arguments, reading=reading, **rest)

        return packed

    return add


reading_options = _reading("--labels", "--class-names")
"""`--preprocess`, `--input`, `--feed` and `--labels`: how a plain model is to be read.

The command gets them as one argument, `reading`; `load_model(path, **reading)` takes it as it is.
"""

set_reading_options = _reading("--class-names")
"""The same where `--labels` are the images' own classes."""


def read_model(path: Path, reading: dict[str, Any]) -> Any:
    """Load a plain model; one line on standard error says what was guessed of its input."""
    from fsagn_onnx.model import load_model

    model = load_model(path, **reading)
    model.require_one_input()
    for line in filter(None, (model.training_mode, model.group_warning, model.guess_warning)):
        click.echo(f"warning: {line}", err=True)
    return model


def running_options(command: Command) -> Command:
    """Add what `dissect` and `perturb`, which look at a whole set of images, share.

    The command gets ``session`` (threads and providers), ``kept`` (resume and overwrite), ``annotations`` and
    ``classes`` as they were read, ``formats``, and the rest as it is.
    """

    @classes_options
    @parts_option
    @click.option("--labels", help="Classes of the images: CSV (file,label), JSON, or 'folders'.")
    @click.option("--area", type=float, default=0.08, show_default=True, help="Share of the image in every mask.")
    @seed_option
    @click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Passes at the same time.")
    @session_options
    @keep_options()
    @format_option
    @json_option
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
