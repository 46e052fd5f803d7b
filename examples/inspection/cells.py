"""The cells: ELPV's electroluminescence pictures, fetched at run time, split into training and unseen ones.

2,624 pictures of solar cells, 300 x 300 gray, each with a defect probability (Buerhop-Lutz et al. 2018; Deitsch et al.
2019; CC-BY-NC-SA 4.0). They come from the package index as a wheel and are unpacked below the working folder, never
committed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PACKAGE = "elpv-dataset==1.0.0.post1"
UNSEEN_EVERY = 5
"""Every fifth cell, in an order drawn once, is unseen."""

SEED = 0


@dataclass(frozen=True)
class Cells:
    """One split.

    Attributes:
        folder: the pictures.
        files: in the order of the labels.
        defective: ``(n,)`` bool: a defect probability above one half.
    """

    folder: Path
    files: list[Path]
    defective: np.ndarray


def fetch(folder: Path) -> Path:
    """Unpack the data set below a folder, unless it is there; returns the folder with ``labels.csv``."""
    data = folder / "package" / "elpv_dataset" / "data"
    if not (data / "labels.csv").is_file():
        print(f"fetching {PACKAGE} (91 MB, CC-BY-NC-SA 4.0) into {folder / 'package'}", flush=True)
        options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--target", str(folder / "package")]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, PACKAGE], check=True)
    return data


def split(folder: Path) -> tuple[Cells, Cells]:
    """Training and unseen cells as two folders of pictures."""
    data = fetch(folder)
    rows = [line.split() for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    order = np.random.default_rng(SEED).permutation(len(rows))
    chosen: dict[str, list[tuple[Path, bool]]] = {"train": [], "unseen": []}
    for place, index in enumerate(order.tolist()):
        name, probability = rows[index][0], float(rows[index][1])
        part = "unseen" if place % UNSEEN_EVERY == 0 else "train"
        copy = folder / part / Path(name).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copyfile(data / name, copy)
        chosen[part].append((copy, probability > 0.5))
    made = {
        part: Cells(folder / part, [file for file, _ in cells], np.array([bad for _, bad in cells]))
        for part, cells in chosen.items()
    }
    return made["train"], made["unseen"]
