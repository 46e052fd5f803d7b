"""Trains the explainer of the boards' network on crops of DeepPCB's training boards, with and without a defect.

    python -m fsagn_onnx.models.train_boards_explainer --data DEEPPCB --device cuda --out models/boards_explainer.onnx
    python -m fsagn_onnx.models.train_boards_explainer --data DEEPPCB --model build/boards_lite0.onnx \
        --folder build/boards-224 --out build/boards_lite0_explainer.onnx

The second explains the network of stride 32 that `train_boards_cnn --network lite0` writes, with crops as large as its
input, in steps that one core of a CPU can do.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import cv2

from fsagn_onnx.generator import Objective, TrainingOptions, keep_freed_memory, train
from fsagn_onnx.model import load_model
from fsagn_onnx.models.boards import board_pairs, read_boards
from fsagn_onnx.terminal.training import TrainingBar

MODEL = Path(__file__).with_name("boards_cnn.onnx")
OPTIONS = TrainingOptions(
    pairs=266_496,
    images_per_step=32,
    filters_per_image=4,
    crop=0.6,
    teacher=0.5,
    objective=Objective(contrast=1.0),
)
"""Crops are of one size already; parts of them are cut by training itself."""
LARGE = TrainingOptions(pairs=8_000, crop=0.5, classes_weight=1.0, particular=0.0, ramp=((0.6, 0.72),))
"""Of other networks than the shipped one. Boards shrunk further lose their traces, and with them the decision."""


def write_crops(data: Path, folder: Path, size: int) -> Path:
    """Write every defect of the boards to train on as a crop, and the good board's same place beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for board in read_boards(data, "trainval"):
        for pair in board_pairs(board, size):
            for kind, pixels in (("defect", pair.defect), ("good", pair.good)):
                cv2.imwrite(str(folder / f"{number:05d}-{kind}.png"), pixels)
            number += 1
    return folder


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option("--model", "path", type=click.Path(exists=True, path_type=Path), default=MODEL, show_default="shipped")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/boards"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/boards_explainer.onnx"), show_default=True)
@click.option("--pairs", type=int, help=f"{OPTIONS.pairs} unless told, of another model {LARGE.pairs}.")
@click.option("--device", default="cpu", show_default=True)
def main(data: Path, path: Path, folder: Path, out: Path, pairs: int | None, device: str) -> None:
    """Write the crops into FOLDER unless it is there, train, and write the explainer to OUT."""
    model, settings = load_model(path), OPTIONS if path == MODEL else LARGE
    if not folder.exists():
        write_crops(data, folder, model.input_spec.size[0])
    keep_freed_memory()
    options = replace(settings, pairs=settings.pairs if pairs is None else pairs)
    with TrainingBar() as bar:
        report = train(model, [folder], out, options=options, resume=True, device=device, on_step=bar.step)
    click.echo(f"{out}: {report}")


if __name__ == "__main__":
    main()
