"""The folder of a `dissect` or `perturb` run: manifest, index of images, and columns that survive being killed."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import onnxruntime

from .. import __version__
from ..data.annotations import Annotations
from ..data.files import PART, LineFile, make_folder, read_lines, write_file
from ..errors import ImageError, OutputError, UsageError
from ..model import Model
from ..runtime.engine import Engine
from ..runtime.stream import Failure
from .columns import Column
from .tapped_explainer import TappedExplainer

MANIFEST: Final = "manifest.json"
INDEX: Final = "images.jsonl"
COLUMNS: Final = "columns"
KEPT: Final = "names.json"
"""The user's own names of filters: no run removes them."""
MAX_FAILURES: Final = 1000
"""Failures listed in the manifest; all are counted."""
RESULTS: Final = frozenset({
    MANIFEST, INDEX, "masks.json", "ablation.csv", *(f"report.{ending}" for ending in ("html", "json", "md", "png")),
    *(f"{table}.{ending}" for table in ("filters", "effects") for ending in ("jsonl", "csv", "parquet")),
})  # fmt: skip
"""Files that a run writes and --overwrite removes."""


class RunFolder:
    """A folder that grows by one row and one line per image; what is done is never done again.

    Attributes:
        path: the folder.
        lines: the lines of the index so far, one per image, failed ones too.
        rows: images that have a row in the columns.

    Args:
        path: where to write; made if it is not there.
        kind: ``dissect`` or ``perturb``.
        subject: what was measured with what; a run goes on only with the same.
        resume: go on with what the folder holds.
        overwrite: remove what a run left there first.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        UsageError: both ``resume`` and ``overwrite``.
    """

    def __init__(
        self, path: Path, kind: str, subject: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> None:
        if resume and overwrite:
            raise UsageError("--resume and --overwrite exclude each other: go on with the results, or replace them")
        self.path, self._kind, self._subject = path, kind, json.loads(json.dumps(subject))
        make_folder(path)
        self._prepare(resume, overwrite)
        make_folder(path / COLUMNS)
        self.columns: dict[str, Column] = {}
        self._index = LineFile(path / INDEX)
        self.lines = 0
        self.rows = 0
        self._read: tuple[dict[str, Any], ...] | None = None
        self.write_manifest("running", {})

    def _prepare(self, resume: bool, overwrite: bool) -> None:
        entries = [entry for entry in self.path.iterdir() if not entry.name.endswith(PART) and entry.name != KEPT]
        if not entries:
            return
        if not (resume or overwrite):
            raise OutputError(
                f"{self.path} is not empty: go on with --resume, replace its results with --overwrite, "
                "or choose another --out"
            )
        manifest = read_manifest(self.path, self._kind)
        if overwrite:
            for entry in entries:
                if entry.name == COLUMNS:
                    shutil.rmtree(entry)
                elif entry.name in RESULTS:
                    entry.unlink()
            return
        for name, value in self._subject.items():
            if manifest.get(name) != value:
                raise OutputError(
                    f"{self.path} was written with another {name} ({_brief(manifest.get(name))} then, "
                    f"{_brief(value)} now): repeat the same arguments, use --overwrite, or choose another --out"
                )

    def column(self, name: str, dtype: str, shape: tuple[int, ...]) -> Column:
        """Open a column of the run."""
        self.columns[name] = Column(self.path / COLUMNS / name, dtype, shape)
        return self.columns[name]

    def take_up(self) -> None:
        """Bring index and columns to the same length: the images that are whole. Call it once columns are open."""
        complete = min((len(column) for column in self.columns.values()), default=0)
        kept: list[bytes] = []
        for line in read_lines(self.path / INDEX):
            good = json.loads(line).get("error") is None
            if good and self.rows >= complete:
                break
            kept.append(line)
            self.rows += good
        self.lines = len(kept)
        self._index.close()
        write_file(self.path / INDEX, kept)
        self._index = LineFile(self.path / INDEX)
        for column in self.columns.values():
            column.cut(self.rows)

    def append(self, images: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> None:
        """Write line and row (None: it failed) of some images: the rows first, then the lines."""
        rows = [row for _, row in images if row is not None]
        if rows:
            for name, column in self.columns.items():
                column.append([row[name] for row in rows])
        if images:
            lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line, _ in images)
            self._index.append(lines.encode("ascii"))
        self.rows += len(rows)
        self.lines += len(images)
        self._read = None

    def index(self) -> tuple[dict[str, Any], ...]:
        """The lines of the images that did not fail, in the order of the columns' rows; read once."""
        if self._read is None:
            lines = (json.loads(line.decode("ascii")) for line in read_lines(self.path / INDEX))
            self._read = tuple(line for line in lines if line.get("error") is None)
        return self._read

    def failures(self) -> list[Failure]:
        """The images that failed."""
        found = (json.loads(line) for line in read_lines(self.path / INDEX))
        return [Failure(item["path"], item["error"]) for item in found if item.get("error") is not None]

    def failed(self) -> dict[str, Any]:
        """What the manifest says of images that failed."""
        listed = [{"path": item.path, "message": item.message} for item in self.failures()]
        return {"failed": len(listed), "failures": listed[:MAX_FAILURES]}

    def write_manifest(self, state: str, results: Mapping[str, Any]) -> None:
        """Write the manifest."""
        versions = {
            "fsagn-onnx": __version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
        manifest = {"kind": self._kind, "state": state, "versions": versions, **self._subject, **results}
        self.write("manifest.json", json.dumps(manifest, indent=2, allow_nan=False) + "\n")

    def write(self, name: str, text: str | Iterable[str]) -> None:
        """Write a file of the folder, whole or not at all: a text, or its pieces."""
        pieces = [text] if isinstance(text, str) else text
        write_file(self.path / name, (piece.encode("utf-8") for piece in pieces))

    def close(self) -> None:
        """Close all files."""
        self._index.close()
        for column in self.columns.values():
            column.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class RunRequest:
    """What every run that fills a folder is asked.

    Attributes:
        images: files, folders, globs, ``-``.
        filters: ``all``, ids, or (`perturb`) ``top:K``.
        area: share of the model's input in every mask.
        seed: of everything that is drawn.
        workers: passes at the same time.
        session: ``providers`` and ``threads`` of onnxruntime.
        output: the model's output that classifies; None: found in its graph.
        scores: what its numbers are; None: found.
    """

    images: tuple[str, ...]
    filters: str = "all"
    area: float = 0.08
    seed: int = 0
    workers: int = 1
    session: dict[str, Any] = field(default_factory=dict)
    output: str | None = None
    scores: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 < self.area < 1:
            raise UsageError(f"area must be between 0 and 1, but got {self.area}")
        if self.workers < 1:
            raise UsageError(f"workers must be at least 1, but got {self.workers}")


class FolderRun:
    """What runs that fill a folder share; a context manager.

    Attributes:
        model: the model.
        tapped: the explainer, which gives feature maps too.
        parts: names of the annotated parts.
        part_numbers: part name -> number.
        folder: that they fill.

    Args:
        model: the model.
        explainer: its explainer file, or an engine of a training-free method.
        annotations: of parts, or None.
        request: what is asked.

    Raises:
        UsageError: no such output, or one that cannot be what it is said to be.
    """

    folder: RunFolder

    def __init__(
        self, model: Model, explainer: str | Path | Engine, annotations: Annotations | None, request: RunRequest
    ) -> None:
        self.model, self.annotations = model, annotations
        self.parts: tuple[str, ...] = () if annotations is None else annotations.names
        self.part_numbers = {name: number for number, name in enumerate(self.parts)}
        self.tapped = TappedExplainer(model, explainer, **request.session)
        self.classes = self.tapped.classes.chosen(request.output, request.scores)

    def open_folder(
        self, out: Path, kind: str, asked: RunRequest, *, resume: bool, overwrite: bool, **more: Any
    ) -> None:
        """Open the folder; a run that goes on must repeat model, layer, images, filters, area, parts and ``more``."""
        subject = {
            "model": self.model.path.name,
            "model_sha256": self.model.sha256,
            "layer": self.tapped.layer,
            "images_asked": list(asked.images),
            "filters_asked": asked.filters,
            "area": asked.area,
            "annotations": None if self.annotations is None else str(self.annotations.source),
            "parts": list(self.parts),
            "output_asked": asked.output,
            "scores_asked": asked.scores,
            **more,
        }
        self.folder = RunFolder(out, kind, subject, resume=resume, overwrite=overwrite)

    def require_rows(self, images: Sequence[str], verb: str) -> None:
        """Raise an error where every image failed.

        Raises:
            ImageError: not a single image has a row.
        """
        if not self.folder.rows:
            failures = self.folder.failures()
            reason = f"; the first one: {failures[0].message}" if failures else ""
            raise ImageError(f"no image of {', '.join(images)} could be {verb}{reason}")

    def close(self) -> None:
        """Close the folder and free the sessions."""
        self.folder.close()
        self.tapped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_manifest(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        folder: the run's folder.
        kind: the kind that is expected; None takes any, also ``explain``, whose manifests have none.

    Raises:
        OutputError: no manifest, or of another kind.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or (kind is not None and manifest.get("kind") != kind):
        raise OutputError(
            f"{folder} holds no results of '{kind or 'explain, dissect or perturb'}': choose another folder"
        )
    return {"kind": "explain", **manifest}


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
