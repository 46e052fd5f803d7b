"""Checkpoints: one safetensors file, its header carrying the JSON. No pickle anywhere.

Names inside: ``weights/...`` the averaged weights (what is exported), and for a run that can be resumed
``live/...``, ``moment1/...``, ``moment2/...`` (Adam).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..data.files import make_folder, write_file
from ..errors import CheckpointError
from ..runtime.trust import Trust
from ..schema import MAX_ITEMS, Meta, Text, Word, checked, parse_json, shown, within
from .config import GeneratorConfig
from .network import Generator
from .options import TrainingOptions

FORMAT: Final = 2
GROUPS: Final = ("weights", "live", "moment1", "moment2")


@dataclass(frozen=True)
class CheckpointDescription:
    """The JSON in a checkpoint's header.

    Attributes:
        format: 1..`FORMAT`; in format 1 ``content`` was called ``model_sha256``.
        content: of the model, see `Model.content`.
        generator: what fixes the shapes of the weights.
        options: of the training.
        training: its summary.
        tool: what wrote the file.
        input: how an image becomes the model's input.
        labels: names of the model's classes.
        images: a hash of the pictures' paths.
        calibration: some of them.
        step: steps taken.
        running: running means of loss and retention.
        trust: what was measured on pictures left out of the training, once it was finished.
    """

    format: Annotated[int, within(1, FORMAT)]
    content: Word
    generator: GeneratorConfig
    options: TrainingOptions
    training: Mapping[str, Any]
    tool: Text = ""
    input: Mapping[str, Any] | None = None
    labels: Annotated[tuple[Text, ...], Meta(max_length=MAX_ITEMS, description="a list of texts")] | None = None
    images: Text = ""
    calibration: Annotated[tuple[Text, ...], Meta(max_length=MAX_ITEMS, description="a list of paths")] = ()
    step: Annotated[int, within(0, 2**53)] = 0
    running: Mapping[str, float] = field(default_factory=dict)
    trust: Trust | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        description: JSON object: ``content``, ``generator``, ``options``, ``step``, ``training``, ...
        tensors: all tensors by name.
    """

    description: dict[str, Any]
    tensors: dict[str, Tensor]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, names without the group's."""
        prefix = name + "/"
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}


def resumable_part(key: str, value: Any) -> Any:
    """A part of a description as a resumed run must have it: defaults where it is silent.

    Whatever number of pairs, and whatever is only done to what is learnt.
    """
    if key == "options":
        return replace(TrainingOptions.from_dict(value), pairs=1, particular=0.0)
    return replace(GeneratorConfig.from_dict(value), particular=0.0) if key == "generator" else value


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    described = json.dumps({"format": FORMAT, **checkpoint.description}, sort_keys=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    make_folder(path.parent)
    write_file(path, [safetensors.torch.save(tensors, metadata={"fsagn_checkpoint": described})], durable=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing of its weights is read before their names, shapes and types are found right.

    Raises:
        CheckpointError: if the file is missing, not a checkpoint, truncated, of a newer format, or an entry is wrong.
    """

    def wrong(said: str) -> CheckpointError:
        return CheckpointError(f"{path} is not a checkpoint of fsagn-onnx, or is damaged: {said}")

    if path.exists() and not path.is_file():  # a pipe would wait for its writer
        raise CheckpointError(f"{path} is no regular file, expected a checkpoint")
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            text = (stream.metadata() or {}).get("fsagn_checkpoint")
            if text is None:
                raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of fsagn-onnx")
            members = parse_json(text, wrong, any_names=True)
            described = _described(members, path, wrong)
            names = list(stream.keys())
            found = {name: (stream.get_slice(name).get_shape(), stream.get_slice(name).get_dtype()) for name in names}
            if said := _misfit(found, described.generator):
                raise wrong(said)
            return Checkpoint(members, {name: stream.get_tensor(name) for name in names})
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise wrong(str(error)[:200]) from error


def _described(members: Any, path: Path, wrong: Callable[[str], CheckpointError]) -> CheckpointDescription:
    """The description, checked; ``members`` is spelled as today afterwards."""
    if isinstance(members, dict):
        if type(version := members.get("format")) is int and version > FORMAT:
            raise CheckpointError(
                f"{path} is of format {shown(version)}, this fsagn-onnx reads up to {FORMAT}: upgrade fsagn-onnx"
            )
        if "model_sha256" in members:
            members["content"] = members.pop("model_sha256")
    return checked(members, CheckpointDescription, wrong)


def _misfit(found: Mapping[str, tuple[Sequence[int], str]], config: GeneratorConfig) -> str:
    """What of the tensors does not fit the description, in words; empty where all do."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        expected = Generator(config).state_dict()
    if missing := [name for name in expected if f"weights/{name}" not in found]:
        return f"the tensor 'weights/{missing[0]}' is missing"
    for name, (shape, kind) in found.items():
        group, _, inner = name.partition("/")
        if group not in GROUPS or inner not in expected:
            return f"unknown tensor {shown(name)}"
        wanted = "F32" if expected[inner].is_floating_point() else "I64"  # a norm counts its batches
        if list(shape) != list(expected[inner].shape) or kind != wanted:
            return f"tensor '{name}' must be {wanted} {list(expected[inner].shape)}, but is {kind} {shown(list(shape))}"
    return ""
