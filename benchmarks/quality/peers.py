"""The generator beside every other way to ask where a filter looks: one table of quality and cost.

    python -m benchmarks.quality.peers [--data synthetic|photos] [--images 30] [--photos FOLDER]

`synthetic`: held-out pictures of the synthetic parts set, the demo CNN and its shipped explainer. `photos`: a folder of
photographs, EfficientNet-Lite0 and its shipped explainer. Peers run through their own libraries (Captum:
`pip install 'fsagn-onnx[peers]'`; DIANNA where it is installed, see fsagn_onnx/methods/dianna_rise.py). Retention AUC
and lift on an infill that nothing was tuned on (`inpaint`), at the common granularity; seconds per (image, filter);
passes of the model for one image with all its filters. Writes build/peers_DATA/evaluation.{json,md} and plots.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from benchmarks.networks import DEMO_EXPLAINER, DEMO_MODEL, lite0
from fsagn_onnx.data.images import list_images
from fsagn_onnx.evaluation import Evaluation, Options, evaluate
from fsagn_onnx.evaluation.plots import write_plots
from fsagn_onnx.methods import METHODS
from fsagn_onnx.terminal.evaluation import EvaluationBar
from fsagn_onnx.testing.synthetic import write_folder

INFILL = "inpaint"


def subject(data: str, photos: Path | None, images: int) -> tuple[Path, Path, list[Path]]:
    """Model, explainer, held-out images."""
    if data == "synthetic":
        folder = Path("build/peers_synthetic_images")
        write_folder(folder, "test", images)
        return DEMO_MODEL, DEMO_EXPLAINER, list(list_images([folder / "images"]))[:images]
    from fsagn_onnx.models.train_lite0 import split

    if photos is None:
        raise click.UsageError("--data photos needs --photos FOLDER")
    model, explainer = lite0()
    return model, explainer, split(list(list_images([photos])))[1][:images]


def table(found: Evaluation) -> str:
    lines = [
        f"| method | retention AUC ({INFILL}) | lift | specificity | s per (image, filter) | forward | backward |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cost in found.costs.items():
        auc = found.value("retention AUC", name, INFILL)
        lift = "" if name == "random" else f"{found.value('lift over random', name, INFILL).mean:.3f}"
        own = found.value("specificity", name, INFILL).mean
        spent = f"{cost.seconds:.4f} | {cost.passes.forward} | {cost.passes.backward}"
        lines.append(f"| {name} | {auc} | {lift} | {own:.3f} | {spent} |")
    return "\n".join(lines)


@click.command()
@click.option("--data", type=click.Choice(["synthetic", "photos"]), default="synthetic", show_default=True)
@click.option("--photos", type=click.Path(path_type=Path), help="Folder of photographs; every fifth is held out.")
@click.option("--images", default=30, show_default=True)
@click.option("--filters", default=5, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--beside", type=click.Path(path_type=Path), help="An earlier run: only the explainer is measured anew.")
@click.option("--resume", is_flag=True)
def main(
    data: str, photos: Path | None, images: int, filters: int, threads: int, beside: Path | None, resume: bool
) -> None:
    import torch

    torch.set_num_threads(threads)
    model, explainer, held_out = subject(data, photos, images)
    left_out = [name for name in METHODS if name.startswith("dianna") and importlib.util.find_spec("dianna") is None]
    methods = ["generator", *(name for name in METHODS if name not in left_out and beside is None)]
    options = Options(
        methods=methods,
        infills=(INFILL,),
        filters=filters,
        metrics=("retention", "specificity"),
        refine=10,
        beside=beside,
        threads=threads,
    )
    out = Path(f"build/peers_{data}" if beside is None else f"{beside}_again")
    with EvaluationBar() as bar:
        found = evaluate(
            model, explainer, held_out, options, out=out, resume=resume, overwrite=not resume, on_image=bar.image
        )
    write_plots(found, out / "plots")
    assert found.value("retention AUC", "generator", INFILL).low > found.value("retention AUC", "random", INFILL).high
    print(f"{data}: {found.images} held-out images, {found.pairs} pairs, layer {found.layer}, {threads} thread(s)")
    print(table(found))
    for name in left_out:
        print(f"left out: {name} (not installed)")


if __name__ == "__main__":
    main()
