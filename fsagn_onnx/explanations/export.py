"""The dataset of rows out of a finished folder of `explain`: what `--format parquet` writes beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.files import read_lines
from ..data.store import Store, read_content
from ..errors import FsagnError, OutputError
from ..model.input_spec import Geometry
from ..runs.folder import ROWS, remove
from .folder import LINES, ExplanationFolder
from .parts import PART_PICTURES, PartContent, PartFacts, PartName
from .rows import Row, line_rows, text_of


def write_dataset(folder: ExplanationFolder, size: int = PART_PICTURES) -> None:
    """Write the dataset of a finished run anew; numbers are places among the explained pictures.

    Args:
        folder: the finished run.
        size: pictures of a part.

    Raises:
        OutputError: a part cannot be written, or a file of the run is damaged.
    """
    remove(folder.path / ROWS)
    store = Store(folder.path)
    input_size: tuple[int, int] = tuple(folder.about.subject["input"]["size"])
    numbered = enumerate(json.loads(line) for line in read_lines(folder.path / LINES))
    while lines := list(islice(numbered, size)):
        content = PartContent()
        for number, line in lines:
            content.add(_rows(folder.path, number, line, input_size))
        start, stop = lines[0][0], lines[-1][0] + 1
        told = "\0".join(text_of(line["path"]) for _, line in lines).encode("utf-8")
        name = PartName(start, stop, blake2b(told, digest_size=8).hexdigest())
        content.save(store, name, PartFacts(explained=len(lines)))


def _rows(folder: Path, number: int, line: Mapping[str, Any], size: tuple[int, int]) -> Iterator[Row]:
    path = folder / "masks" / f"{line['name']}.npz"
    try:
        with np.load(path, allow_pickle=False) as held:
            ranks = [_exact(rank) for rank in held["area_rank"]]
            cells = held["area_rank"].shape[1:] if ranks else None
            affine = held["affine"]
            if "evidence_rank" in held:
                ranks += [_exact(rank) for rank in held["evidence_rank"]]
                if cells is None:
                    cells, affine = held["evidence_rank"].shape[1:], held["evidence_affine"]
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"cannot read {path}: {error}; run it again with --overwrite") from error
    cell = np.array([size[1] / (cells[1] if cells else 1), size[0] / (cells[0] if cells else 1), 1.0])
    geometry = Geometry((line["height"], line["width"]), size, np.asarray(affine, np.float64) / cell)
    return line_rows(number, _hash(line["path"]), line, ranks, geometry)


def _exact(rank: NDArray[np.floating]) -> NDArray[np.float32]:
    """A rank as it was before it was stored in half precision: i / (h w)."""
    places = np.rint(rank.astype(np.float64) * rank.size)
    return np.asarray(places / rank.size, dtype=np.float32)


def _hash(path: str) -> str | None:
    """Of the picture's file, where it is still there."""
    try:
        return sha256(read_content(path)).hexdigest()
    except FsagnError:
        return None
