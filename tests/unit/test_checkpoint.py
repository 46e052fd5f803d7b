"""Checkpoints out of strangers' hands: every entry is checked before a weight is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fsagn_onnx.errors import CheckpointError
from fsagn_onnx.generator import Checkpoint, GeneratorConfig, TrainingOptions, load_checkpoint, save_checkpoint
from fsagn_onnx.generator.config import Tap, make_config, require_taps
from fsagn_onnx.generator.export import load_generator
from fsagn_onnx.generator.network import Generator
from fsagn_onnx.model import InputSpec, load_model
from fsagn_onnx.runtime.metadata import ExplainerMetadata
from fsagn_onnx.testing.planted import TAP, write_planted

METADATA = ExplainerMetadata(
    format=2, tool="test", content="ab", layer="top", filters=6, encoder="shared",
    input=InputSpec("x", "NCHW", "RGB", (16, 16), 1.0, (0.0,) * 3, (1.0,) * 3, "stretch"), labels=None,
    areas=(0.1,), objective="budget", infills=(), training={}, quality={},
)  # fmt: skip
CONFIG = GeneratorConfig("top", 6, "shared", (Tap("top", 6, 8),), 3, "NCHW", (32, 32), 4, width=4, maps=4, hidden=4)


def description() -> dict[str, Any]:
    members: dict[str, Any] = {
        "content": "ab", "generator": CONFIG.to_dict(), "options": TrainingOptions().to_dict(), "training": {},
        "calibration": ["\udcff.png"],
    }  # fmt: skip
    return json.loads(json.dumps(members))  # type: ignore[no-any-return]


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {f"weights/{name}": value for name, value in Generator(CONFIG).state_dict().items()}


def write(path: Path, members: object, values: dict[str, Tensor]) -> Path:
    path.write_bytes(safetensors.torch.save(values, metadata={"fsagn_checkpoint": json.dumps(members)}))
    return path


def test_there_and_back_and_what_format_1_called_the_content(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, Checkpoint(description(), tensors()))
    found = load_checkpoint(path)
    assert found.description == {"format": 2, **description()}
    assert load_generator(found).config == CONFIG
    old = {("model_sha256" if name == "content" else name): value for name, value in description().items()}
    assert load_checkpoint(write(path, {"format": 1, **old}, tensors())).description["content"] == "ab"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("format",), "x", "field 'format' must be a whole number in 1..2, but got 'x'"),
        (("content",), 3, "field 'content' must be a text"),
        (("generator",), 3, "field 'generator' must be an object, but got 3"),
        (("generator", "filters"), 10**12, "field 'generator.filters' must be a whole number in 1..1048576"),
        (("generator", "width"), 10**9, "field 'generator.width' must be a whole number in 1..4096"),
        (("generator", "size"), [32], r"field 'generator.size' must be \[height, width\]"),
        (("generator", "encoder"), "x", "field 'generator.encoder' must be one of shared, own, but got 'x'"),
        (("generator", "taps"), [], "field 'generator.taps' must be a list of length >= 1"),
        (("generator", "taps", 0, "channels"), 0, r"field 'generator.taps\[0\].channels' must be a whole number in 1"),
        (("generator", "sigma"), 0, r"field 'generator.sigma' must be a number in \(0, 100\], but got 0"),
        (("generator", "more"), 0, "unknown field 'generator.more'; known: areas"),
        (("options", "pairs"), "x", "field 'options.pairs' must be a whole number, but got 'x'"),
        (("options", "objective", "name"), "x", "field 'options.objective.name' must be one of budget, fsagn"),
        (("options", "mix"), {"none": 1}, "no infill 'none' to train with"),
        (("training",), [], r"field 'training' must be an object, but got \[\]"),
        (("step",), -1, "field 'step' must be a whole number in 0"),
        (("running",), {"loss": "x"}, "field 'running' must be a number"),
        (("format",), 3, "is of format 3, this fsagn-onnx reads up to 2: upgrade"),
    ],
)
def test_every_member_of_the_description_is_checked(
    place: tuple[str | int, ...], value: object, said: str, tmp_path: Path
) -> None:
    members: dict[str, Any] = {"format": 2, **description()}
    inner: Any = members
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(CheckpointError, match=said) as caught:
        load_checkpoint(write(tmp_path / "c.safetensors", members, tensors()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("weights/alpha.weight"), "the tensor 'weights/alpha.weight' is missing"),
        (
            lambda t: t.update({"weights/alpha.weight": torch.zeros(7, 1)}),
            r"alpha.weight' must be F32 \[6, 1\]",
        ),
        (lambda t: t.update({"weights/alpha.weight": torch.zeros(6, 1).half()}), "but is F16"),
        (lambda t: t.update({"moment1/alpha.weight": torch.zeros(1)}), "'moment1/alpha.weight' must be F32"),
        (lambda t: t.update({"weights/other": torch.zeros(1)}), "unknown tensor 'weights/other'"),
        (lambda t: t.update({"x\n" * 999: torch.zeros(1)}), r"unknown tensor 'x\\n"),
    ],
)
def test_every_tensor_is_checked(change: Callable[[dict[str, Tensor]], object], said: str, tmp_path: Path) -> None:
    values = tensors()
    change(values)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_checkpoint(write(tmp_path / "c.safetensors", {"format": 2, **description()}, values))
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_norms_that_count_their_batches_come_back(tmp_path: Path) -> None:
    """The own encoder has tensors of whole numbers; a training with one could not be resumed."""
    config = replace(CONFIG, encoder="own")
    values = {f"live/{name}": value for name, value in Generator(config).state_dict().items()}
    values |= {f"weights/{name[5:]}": value.clone() for name, value in values.items()}
    members = {"format": 2, **description(), "generator": json.loads(json.dumps(config.to_dict()))}
    found = load_checkpoint(write(tmp_path / "c.safetensors", members, values))
    assert {value.dtype for value in found.tensors.values()} == {torch.float32, torch.int64}
    values["live/encoder.blocks.0.1.num_batches_tracked"] = torch.zeros(())
    with pytest.raises(CheckpointError, match=r"num_batches_tracked' must be I64 \[\], but is F32"):
        load_checkpoint(write(tmp_path / "d.safetensors", members, values))


def test_a_header_that_is_no_description(tmp_path: Path) -> None:
    for members in ([], 3, None, {}):
        with pytest.raises(CheckpointError, match="is not a checkpoint of fsagn-onnx, or is damaged"):
            load_checkpoint(write(tmp_path / "c.safetensors", members, {"a": torch.zeros(1)}))
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="is a safetensors file, but not a checkpoint"):
        load_checkpoint(plain)


def test_a_checkpoint_that_reads_what_the_model_has_not_is_refused(tmp_path: Path) -> None:
    model = load_model(write_planted(tmp_path / "planted.onnx"))
    config = make_config(model, model.layer(TAP))
    require_taps(model, config, "c")
    for change, said in (
        ({"taps": (Tap("gone", 8, 8),)}, "c reads 8 channels of value 'gone', but in .* there is no such value"),
        ({"filters": 3}, f"c reads 3 channels of value '{TAP}', but in .* that has the shape"),
        ({"size": (32, 48)}, r"c was trained for images of NCHW, 3 channels and \(32, 48\) px, but .* takes NCHW"),
    ):
        with pytest.raises(CheckpointError, match=said):
            require_taps(model, replace(config, **change), "c")


def test_a_name_that_is_no_utf_8_does_not_stop_an_export() -> None:
    metadata = replace(METADATA, training={"classes": None, "\ud800": "\udcff"})
    assert ExplainerMetadata.from_json(metadata.to_json()).training == {"classes": None, "?": "?"}
