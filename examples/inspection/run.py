"""Production inspection, end to end: solar cells, a defect model, its explainer, and what its filters see.

    python examples/inspection/run.py [--folder build/inspection] [--threads 2]

Needs `pip install 'fsagn-onnx[demo,plots]'`. One command: fetches the cells, trains a defect head on frozen Lite0
features, exports both as one ONNX file, trains the explainer, measures it on unseen cells, explains some of them, and
looks at which filters answer to defects. Every step leaves its result in the folder; run again, it goes on where it
stopped. docs/inspection.md walks through it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from cells import Cells, split
from defects import SIZE, build

from fsagn_onnx.data.files import write_file
from fsagn_onnx.evaluation import Evaluation, Options, evaluate
from fsagn_onnx.evaluation.plots import write_plots
from fsagn_onnx.evaluation.probe import Probe
from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.model import load_model
from fsagn_onnx.terminal.evaluation import EvaluationBar, show
from fsagn_onnx.terminal.training import TrainingBar

EXPLAINED = 24
"""Unseen cells that are explained, half of them defective."""


def step(title: str, work: Callable[[], object], seconds: dict[str, float]) -> None:
    """Do a step, say how long it took."""
    print(f"== {title}", flush=True)
    started = time.monotonic()
    work()
    seconds[title] = round(time.monotonic() - started, 1)
    print(f"   {seconds[title]:.0f} s", flush=True)


def train_explainer(model: Path, cells: Cells, out: Path, pairs: int | None) -> None:
    """`fsagn-onnx train cells.onnx train/ --out explainer.onnx`, with its default options."""
    if out.exists():
        print(f"   {out} is there already")
        return
    options = TrainingOptions() if pairs is None else TrainingOptions(pairs=pairs)
    with TrainingBar() as bar:
        train(model, [cells.folder], out, options=options, resume=True, on_step=bar.step, on_failure=bar.failure)


def measure(model: Path, explainer: Path, cells: Cells, folder: Path, images: int, threads: int) -> Evaluation:
    """`fsagn-onnx evaluate cells.onnx explainer.onnx unseen/... --out evaluation`."""
    chosen = sorted(cells.files, key=lambda file: file.name)[:images]
    options = Options(
        methods=("generator", "activation", "random"),
        metrics=("retention", "specificity", "calibration"),
        threads=threads,
    )
    with EvaluationBar() as bar:
        found = evaluate(
            model, explainer, chosen, options,
            out=folder / "evaluation", resume=(folder / "evaluation" / "run.json").exists(), on_image=bar.image,
        )  # fmt: skip
    show(found, folder / "evaluation", write_plots(found, folder / "evaluation" / "plots"))
    return found


def explain(explainer: Path, cells: Cells, folder: Path) -> None:
    """`fsagn-onnx explain explainer.onnx unseen/... --out explained --verify`."""
    from fsagn_onnx.explanations.job import ExplainRequest, explain_into, found_images, open_folder
    from fsagn_onnx.explanations.subject import open_explainer

    order = np.argsort(~cells.defective, kind="stable")
    few = [*order[: EXPLAINED // 2], *order[::-1][: EXPLAINED // 2]]
    request = ExplainRequest(images=tuple(str(cells.files[index]) for index in few), verify=True)
    out = folder / "explained"
    opened = open_explainer(explainer)
    with opened.explainer, open_folder(opened, explainer, out, request, resume=False, overwrite=True) as results:
        for _ in explain_into(results, opened, found_images(request, out), request):
            pass
    print(f"   pictures and masks of {len(few)} unseen cells: {out / 'report.html'}")


def defect_filters(model: Path, cells: Cells, folder: Path, threads: int) -> list[dict[str, float]]:
    """The filters whose peak tells defective from intact cells best: AUC of the peak over the unseen cells."""
    from defects import auc

    from fsagn_onnx.data.images import read_image

    loaded = load_model(model)
    probe = Probe(loaded, loaded.default_layer.value, threads=threads)
    peaks = []
    for file in cells.files:
        pixels = loaded.input_spec.fit(read_image(file))[0]
        peaks.append(probe.features(pixels[None])[0].max(axis=(1, 2)))
    strength = np.stack(peaks)  # (cells, C)
    scores = np.array([auc(strength[:, k], cells.defective) for k in range(strength.shape[1])])
    best = np.argsort(-scores, kind="stable")[:10]
    rows = [
        {
            "filter": int(k),
            "auc": round(float(scores[k]), 3),
            "peak_defective": round(float(strength[cells.defective, k].mean()), 3),
            "peak_intact": round(float(strength[~cells.defective, k].mean()), 3),
        }
        for k in best
    ]
    write_file(folder / "defect_filters.json", [(json.dumps(rows, indent=1) + "\n").encode()])
    for row in rows[:5]:
        print(f"   filter {row['filter']:4}: AUC of its peak {row['auc']:.3f}")
    return rows


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/inspection"), show_default=True)
@click.option("--pairs", type=int, help="Training pairs of the explainer; the default of train unless told.")
@click.option("--images", default=200, show_default=True, help="Unseen cells that are measured.")
@click.option("--threads", default=2, show_default=True, help="Threads of onnxruntime and torch.")
def main(folder: Path, pairs: int | None, images: int, threads: int) -> None:
    """Fetch, train, export, train the explainer, evaluate, explain, look."""
    import torch

    torch.set_num_threads(threads)
    seconds: dict[str, float] = {}
    explainer = folder / "explainer.onnx"

    def cells() -> None:
        nonlocal training, unseen
        training, unseen = split(folder)
        print(f"   {len(training.files)} cells to train on, {len(unseen.files)} unseen")

    training = unseen = Cells(folder, [], np.zeros(0, dtype=bool))
    step("cells", cells, seconds)
    model, area = folder / "cells.onnx", 0.0

    def head() -> None:
        nonlocal model, area
        model, area = build(folder, training, unseen, threads)
        print(f"   defect model {model} at {SIZE} px: AUC {area:.3f} on {len(unseen.files)} unseen cells")

    step("defect head", head, seconds)
    step("explainer", lambda: train_explainer(model, training, explainer, pairs), seconds)
    step("measure", lambda: measure(model, explainer, unseen, folder, images, threads), seconds)
    step("explain", lambda: explain(explainer, unseen, folder), seconds)
    step("filters that answer to defects", lambda: defect_filters(model, unseen, folder, threads), seconds)
    result = {"auc_of_the_head": area, "seconds": seconds}
    write_file(folder / "inspection.json", [(json.dumps(result, indent=1) + "\n").encode()])
    print(f"all in {sum(seconds.values()) / 60:.1f} min; look at {folder / 'explained' / 'report.html'}")
    print(f"next: fsagn-onnx explain {explainer} {unseen.folder} --out {folder / 'all'} --verify")


if __name__ == "__main__":
    main()
