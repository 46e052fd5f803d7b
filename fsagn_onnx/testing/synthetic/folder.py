"""Writes the synthetic set as ordinary files, for the command line and for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...data.files import make_folder, write_file
from .objects import CLASSES, PARTS
from .parts import SyntheticParts
from .render import SIZE, Sample


def index_mask(sample: Sample) -> npt.NDArray[np.uint8]:
    """Part masks in one image, uint8 (H, W): 0 is the ground, i + 1 is part type i of `PARTS`."""
    numbers = np.zeros(sample.image.shape[:2], dtype=np.uint8)
    for part, mask in sample.parts.items():
        numbers[mask] = PARTS.index(part) + 1
    return numbers


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    _, encoded = cv2.imencode(".png", pixels)
    return encoded.tobytes()


def write_folder(out: str | Path, split: str, length: int, size: int = SIZE, first: int = 0) -> Path:
    """Write pictures of a split as `images/<split>-00000.png`, `masks/<split>-00000.png` and `names.json`.

    A mask is a gray PNG: 0 is the ground, number i is the part type with number i in `names.json`.
    `names.json` is written last: `{"classes": [...], "parts": {"1": "body", ...}, "images": [{"file", "mask",
    "label", "class", "seed", "variants"}, ...]}`.

    Args:
        out: the folder.
        split: the split.
        length: how many pictures.
        size: of the pictures.
        first: number of the first picture within the split.

    Returns:
        The path of `names.json`.

    Raises:
        UsageError: no such split, or a length or size out of range.
        OutputError: a file cannot be written.
    """
    folder = Path(out)
    make_folder(folder / "images")
    make_folder(folder / "masks")
    entries: list[dict[str, Any]] = []
    pictures = SyntheticParts(split, first + length, size)
    for i in range(first, first + length):
        sample = pictures[i]
        name = f"{split}-{i:05d}.png"
        write_file(folder / "images" / name, [_png(sample.image[..., ::-1])])
        write_file(folder / "masks" / name, [_png(index_mask(sample))])
        entries.append(
            {
                "file": f"images/{name}",
                "mask": f"masks/{name}",
                "label": sample.label,
                "class": CLASSES[sample.label],
                "seed": sample.seed,
                "variants": sample.variants,
            }
        )
    numbered = {str(number): part for number, part in enumerate(PARTS, start=1)}
    names = folder / "names.json"
    content = {"classes": list(CLASSES), "parts": numbered, "images": entries}
    write_file(names, [(json.dumps(content, indent=1) + "\n").encode()])
    return names
