"""Measures shipped explainers on pictures that they were not trained on, and writes what is found into their metadata.

    python -m fsagn_onnx.models.measure_trust models/demo_explainer.onnx models/demo_cnn.onnx --synthetic
    python -m fsagn_onnx.models.measure_trust models/boards_explainer.onnx models/boards_cnn.onnx examples/pcb
    python -m fsagn_onnx.models.measure_trust models/lite0_generator.safetensors build/lite0.onnx PHOTOS --every 5

The graph and the weights stay as they are. A training of today measures by itself, on pictures that it leaves out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from fsagn_onnx.data.images import list_images
from fsagn_onnx.errors import UsageError
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.trust import verdict
from fsagn_onnx.runtime.trust_measurement import MOST_PICTURES, measure_trust
from fsagn_onnx.testing.synthetic import write_folder


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("images", nargs=-1)
@click.option("--synthetic", is_flag=True, help="Pictures of the synthetic parts set's test split.")
@click.option("--every", default=1, show_default=True, help="Take each N-th, in the order of names.")
def main(file: Path, model: Path, images: tuple[str, ...], synthetic: bool, every: int) -> None:
    """Measure FILE, an explainer or a checkpoint made for MODEL, on IMAGES that it was not trained on."""
    from fsagn_onnx.generator import Checkpoint, load_checkpoint, save_checkpoint
    from fsagn_onnx.generator.export import export_explainer
    from fsagn_onnx.generator.left_out import write_trust

    loaded = load_model(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if synthetic:
            write_folder(folder / "test", "test", MOST_PICTURES)
            images = (str(folder / "test" / "images"),)
        found = sorted(list_images(images), key=lambda path: path.name)[::every]
        count = min(MOST_PICTURES, len(found))
        pictures = [found[n * len(found) // count] for n in range(count)]
        explainer = file
        if file.suffix == ".safetensors":
            explainer = folder / "explainer.onnx"
            export_explainer(loaded, file, explainer)
        engine = FileEngine(explainer, "cpu")
        engine.require_model(loaded)
        trust = measure_trust(engine, loaded.proto, pictures, "unseen pictures")
        engine.close()
    if trust is None:
        raise UsageError(f"{len(found)} pictures are too few to measure {file} on")
    if file.suffix == ".safetensors":
        checkpoint = load_checkpoint(file)
        save_checkpoint(file, Checkpoint({**checkpoint.description, "trust": trust.to_dict()}, checkpoint.tensors))
    else:
        write_trust(file, trust)
    click.echo(f"{file}: {verdict(trust, engine.metadata.training)}")


if __name__ == "__main__":
    main()
