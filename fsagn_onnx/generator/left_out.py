"""Pictures that a training leaves out, and what its explainer is worth on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from onnx import helper

from ..data.files import write_file
from ..model import Model
from ..model.onnx_file import read_proto
from ..runtime.file_engine import FileEngine
from ..runtime.metadata import KEY, ExplainerMetadata
from ..runtime.trust import Trust
from ..runtime.trust_measurement import LEAST_PICTURES, affordable_pictures, measure_trust
from .checkpoint import Checkpoint, save_checkpoint

ONE_OF: Final = 8
"""So many pictures pay for one that is left out."""


def leave_out(paths: Sequence[Path], pairs: int) -> tuple[list[Path], list[Path]]:
    """Pictures to train on, and pictures that are left out to measure on, evenly spread.

    An eighth is left out, at most as many as a training of so many pairs pays for, which is 40; no fewer than 4.
    """
    count = min(affordable_pictures(pairs), len(paths) // ONE_OF)
    if count < LEAST_PICTURES:
        return list(paths), []
    places = {(2 * n + 1) * len(paths) // (2 * count) for n in range(count)}
    return [path for n, path in enumerate(paths) if n not in places], [paths[n] for n in sorted(places)]


def add_trust(model: Model, explainer: Path, left_out: Sequence[Path], checkpoint: Path, trained: Checkpoint) -> None:
    """Measure a finished explainer on pictures, and write what is found into the file and its checkpoint.

    Raises:
        FsagnError: the files cannot be written.
    """
    if not left_out:
        return
    engine = FileEngine(explainer, "cpu")
    found = measure_trust(engine, model.proto, left_out)
    engine.close()
    if found is not None:
        save_checkpoint(checkpoint, Checkpoint({**trained.description, "trust": found.to_dict()}, trained.tensors))
        write_trust(explainer, found)


def write_trust(explainer: Path, trust: Trust) -> None:
    """Write an explainer file anew with these figures in its metadata; the graph stays as it is.

    Raises:
        ExplainerError: its metadata cannot be read.
        OutputError: it cannot be written.
    """
    proto = read_proto(explainer)
    kept = {item.key: item.value for item in proto.metadata_props}
    about = ExplainerMetadata.from_json(kept[KEY], str(explainer))
    helper.set_model_props(proto, {**kept, KEY: replace(about, trust=trust).to_json()})
    write_file(explainer, [proto.SerializeToString()], durable=True)
