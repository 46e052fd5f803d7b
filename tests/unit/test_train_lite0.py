"""Weights are shipped alone, and their masks can be kept while the retention head is taught anew."""

from __future__ import annotations

from pathlib import Path

import torch

from fsagn_onnx.data.images import list_images
from fsagn_onnx.generator import TrainingOptions, load_checkpoint
from fsagn_onnx.generator.trainer import Trainer
from fsagn_onnx.model import load_model
from fsagn_onnx.models.train_lite0 import keep_masks, ship
from fsagn_onnx.testing.synthetic import write_folder

MODEL = Path(__file__).parents[2] / "models" / "demo_cnn.onnx"
FEW = TrainingOptions(pairs=8, images_per_step=2, ramp=(), crop=0.9, particular=0.0)


def test_the_masks_of_shipped_weights_stay_while_the_retention_head_learns(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", "train", 4)
    images, model = list(list_images([tmp_path / "set" / "images"])), load_model(MODEL)

    def trainer(name: str) -> Trainer:
        return Trainer(model, model.default_layer, images, tmp_path / f"{name}.safetensors", options=FEW)

    first = trainer("first")
    first.run()
    ship(first.checkpoint, tmp_path / "shipped.safetensors")
    shipped = load_checkpoint(tmp_path / "shipped.safetensors").group("weights")

    head = trainer("head")
    keep_masks(head, tmp_path / "shipped.safetensors")
    trainer("head").run(resume=True)
    kept = load_checkpoint(head.checkpoint).group("weights")
    moved = {name for name, value in kept.items() if not torch.equal(value, shipped[name])}
    assert moved
    assert all(name.startswith("retention_") for name in moved)
