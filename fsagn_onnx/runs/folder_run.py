"""What `dissect` and `perturb` share: what they are asked, and a run that fills a folder of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.annotations import Annotations
from ..data.closing import Closing
from ..errors import ImageError, UsageError
from ..model import Model
from ..runtime.engine import Engine
from .column_folder import ColumnFolder
from .tapped_explainer import TappedExplainer


@dataclass(frozen=True)
class RunRequest:
    """What every run that fills a folder is asked.

    Attributes:
        images: files, folders, globs, ``-``.
        filters: ``all``, ids, ``decisive:K``, or (`perturb`) ``top:K``.
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


class FolderRun(Closing):
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

    folder: ColumnFolder

    def __init__(
        self, model: Model, explainer: str | Path | Engine, annotations: Annotations | None, request: RunRequest
    ) -> None:
        self.model, self.annotations = model, annotations
        self.parts: tuple[str, ...] = () if annotations is None else annotations.names
        self.part_numbers = {name: number for number, name in enumerate(self.parts)}
        self.tapped = TappedExplainer(model, explainer, **request.session)
        self.classes = self.tapped.classes.chosen(request.output, request.scores)

    def open_folder(
        self,
        kind: type[ColumnFolder],
        out: Path,
        request: RunRequest,
        *,
        resume: bool,
        overwrite: bool,
        **more: Any,
    ) -> None:
        """Open the folder; a run that goes on must repeat model, layer, images, filters, area, parts and ``more``.

        Raises:
            OutputError: the folder cannot be written, holds something else, or belongs to another run.
            UsageError: both ``resume`` and ``overwrite``.
        """
        subject = {
            "model": self.model.path.name,
            "content": self.model.content,
            "layer": self.tapped.layer,
            "images_asked": list(request.images),
            "filters_asked": request.filters,
            "area": request.area,
            "annotations": None if self.annotations is None else str(self.annotations.source),
            "parts": list(self.parts),
            "output_asked": request.output,
            "scores_asked": request.scores,
            **more,
        }
        self.folder = kind(out, subject, resume=resume, overwrite=overwrite)

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
