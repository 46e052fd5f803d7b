"""`dissect`: which object part does each filter of a layer stand for?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Annotations, Labels, open_annotations, read_labels
from ..data.images import some_images
from ..errors import UsageError
from ..model import Model, load_model
from ..runs.column_folder import DissectionFolder
from ..runs.filter_names import NAMES_FILE, read_filter_names
from ..runs.folder_run import FolderRun, RunRequest
from ..runtime.engine import Engine
from ..runtime.feature_maps import FeatureMaps
from ..runtime.filter_request import FilterRequest
from ..runtime.stream import Failure
from .coco_file import write_coco
from .decisive import asked_decisive, find_decisive
from .dissection import Dissection, write_tables
from .filter_rows import Findings, filter_rows, summary
from .groups import Groups, Similarity, group
from .instability import instability_difference
from .observations import DissectionPass, collect, dissection_columns
from .page import write_dissection_page
from .sample import MAX_SAMPLE, ImageSample, draw_sample
from .scores import STRONG, row_at, score_run
from .significance import part_cells, place_test, spread, strongest_rows
from .untrained import UntrainedTest, untrained_test

REFERENCES: Final = 9
"""Reference pictures per filter: those in which it is strongest."""


@dataclass(frozen=True)
class DissectRequest(RunRequest):
    """What the user asked `dissect` for; see `RunRequest`.

    Attributes:
        groups: number of groups; None: whichever separate best.
        permutations: of the permutation test.
        batch_size: images per pass.
    """

    groups: int | None = None
    permutations: int = 999
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.permutations < 99:
            raise UsageError(f"permutations must be at least 99, but got {self.permutations}")
        if self.batch_size < 1:
            raise UsageError(f"batch size must be at least 1, but got {self.batch_size}")


class DissectRun(FolderRun):
    """A `dissect` run: `images` does the pass, `finish` the statistics. Use it as a context manager.

    Args:
        model: the model.
        explainer: its explainer file, or an engine of a training-free method.
        out: folder of results.
        request: what is asked.
        annotations: of parts, or None: filters are grouped only.
        labels: classes of the images; None: those of the annotations, else the model's own answers.
        names: file with the user's own names of filters.
        resume: go on with what the folder holds.
        overwrite: replace what it holds.

    Raises:
        FsagnError: the run cannot be made.
    """

    def __init__(
        self,
        model: Model,
        explainer: str | Path | Engine,
        out: Path,
        request: DissectRequest,
        *,
        annotations: Annotations | None = None,
        labels: Labels | None = None,
        names: Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        super().__init__(model, explainer, annotations, request)
        self.request = request
        asked = FilterRequest.parse(request.filters, self.tapped.metadata).ascending()
        self._names = read_filter_names(names, out)
        decides = asked_decisive(asked) > 0
        self._paths: Iterable[Path] = some_images(request.images)
        self._decisive = None
        if decides:
            self._paths = list(self._paths)  # gone through twice
            self._decisive = find_decisive(self.tapped, self.classes, asked, self._paths, request.batch_size)
        self.filters = asked.ids() if self._decisive is None else self._decisive.filters
        self.grid = self._find_grid()
        self.open_folder(DissectionFolder, out, request, resume=resume, overwrite=overwrite)
        self.folder.open_columns(dissection_columns(len(self.filters), self.grid, parts=annotations is not None))
        self.plan = DissectionPass(
            self.tapped,
            self.classes,
            self.filters,
            request.area,
            annotations,
            labels,
            request.batch_size,
            request.workers,
            self.part_numbers,
        )

    def _find_grid(self) -> tuple[int, int]:
        """The masks' grid, as one pass over a gray picture shows it."""
        spec = self.tapped.spec
        gray = spec.normalise(np.full((1, *spec.size, spec.channels), 128, dtype=np.uint8))
        rank = self.tapped.run(gray, FilterRequest(self.filters[:1])).area_rank
        return (rank.shape[2], rank.shape[3])

    def images(self) -> Iterator[str | Failure]:
        """TappedPass at every image; yields its path or its failure."""
        yield from collect(self.folder, self.plan, self._paths)

    def finish(self, on_stage: Callable[[str], object] = lambda stage: None) -> Dissection:
        """Compute the table and write it.

        Raises:
            ImageError: not a single image could be looked at.
        """
        folder, request = self.folder, self.request
        self.require_rows(request.images, "looked at")
        index = folder.index()
        classes = [self._class_of(line) for line in index]
        on_stage("scoring")
        limits, overall, per_class = score_run(folder, self.grid, len(self.parts), classes)
        place = untrained = None
        sample = self._sample(index)
        with FeatureMaps.of_model(self.model, self.tapped.layer, **request.session) as network:
            maps = list(sample.feature_maps(network))
        if self.annotations is not None:
            on_stage("permutation tests")
            place = place_test(folder, limits, self.grid, len(self.parts), request.permutations, request.seed)
            on_stage("untrained networks")
            untrained = self._untrained(sample, maps)
        on_stage("grouping")
        groups = self._groups(sample, maps, limits)
        strongest = strongest_rows(folder, limits, np.ones(folder.rows, dtype=np.bool_), REFERENCES)
        references = [tuple(index[i]["path"] for i in ids.tolist()) for ids in strongest]
        found = Findings(
            self.filters, self.parts, limits, overall, per_class, place, untrained, groups, references, self._names,
            self._decisive,
        )  # fmt: skip
        on_stage("writing")
        return self._write(found, strongest, sum(1 for line in index if line["annotated"]))

    def _write(self, found: Findings, strongest: Sequence[NDArray[np.int64]], annotated: int) -> Dissection:
        filters, folder = filter_rows(found), self.folder
        moved = None
        if found.place is not None:
            best = np.array([-1 if row.best is None else self.parts.index(row.best) for row in filters])
            moved = instability_difference(folder, found.limits, best, self.grid, self.request.seed)
        figures = summary(found, filters, moved)
        write_tables(folder, filters, self.parts)
        write_coco(folder, filters, strongest, self.grid)
        names = {str(number): self._names.get(number, "") for number in self.filters}
        folder.write(NAMES_FILE, json.dumps(names, indent=1) + "\n")
        results = {
            "grid": list(self.grid),
            "permutations": self.request.permutations,
            "seed": self.request.seed,
            "provider": self.tapped.provider,
            "images": folder.rows,
            "annotated": annotated,
            "summary": figures,
            **folder.failed(),
        }
        dissection = Dissection(folder.path, self.tapped.layer, folder.rows, annotated, self.parts, filters, figures)
        write_dissection_page(folder, dissection, strongest, self.grid)
        folder.write_state("done", results)
        return dissection

    def _class_of(self, line: dict[str, Any]) -> str | None:
        if line["label"] is not None:
            number = self.classes.number(str(line["label"])) if self.classes else None
            return str(line["label"]) if number is None else self.classes.name(number)
        return None if line["predicted"] is None else self.classes.name(line["predicted"])

    def _sample(self, index: Sequence[dict[str, Any]]) -> ImageSample:
        annotated = np.array([line["annotated"] for line in index], dtype=np.bool_)
        usable = annotated if annotated.any() else np.ones(len(index), dtype=np.bool_)
        rows = spread(np.flatnonzero(usable), MAX_SAMPLE)
        return draw_sample([line["path"] for line in index], rows, self.tapped.spec)

    def _untrained(self, sample: ImageSample, maps: Sequence[NDArray[np.float32]]) -> UntrainedTest | None:
        if not len(sample.rows):
            return None
        cells = [part_cells(self.folder, index, len(self.parts)) for index in sample.rows.tolist()]
        request = self.request
        return untrained_test(
            self.model,
            self.tapped.layer,
            self.filters,
            sample,
            maps,
            np.stack(cells).astype(np.float32) / np.float32(255),
            self.grid,
            request.area,
            request.seed,
            **request.session,
        )

    def _groups(self, sample: ImageSample, maps: Sequence[NDArray[np.float32]], limits: NDArray[np.float64]) -> Groups:
        size = self.grid[0] * self.grid[1]
        strong = np.quantile([m.max(axis=(1, 2)) for m in maps], STRONG, axis=0) if maps else np.ones(1)
        similarity = Similarity(len(self.filters), self.tapped.filters, self.grid)
        for number, feature_map in zip(sample.rows.tolist(), maps, strict=True):
            row = row_at(self.folder, number, size)
            similarity.update(row.masks, row.peaks >= limits, feature_map, strong)
        return group(similarity, self.request.groups)


