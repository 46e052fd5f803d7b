"""`perturb`: what happens to the model when the parts that its filters look at are disturbed?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..data.annotations import Annotations, Labels, open_annotations, read_labels
from ..data.images import some_images
from ..dissection.dissection import Dissection
from ..model import Model, load_model
from ..runs.column_folder import PerturbationFolder
from ..runs.folder_run import FolderRun, RunRequest
from ..runs.tables import csv_text, finite, save_parquet
from ..runtime.ablation import Ablation
from ..runtime.engine import Engine
from ..runtime.filter_request import FilterRequest
from ..runtime.session import Session
from ..runtime.stream import Failure
from .disturbances import chosen_kinds
from .effects import ALL, Effect, agreement, collect_groups, control_check, effects, ranking
from .observations import (
    PerturbationPass,
    disturb_images,
    mean_channels,
    perturbation_columns,
    require_classes,
)
from .page import write_perturbation_page
from .perturbation import Perturbation
from .workload import Workload

MEANS_FROM: Final = 64
"""Images that the mean of every channel is taken over."""


@dataclass(frozen=True)
class PerturbRequest(RunRequest):
    """What the user asked `perturb` for; see `RunRequest`.

    Attributes:
        filters: ``decisive:K`` (those that add most to each image's class), ``top:K`` (its strongest), ``all`` or ids;
            ``auto``: ``decisive:3`` where the explainer can be asked about classes, else ``top:3``.
        disturbances: ``all`` or names with commas.
        ablate: switch filters off too.
    """

    filters: str = "auto"
    disturbances: str = ALL
    ablate: bool = True


class PerturbRun(FolderRun):
    """A `perturb` run: `images` does the pass, `finish` the statistics. Use it as a context manager.

    Args:
        model: the model, a classifier.
        explainer: its explainer file, or an engine of a training-free method.
        out: folder of results.
        request: what is asked.
        annotations: of parts, which are disturbed too; or None.
        labels: true classes; None: those of the annotations, else the model's own answers count as true.
        dissection: a `dissect` run of the same model, whose names filters get.
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
        request: PerturbRequest,
        *,
        annotations: Annotations | None = None,
        labels: Labels | None = None,
        dissection: Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        kinds = chosen_kinds(request.disturbances)
        names = _names_of(dissection)
        super().__init__(model, explainer, annotations, request)
        require_classes(model, self.classes)
        if request.filters == "auto":
            request = replace(request, filters="decisive:3" if self.tapped.answers_classes else "top:3")
        self.request, self._names = request, names
        self._paths = list(some_images(request.images))  # once: standard input can be read only once
        filters = FilterRequest.parse(request.filters, self.tapped.metadata).ascending()
        drawn = {"disturbances": list(kinds), "ablate": request.ablate, "seed": request.seed}
        ablation = None
        if request.ablate:
            means = mean_channels(self.tapped, self._paths, MEANS_FROM)
            ablation = Ablation(model, self.tapped.layer, means, self.classes.wanted, **request.session)
        self.open_folder(PerturbationFolder, out, request, resume=resume, overwrite=overwrite, **drawn)
        self.plan = PerturbationPass(
            self.classes,
            self.tapped,
            Session(model.proto, source=str(model.path), **request.session),
            ablation,
            tuple(range(self.tapped.filters)) if request.ablate else (),
            filters,
            request.area,
            kinds,
            annotations,
            labels,
            self.part_numbers,
            request.seed,
            request.workers,
        )
        self.folder.open_columns(perturbation_columns(self.plan))

    def workload(self) -> Workload:
        """How much is left to do."""
        plan, left = self.plan, max(0, len(self._paths) - self.folder.count)
        return Workload(left, len(plan.filters), plan.annotations is not None, len(plan.kinds), len(plan.ablated))

    def images(self) -> Iterator[str | Failure]:
        """Disturb every image; yields its path or its failure."""
        yield from disturb_images(self.folder, self.plan, self._paths)

    def finish(self) -> Perturbation:
        """Compute the effects and write them.

        Raises:
            ImageError: not a single image could be disturbed.
        """
        folder = self.folder
        self.require_rows(self.request.images, "disturbed")
        judged = np.concatenate([rows for _, rows in folder.columns["classes"].slices(folder.rows)])
        classes = [self.classes.name(int(number)) for number in judged[:, 0]]
        groups = collect_groups(folder, len(self.plan.filters), classes)
        cells = effects(groups, self.plan.kinds, self.parts, self.request.seed)
        ablation = self._ablation(classes)
        known = [line["true"] is not None for line in folder.index()]
        accuracy = float((judged[known, 0] == judged[known, 1]).mean()) if any(known) else None
        figures = {
            "control_check": control_check(groups, self.request.seed),
            "agreement": agreement(cells, ablation),
            "classes": {name: classes.count(name) for name in sorted(set(classes))},
        }
        result = Perturbation(
            folder.path,
            self.tapped.layer,
            folder.rows,
            None if accuracy is None else finite(accuracy),
            tuple(cells),
            ranking(cells, "part"),
            ranking(cells, "filter"),
            ablation,
            figures,
            self._names,
        )
        self._write(result)
        return result

    def _ablation(self, classes: Sequence[str]) -> dict[str, dict[int, float]]:
        if not self.plan.ablated:
            return {}
        ids, names = self.plan.ablated, sorted(set(classes))
        sums = {name: np.zeros(len(ids)) for name in (ALL, *names)}
        for start, rows in self.folder.columns["ablation"].slices(self.folder.rows):
            for offset, row in enumerate(rows):
                sums[ALL] += row
                sums[classes[start + offset]] += row
        counts = {ALL: len(classes), **{name: classes.count(name) for name in names}}
        return {
            name: {k: finite(value) or 0.0 for k, value in zip(ids, total / counts[name], strict=True)}
            for name, total in sums.items()
        }

    def _write(self, result: Perturbation) -> None:
        folder = self.folder
        lines = [vars(cell) for cell in result.effects]
        folder.write("effects.jsonl", "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))
        columns = [item.name for item in fields(Effect)]
        folder.write("effects.csv", csv_text(columns, ([line[name] for name in columns] for line in lines)))
        _write_parquet(folder.path / "effects.parquet", result.effects)
        if result.ablation:
            head = ["class", "filter", "name", "drop"]
            rows = [
                [name, k, result.names.get(k, ""), drop]
                for name, row in result.ablation.items()
                for k, drop in row.items()
            ]
            folder.write("ablation.csv", csv_text(head, rows))
        results = {
            "provider": self.tapped.provider,
            "images": result.images,
            "accuracy": result.accuracy,
            "names": {str(k): name for k, name in result.names.items()},
            "part_ranking": result.parts,
            "filter_ranking": result.filters,
            "summary": result.summary,
            **folder.failed(),
        }
        write_perturbation_page(folder, result, self.plan.kinds)
        folder.write_state("done", results)

    def close(self) -> None:
        """Close the folder and free the sessions."""
        super().close()
        self.plan.answers.close()
        if self.plan.ablation is not None:
            self.plan.ablation.close()


def perturb(
    model: str | Path | Model,
    explainer: str | Path | Engine,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    parts: str | Path | None = None,
    labels: str | Path | None = None,
    dissection: str | Path | None = None,
    overwrite: bool = False,
    **asked: Any,
) -> Perturbation:
    """What happens to a classifier when the areas that its filters look at are disturbed?

    Args:
        model: the model, or its file.
        explainer: its explainer file, or an engine of a training-free method.
        images: files, folders, globs.
        out: folder for the results.
        parts: part annotations, see `open_annotations`; they are disturbed too.
        labels: true classes, see `read_labels`.
        dissection: folder of a `dissect` run, whose names filters get.
        overwrite: replace the results in the folder.
        **asked: further fields of `PerturbRequest`.

    Returns:
        The effects on score, decision and accuracy.

    Raises:
        FsagnError: something cannot be read or written, or the model is no classifier.

    Example:
        >>> few = {"filters": "top:1", "disturbances": "blur", "ablate": False}
        >>> found = perturb("model.onnx", "explainer.onnx", "photos", "perturbation", **few)
        >>> found.layer, found.images
        ('block6', 4)
    """
    named = (images,) if isinstance(images, str | Path) else tuple(images)
    run = PerturbRun(
        model if isinstance(model, Model) else load_model(model),
        explainer,
        Path(out),
        PerturbRequest(tuple(str(image) for image in named), **asked),
        annotations=None if parts is None else open_annotations(parts),
        labels=None if labels is None else read_labels(str(labels)),
        dissection=None if dissection is None else Path(dissection),
        overwrite=overwrite,
    )
    with run:
        for _ in run.images():
            pass
        return run.finish()


def _names_of(dissection: Path | None) -> dict[int, str]:
    if dissection is None:
        return {}
    named = {row.filter: row.name or row.part for row in Dissection.load(dissection).filters}
    return {number: name for number, name in named.items() if name}


def _write_parquet(path: Path, cells: Sequence[Effect]) -> None:
    import pyarrow as arrow

    columns: dict[str, Any] = {
        item.name: [getattr(cell, item.name) for cell in cells] for item in fields(Effect) if item.name != "region"
    }
    columns["filter"] = arrow.array([c.region if c.kind == "filter" else None for c in cells], arrow.int64())
    columns["part"] = arrow.array([c.region if c.kind == "part" else None for c in cells], arrow.string())
    save_parquet(path, columns)
