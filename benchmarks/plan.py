"""What the data set benchmarks share: train an explainer unless one is given, measure it, write the tables."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fsagn_onnx.data.images import list_images
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.evaluation import METRICS, Evaluation, Options, evaluate
from fsagn_onnx.evaluation.plots import write_plots
from fsagn_onnx.generator import TrainingOptions, keep_freed_memory, train
from fsagn_onnx.model import Model
from fsagn_onnx.terminal.evaluation import EvaluationBar, show
from fsagn_onnx.terminal.training import TrainingBar

METHODS = "generator,activation,gradient,optimise,random,centre"


@dataclass(frozen=True)
class Plan:
    """The options that every benchmark has.

    Attributes:
        out: folder of everything that is made.
        explainer: an explainer to measure instead of training one.
        pairs: training pairs; None: the default of `train`.
        images: held-out images.
        methods: compared methods.
        metrics: families.
        refine: steps of refinement measured too.
        threads: of onnxruntime and torch.
    """

    out: Path
    explainer: Path | None
    pairs: int | None
    images: int
    methods: str
    metrics: str
    refine: int
    threads: int


def plainly(function: Callable[..., None]) -> Callable[..., None]:
    """An error that the package raises on purpose is one line, as on its own command line."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except FsagnError as error:
            raise click.ClickException(str(error)) from error

    return run


def plan_options(out: str, images: int, *, explainer: bool = True) -> Callable[[Any], Any]:
    """The click options of a `Plan`, with their defaults."""
    path = click.Path(path_type=Path)

    def decorate(command: Any) -> Any:
        options = [
            click.option("--out", type=path, default=Path(out), show_default=True, help="Folder of everything."),
            click.option("--pairs", type=int, help="Training pairs; the default of train unless told."),
            click.option("--images", default=images, show_default=True, help="Held-out images."),
            click.option("--methods", default=METHODS, show_default=True),
            click.option("--metrics", default=",".join(METRICS), show_default=True),
            click.option("--refine", default=0, help="Measure N steps of refinement too."),
            click.option("--threads", default=2, show_default=True),
        ]
        if explainer:
            options.append(click.option("--explainer", type=path, help="Measure this explainer; none is trained."))
        command = plainly(command)
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def trained(model: Path | Model, images: Sequence[Path], plan: Plan, layer: str | None = None, **options: Any) -> Path:
    """The explainer of a model, trained with the defaults of `train` unless told, or the one that was given."""
    if plan.explainer is not None:
        return plan.explainer
    stem = model.path.stem if isinstance(model, Model) else model.stem
    pairs = "" if plan.pairs is None else f"_{plan.pairs}"
    out = plan.out / f"{stem}_{layer or 'default'}{pairs}_explainer.onnx"
    if out.exists():
        print(f"{out} is there already", flush=True)
        return out
    if plan.pairs is not None:
        options["pairs"] = plan.pairs
    keep_freed_memory()  # as the command does
    started = time.monotonic()
    with TrainingBar() as bar:
        train(model, images, out, layer=layer, options=TrainingOptions(**options), resume=True, on_step=bar.step)
    print(f"{out}: trained in {(time.monotonic() - started) / 60:.1f} min with {plan.threads} threads", flush=True)
    return out


def measured(
    name: str, model: Path | Model, explainer: Path, held_out: Sequence[Path], plan: Plan, parts: Path | None = None
) -> Evaluation:
    """Measure an explainer beside the methods of the plan; tables and plots go to ``OUT/NAME``."""
    options = Options(
        methods=plan.methods.split(","),
        metrics=plan.metrics.split(","),
        parts=parts,
        refine=plan.refine,
        threads=plan.threads,
    )
    chosen = list(list_images(held_out))[: plan.images]
    out = plan.out / name
    with EvaluationBar() as bar:
        found = evaluate(
            model, explainer, chosen, options,
            out=out, resume=(out / "run.json").exists(), on_image=bar.image,
        )  # fmt: skip
    print(f"== {name}: {explainer}")
    show(found, out, write_plots(found, out / "plots"))
    return found
