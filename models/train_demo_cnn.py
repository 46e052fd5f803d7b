"""Trains the demo CNN on the synthetic parts set and writes it as `demo_cnn.onnx`.

Run it as `python models/train_demo_cnn.py` or `python -m fsagn_onnx.models.train_demo_cnn`. The same seed and
the same number of threads give the same weights. Accuracy is measured with onnxruntime on the written file.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import onnxscript
import torch
from torch import Tensor, nn

from fsagn_onnx.data.files import write_file
from fsagn_onnx.model.inference_session import inference_session
from fsagn_onnx.testing.synthetic import CLASSES, SyntheticParts

SIZE: Final = 128
OPSET: Final = 18
HERE: Final = Path(__file__).resolve().parent
Pixels = npt.NDArray[np.uint8]  # (n, H, W, 3)
Labels = npt.NDArray[np.int64]  # (n,)

# (filters, stride) of each 3x3 conv; strides 4, 8 and 16 of the input are reached at blocks 1, 3 and 5.
BLOCKS: Final = ((24, 2), (48, 2), (48, 1), (80, 2), (80, 1), (96, 2), (96, 1))
INPUT_SPEC: Final[dict[str, Any]] = {
    "name": "image",
    "layout": "NCHW",
    "color": "RGB",
    "size": [SIZE, SIZE],
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "resize": "stretch",
}


@dataclass(frozen=True)
class Settings:
    """What a training run is made of; all of it is written into the manifest."""

    seed: int = 0
    epochs: int = 20
    images: int = 12_000
    held_out: int = 2_000
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    threads: int = 2


class DemoCnn(nn.Module):
    """Seven blocks of 3x3 conv, batch norm and ReLU, then global average pooling and one linear layer.

    (N, 3, 128, 128) -> (N, 10) logits; the last block is (N, 96, 8, 8), stride 16.
    """

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        widths = [3, *(filters for filters, _ in BLOCKS)]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU())
                for before, (filters, stride) in zip(widths, BLOCKS, strict=False)
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) normalised image -> (N, classes) logits."""
        features = self.blocks(image)  # (N, 96, H / 16, W / 16)
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits


def progress(line: str, *, last: bool = False) -> None:
    """Show a line that the next one overwrites on a terminal; elsewhere only last lines are printed."""
    if sys.stderr.isatty():
        click.echo("\r\x1b[K" + line, err=True, nl=last)
    elif last:
        click.echo(line, err=True)


def render_split(split: str, length: int) -> tuple[Pixels, Labels]:
    """Render a split into memory."""
    pixels = np.empty((length, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.empty(length, dtype=np.int64)
    start = time.perf_counter()
    for i, sample in enumerate(SyntheticParts(split, length, SIZE)):
        pixels[i], labels[i] = sample.image, sample.label
        if i % 200 == 0:
            progress(f"rendering {split} {i}/{length}")
    progress(f"rendered {length} {split} pictures in {time.perf_counter() - start:.0f} s", last=True)
    return pixels, labels


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (n, H, W, 3) -> float32 (n, 3, H, W) in channels_last memory."""
    mean, std = (torch.tensor(INPUT_SPEC[name], device=pixels.device) for name in ("mean", "std"))
    scale: float = INPUT_SPEC["scale"]
    return ((pixels * scale - mean) / std).permute(0, 3, 1, 2)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip half of the images, change each one's contrast and colour, shift the batch by up to 8 pixels."""
    n = len(images)
    flip = (torch.rand(n, generator=generator) < 0.5).to(images.device)
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    gain = 1 + 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5).to(images.device)
    offset = 0.4 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5).to(images.device)
    dy, dx = torch.randint(0, 17, (2,), generator=generator).tolist()
    padded = nn.functional.pad(images * gain + offset, (8, 8, 8, 8), mode="replicate")
    return padded[:, :, dy : dy + SIZE, dx : dx + SIZE].contiguous(memory_format=torch.channels_last)


def batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of shuffled whole batches."""
    order = torch.randperm(count, generator=generator)
    for first in range(0, count - batch + 1, batch):
        yield order[first : first + batch]


def train(pixels: Pixels, labels: Labels, settings: Settings) -> DemoCnn:
    """Train on rendered pictures with AdamW, a one-cycle learning rate and bfloat16 arithmetic."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    model = DemoCnn().to(memory_format=torch.channels_last)
    steps = settings.epochs * (len(pixels) // settings.batch)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.2)
    source, target = torch.from_numpy(pixels), torch.from_numpy(labels)
    start, step = time.perf_counter(), 0
    for epoch in range(1, settings.epochs + 1):
        right = seen = 0
        for index in batches(len(pixels), settings.batch, generator):
            images, truth = augment(normalise(source[index]), generator), target[index]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images).float()
            loss = nn.functional.cross_entropy(logits, truth)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step, seen = step + 1, seen + len(index)
            right += int((logits.argmax(1) == truth).sum())
            if step % 10 == 0:
                left = (time.perf_counter() - start) / step * (steps - step)
                progress(f"epoch {epoch}/{settings.epochs}: accuracy {right / seen:.3f}, {left:.0f} s left")
        taken = time.perf_counter() - start
        progress(f"epoch {epoch}/{settings.epochs}: training accuracy {right / seen:.4f}, {taken:.0f} s", last=True)
    return model.eval()


