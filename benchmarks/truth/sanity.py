"""Sanity of the masks: the demo CNN is re-initialised from the top, the generator retrained, the masks compared.

    python -m benchmarks.truth.sanity [--pairs 8000] [--images 100] [--contrast C] [--particular P]

For each number of re-initialised conv layers: the rank correlation between the masks of the two explainers for the
same pictures and filters; beside it that of the two networks' feature maps and gradients, how alike the masks of two
filters of one explainer are, and how far the masks of area .1 overlap. First the mask-only control as trained:
retention in the picture that the mask was made for, and in another one. Writes FOLDER/sanity.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import onnx
import torch

from benchmarks.networks import DEMO_MODEL
from fsagn_onnx.data.images import list_images
from fsagn_onnx.evaluation import Options, evaluate
from fsagn_onnx.evaluation.sanity import compare_masks, reinitialise
from fsagn_onnx.generator import Objective, TrainingOptions, keep_freed_memory, train
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.terminal.training import TrainingBar
from fsagn_onnx.testing.synthetic import write_folder

TRAINING_PICTURES = 1_000
CONTROL = {"at home": "retention AUC", "on another image": "mask on another image"}


def trained(model: Path, pictures: Path, layer: str, options: TrainingOptions) -> Path:
    """The explainer of a model, unless it is there."""
    pairs, told = options.pairs, f"{options.objective.contrast:g}_{options.particular:g}"
    out = model.with_name(f"{model.stem}_{pairs}_{told}_explainer.onnx")
    if not out.exists():
        started = time.monotonic()
        with TrainingBar() as bar:
            train(model, [pictures], out, layer=layer, options=options, resume=True, on_step=bar.step)
        print(f"{out.name}: trained on {pairs} pairs in {time.monotonic() - started:.0f} s", flush=True)
    return out


def control(model: Path, explainer: Path, pictures: list[Path], threads: int) -> dict[str, Any]:
    """Retention of the explainer's masks under `inpaint`, in their own pictures and in other ones."""
    options = Options(("generator",), ("inpaint",), metrics=("retention", "control"), threads=threads)
    found = evaluate(model, explainer, pictures, options)
    methods = ("generator", "activation", "random")
    values = {name: {where: found.value(CONTROL[where], name, "inpaint") for where in CONTROL} for name in methods}
    for name, told in values.items():
        print(f"  {name}: retention AUC {', '.join(f'{where} {value}' for where, value in told.items())}", flush=True)
    return {name: {where: vars(value) for where, value in told.items()} for name, told in values.items()}


@click.command()
@click.option("--pairs", default=8_000, show_default=True, help="Training pairs of every generator.")
@click.option("--images", default=100, show_default=True, help="Held-out pictures.")
@click.option("--layers", default="1,3,7", show_default=True, help="Numbers of re-initialised conv layers.")
@click.option("--contrast", default=Objective().contrast, show_default=True, help="Weight of the term against others.")
@click.option("--particular", default=0.0, show_default=True, help="See `TrainingOptions`.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/sanity"), show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(pairs: int, images: int, layers: str, contrast: float, particular: float, folder: Path, threads: int) -> None:
    keep_freed_memory()
    torch.set_num_threads(threads)
    pictures, test = folder / "train", folder / f"test{images}"
    for part, split, count in ((pictures, "train", TRAINING_PICTURES), (test, "test", images)):
        if not (part / "names.json").exists():
            write_folder(part, split, count)
    original = DEMO_MODEL
    layer = load_model(original).default_layer.value
    held_out = list(list_images([test / "images"]))

    told: dict[str, Any] = {"particular": particular, "objective": Objective(contrast=contrast)}
    options = TrainingOptions(pairs=pairs, crop=0.6, active=40, **told)
    before = folder / "0.onnx"
    before.write_bytes(original.read_bytes())
    explainer = trained(before, pictures / "images", layer, options)
    print("mask-only control", flush=True)
    controls = control(before, explainer, held_out, threads)
    first, rows = FileEngine(explainer, threads=threads), []
    for count in map(int, layers.split(",")):
        after = folder / f"{count}.onnx"
        onnx.save(reinitialise(onnx.load(original), count), after)
        explainer = trained(after, pictures / "images", layer, options)
        models = load_model(before), load_model(after)
        found = compare_masks((first, FileEngine(explainer, threads=threads)), models, held_out, methods=("gradient",))
        rows.append({"layers": count} | {name: vars(value) for name, value in found.items()})
        print(f"{count} conv layers re-initialised: rank correlation", flush=True)
        for name, value in found.items():
            print(f"  {name} {value}", flush=True)
    asked = {"pairs": pairs, "contrast": contrast, "particular": particular}
    result = {**asked, "images": len(held_out), "layer": layer, "rows": rows, "control": controls}
    (folder / "sanity.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