def dissect(
    model: str | Path | Model,
    explainer: str | Path | Engine,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    parts: str | Path | None = None,
    labels: str | Path | None = None,
    overwrite: bool = False,
    **asked: Any,
) -> Dissection:
    """Which object part does each filter of a layer stand for?

    Args:
        model: the model, or its file.
        explainer: its explainer file, or an engine of a training-free method.
        images: files, folders, globs.
        out: folder for the results.
        parts: part annotations, see `open_annotations`.
        labels: classes, see `read_labels`.
        overwrite: replace the results in the folder.
        **asked: further fields of `DissectRequest`.

    Returns:
        The table filters x parts, as `Dissection.load(out)` gives it again.

    Raises:
        FsagnError: something cannot be read or written.

    Example:
        >>> dissection = dissect("model.onnx", "explainer.onnx", "photos", "dissection", filters="0,1,2")
        >>> dissection.layer, dissection.images, [row.filter for row in dissection.filters]
        ('block6', 4, [0, 1, 2])
    """
    named = (images,) if isinstance(images, str | Path) else tuple(images)
    run = DissectRun(
        model if isinstance(model, Model) else load_model(model),
        explainer,
        Path(out),
        DissectRequest(tuple(str(image) for image in named), **asked),
        annotations=None if parts is None else open_annotations(parts),
        labels=None if labels is None else read_labels(str(labels)),
        overwrite=overwrite,
    )
    with run:
        for _ in run.images():
            pass
        return run.finish()
