"""Checkpoints: one safetensors file, its header carrying the JSON. No pickle anywhere.

Names inside: ``weights/...`` the averaged weights (what is exported), and for a run that can be resumed
``live/...``, ``moment1/...``, ``moment2/...`` (Adam).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..data.files import make_folder, write_file
from ..errors import CheckpointError

FORMAT = 1


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
    """Read a checkpoint.

    Raises:
        CheckpointError: if the file is missing, not a checkpoint, truncated, or of a newer format.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            described = (stream.metadata() or {}).get("fsagn_checkpoint")
            if described is None:
                raise CheckpointError(f"{path} is a safetensors file, but not a checkpoint of fsagn-onnx")
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        description = json.loads(described)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}") from error
    except (OSError, safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of fsagn-onnx, or is damaged: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise CheckpointError(f"{path} is not a checkpoint of fsagn-onnx: its description is not usable")
    if description["format"] > FORMAT:
        raise CheckpointError(
            f"{path} is of format {description['format']}, this fsagn-onnx reads up to {FORMAT}: upgrade fsagn-onnx"
        )
    return Checkpoint(description, tensors)