def name_taps(proto: onnx.ModelProto) -> None:
    """Rename the output of each block's ReLU to `block0` .. `block6`, in place."""
    relus = [node.output[0] for node in proto.graph.node if node.op_type == "Relu"]
    names = {old: f"block{number}" for number, old in enumerate(relus)}
    for node in proto.graph.node:
        node.input[:] = [names.get(value, value) for value in node.input]
        node.output[:] = [names.get(value, value) for value in node.output]
    for value in proto.graph.value_info:
        value.name = names.get(value.name, value.name)


def export(model: DemoCnn) -> bytes:
    """The trained model as an ONNX file: `image` (N, 3, 128, 128) -> `logits` (N, 10), batch norm folded."""
    example = torch.zeros(2, 3, SIZE, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            model.float(),
            (example,),
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_shapes={"image": {0: torch.export.Dim("N")}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise click.ClickException("torch.onnx.export returned no program; torch >= 2.5 is needed")
    proto = program.model_proto
    name_taps(proto)
    for node in proto.graph.node:
        del node.metadata_props[:]  # source lines of the exporting machine
        node.doc_string = ""
    for value in proto.graph.value_info:
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    described = json.dumps({"input": INPUT_SPEC, "labels": list(CLASSES)})
    onnx.helper.set_model_props(proto, {"fsagn_model": described})
    onnx.checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def accuracy(path: Path, pixels: Pixels, labels: Labels) -> float:
    """Top-1 accuracy of an ONNX file with onnxruntime on the CPU."""
    session = inference_session(str(path), threads=1)
    right = 0
    for i in range(0, len(pixels), 100):
        images = normalise(torch.from_numpy(pixels[i : i + 100])).contiguous().numpy()
        (logits,) = session.run(["logits"], {"image": images})
        right += int((np.asarray(logits).argmax(1) == labels[i : i + 100]).sum())
    return right / len(pixels)


def record(manifest: Path, key: str, entry: dict[str, Any]) -> None:
    """Put an entry into the manifest and leave the others as they are."""
    entries: dict[str, Any] = json.loads(manifest.read_text()) if manifest.exists() else {}
    entries[key] = entry
    write_file(manifest, [(json.dumps(entries, indent=2, sort_keys=True) + "\n").encode()])


def manifest_entry(name: str, content: bytes, settings: Settings, measured: dict[str, float]) -> dict[str, Any]:
    """What the manifest says about the written file: its hash, how it was made, and how good it is."""
    told = ("seed", "epochs", "images", "held_out", "threads")
    options = [f"--{key.replace('_', '-')} {value}" for key, value in asdict(settings).items() if key in told]
    modules = (torch, onnx, onnxscript, onnxruntime, np, cv2)
    return {
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "command": " ".join(["python models/train_demo_cnn.py", *options]),
        "settings": asdict(settings),
        "versions": {"python": platform.python_version()} | {m.__name__: str(m.__version__) for m in modules},
        "accuracy": measured,
    }


def count(default: int, text: str, *, least: int = 1) -> dict[str, Any]:
    """Arguments of an option that takes a number of something."""
    return {"default": default, "show_default": True, "type": click.IntRange(least), "help": text}


@click.command()
@click.option("--seed", **count(Settings.seed, "Seed of weights, order and augmentation.", least=0))
@click.option("--epochs", **count(Settings.epochs, "Passes over the training pictures."))
@click.option("--images", **count(Settings.images, "Training pictures.", least=64))
@click.option("--held-out", **count(Settings.held_out, "Pictures of val, and as many of test."))
@click.option("--threads", **count(Settings.threads, "CPU threads."))
@click.option(
    "--out",
    default=HERE / "demo_cnn.onnx",
    show_default="demo_cnn.onnx beside the script",
    type=click.Path(dir_okay=False, path_type=Path),
)
def main(seed: int, epochs: int, images: int, held_out: int, threads: int, out: Path) -> None:
    """Train the demo CNN on the synthetic parts set; write it and its entry in manifest.json beside it."""
    settings = Settings(seed=seed, epochs=epochs, images=images, held_out=held_out, threads=threads)
    if not out.parent.is_dir():
        raise click.UsageError(f"no folder {out.parent}; make it first or choose another --out")
    torch.set_num_threads(threads)
    content = export(train(*render_split("train", images), settings))
    write_file(out, [content])
    measured = {split: accuracy(out, *render_split(split, held_out)) for split in ("val", "test")}
    record(out.parent / "manifest.json", out.stem, manifest_entry(out.name, content, settings, measured))
    result = ", ".join(f"{split} {share:.4f}" for split, share in measured.items())
    click.echo(f"{out}: {len(content)} bytes, accuracy {result}")


if __name__ == "__main__":
    main()
