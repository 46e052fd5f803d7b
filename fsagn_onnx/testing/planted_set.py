"""Pictures of planted patterns as files, with masks of the patterns as part annotations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from .planted import FILTERS, planted_picture


def write_planted_set(
    folder: str | Path, pictures: int, names: Sequence[str] | None = None, *, masks_from: int = 0
) -> Path:
    """Write `images/000.png`, `masks/000.png`, ... and `names.json`, which `open_annotations` reads.

    Args:
        folder: where to; made where it is missing.
        pictures: how many; the picture of number n is that of seed n.
        names: of the patterns as parts; ``pattern 0`` to ``pattern 7`` unless told.
        masks_from: the mask of picture n is that of seed n + masks_from, so that nothing but 0 is true.

    Returns:
        The folder.
    """
    root = Path(folder)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for seed in range(pictures):
        picture, truth = planted_picture(seed), planted_picture(seed + masks_from)
        numbers = np.zeros(picture.image.shape[:2], dtype=np.uint8)
        for k in truth.boxes:
            numbers[truth.box_mask(k)] = k + 1
        cv2.imwrite(str(root / "images" / f"{seed:03}.png"), picture.image[..., ::-1])
        cv2.imwrite(str(root / "masks" / f"{seed:03}.png"), numbers)
    called = names if names is not None else [f"pattern {k}" for k in range(FILTERS)]
    listed = {str(number): name for number, name in enumerate(called, start=1)}
    (root / "names.json").write_text(json.dumps(listed), encoding="utf-8")
    return root
