"""Export by both of torch's exporters, with a dynamic batch."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

EXPORTERS: dict[str, tuple[bool, int | None]] = {
    "classic-9": (False, 9),
    "classic-11": (False, 11),
    "classic-13": (False, 13),
    "classic-17": (False, 17),
    "classic-20": (False, 20),
    "dynamo": (True, None),
    "dynamo-20": (True, 20),
    "dynamo-22": (True, 22),
    "dynamo-23": (True, 23),
}
"""name -> (dynamo, opset); 23 is the newest that torch 2.14 writes."""


def export(network: nn.Module, size: int, exporter: str, path: Path, channels: int = 3) -> None:
    """Write the network to `path`; the input is ``x`` (N, channels, size, size)."""
    dynamo, opset = EXPORTERS[exporter]
    x = torch.zeros(2, channels, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            batch = torch.export.Dim("N", min=1, max=64)
            torch.onnx.export(
                network,
                (x,),
                str(path),
                dynamo=True,
                opset_version=opset,
                input_names=["x"],
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
        else:
            torch.onnx.export(
                network,
                (x,),
                str(path),
                dynamo=False,
                opset_version=opset,
                input_names=["x"],
                dynamic_axes={"x": {0: "N"}},
            )
