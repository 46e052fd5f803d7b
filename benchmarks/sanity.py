"""Sanity of the masks: the demo CNN is re-initialised from the top, the generator retrained, the masks compared.

    python benchmarks/sanity.py [--pairs 8000] [--images 100]

For each number of re-initialised conv layers: the rank correlation between the masks of the two explainers for the
same pictures and filters, and that of the two networks' feature maps beside it. Writes build/sanity.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import onnx

from fsagn_onnx.data.images import list_images
from fsagn_onnx.data.synthetic import write_folder
from fsagn_onnx.evaluate.sanity import compare, reinitialise
from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.model import load_model
from fsagn_onnx.report.training import TrainingBar
from fsagn_onnx.runtime.engine import FileEngine

MODELS = Path(__file__).resolve().parents[1] / "models"


@click.command()
@click.option("--pairs", default=8_000, show_default=True, help="Training pairs of every generator.")
@click.option("--images", default=100, show_default=True, help="Held-out pictures.")
@click.option("--layers", default="1,3,7", show_default=True, help="Numbers of re-initialised conv layers.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/sanity"), show_default=True)
def main(pairs: int, images: int, layers: str, folder: Path) -> None:
    if not (folder / "train" / "names.json").exists():
        write_folder(folder / "train", "train", 1_000)
        write_folder(folder / "test", "test", images)
    options = TrainingOptions(pairs=pairs, crop=0.6, active=40)
    original = MODELS / "demo_cnn.onnx"
    layer = load_model(original).default_layer.value
    held_out = list(list_images([folder / "test" / "images"]))[:images]

    def trained(model: Path) -> Path:
        out = model.with_name(f"{model.stem}_explainer.onnx")
        if not out.exists():
            started = time.monotonic()
            with TrainingBar() as bar:
                train(
                    model, [folder / "train" / "images"], out,
                    layer=layer, options=options, resume=True, on_step=bar.step,
                )  # fmt: skip
            print(f"{out.name}: trained on {pairs} pairs in {time.monotonic() - started:.0f} s", flush=True)
        return out

    before = folder / "0.onnx"
    before.write_bytes(original.read_bytes())
    first = FileEngine(trained(before))
    rows = []
    for count in map(int, layers.split(",")):
        after = folder / f"{count}.onnx"
        onnx.save(reinitialise(onnx.load(original), count), after)
        models = load_model(before), load_model(after)
        found = compare((first, FileEngine(trained(after))), models, held_out)
        rows.append({"layers": count} | {name: vars(value) for name, value in found.items()})
        told = ", ".join(f"{name} {value}" for name, value in found.items())
        print(f"{count} conv layers re-initialised: rank correlation {told}", flush=True)
    result = {"pairs": pairs, "images": len(held_out), "layer": layer, "rows": rows}
    Path("build/sanity.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
