"""What workers need for `dissect` and for `perturb`: the run's own pass, opened again in another process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..dissection.observations import DissectionPass, observed_rows
from ..dissection.run import DissectRun
from ..model import Model, load_model
from ..perturbation.observations import PerturbationPass, disturbed_row
from ..perturbation.run import PerturbRun
from ..runs.column_folder import ColumnSpec
from ..runs.folder_run import RunRequest
from ..runs.tapped_explainer import TappedExplainer
from ..runtime.ablation import Ablation
from ..runtime.classes import Classes
from ..runtime.session import Session
from ..runtime.stream import Failure
from .cluster import Cluster
from .observations import ObservationWriter, observe
from .work import Luggage

PERTURBED_AT_ONCE = 4
"""Pictures that `perturb` decodes ahead; it looks at them one by one."""


@dataclass(frozen=True)
class PassJob:
    """What every worker is told; it travels to other machines, with model and explainer.

    Attributes:
        model: file of the model.
        reading: how it is read, see `load_model`.
        explainer: its explainer file.
        request: what is asked for.
        told: members of the pass that do not hang on sessions.
        means: of the layer's channels, for `perturb` that switches filters off.
        columns: of the run.
        where: folder of the run.
        luggage: the files that are named.
    """

    model: Path
    reading: Mapping[str, Any]
    explainer: Path
    request: RunRequest
    told: Mapping[str, Any]
    columns: Mapping[str, ColumnSpec]
    where: str
    means: Any = None
    luggage: Luggage = field(default_factory=Luggage)

    def shipped(self) -> PassJob:
        """The same with its files."""
        paths = [self.model, self.explainer, *(value for value in self.reading.values() if isinstance(value, Path))]
        return replace(self, luggage=Luggage.packed(paths))

    def open(self, folder: Path, threads: int | None) -> tuple[Model, TappedExplainer, Classes, dict[str, Any]]:
        """Model, explainer, how outputs are read, and the options of sessions.

        Raises:
            FsagnError: one cannot be opened.
        """
        reading: dict[str, Any] = {
            name: self.luggage.here(value, folder) if isinstance(value, Path) else value
            for name, value in self.reading.items()
        }
        model = load_model(self.luggage.here(self.model, folder), **reading)
        session = {**self.request.session, "threads": self.request.session.get("threads") or threads}
        tapped = TappedExplainer(model, self.luggage.here(self.explainer, folder), **session)
        return model, tapped, tapped.classes.chosen(self.request.output, self.request.scores), session


def dissect_by_workers(
    run: DissectRun, explainer: Path, reading: Mapping[str, Any], cluster: Cluster
) -> Iterator[str | Failure]:
    """`DissectRun.images` by the workers of a cluster.

    Args:
        run: opened; its `finish` comes after.
        explainer: its explainer file.
        reading: how its model is read, see `load_model`.
        cluster: where.

    Raises:
        FsagnError: the run cannot go on.
    """
    plan = run.plan
    told = {name: getattr(plan, name) for name in ("filters", "area", "annotations", "labels", "batch_size",
                                                   "part_numbers")}  # fmt: skip
    job = _job(run, explainer, reading, run.request, told)
    threads = None if cluster.gpus else 1

    def opening() -> ObservationWriter:
        files = tempfile.TemporaryDirectory()
        _, tapped, classes, _ = job.open(Path(files.name), threads)
        there = DissectionPass(tapped, classes, **job.told)
        writer = ObservationWriter(
            lambda batch: observed_rows(there, batch), tapped.spec, there.batch_size, job.columns, job.where
        )
        writer.files = files
        return writer

    yield from observe(run.folder, run.request.images, opening, cluster, plan.batch_size, job.columns)


def perturb_by_workers(
    run: PerturbRun, explainer: Path, reading: Mapping[str, Any], cluster: Cluster
) -> Iterator[str | Failure]:
    """`PerturbRun.images` by the workers of a cluster; arguments as for `dissect_by_workers`.

    Raises:
        FsagnError: the run cannot go on.
    """
    plan = run.plan
    told = {name: getattr(plan, name) for name in ("ablated", "filters", "area", "kinds", "annotations", "labels",
                                                   "part_numbers", "seed")}  # fmt: skip
    means = None if plan.ablation is None else plan.ablation.means
    job = replace(_job(run, explainer, reading, run.request, told), means=means)
    threads = None if cluster.gpus else 1

    def opening() -> ObservationWriter:
        files = tempfile.TemporaryDirectory()
        model, tapped, classes, session = job.open(Path(files.name), threads)
        ablation = None
        if job.means is not None:
            ablation = Ablation(model, tapped.layer, job.means, classes.wanted, **session)
        answers = Session(model.proto, source=str(model.path), **session)
        there = PerturbationPass(classes, tapped, answers, ablation, **job.told)
        writer = ObservationWriter(
            lambda batch: [disturbed_row(there, item) for item in batch],
            tapped.spec, PERTURBED_AT_ONCE, job.columns, job.where,
        )  # fmt: skip
        writer.files = files
        return writer

    yield from observe(run.folder, run.request.images, opening, cluster, PERTURBED_AT_ONCE, job.columns)


def _job(
    run: DissectRun | PerturbRun,
    explainer: Path,
    reading: Mapping[str, Any],
    request: RunRequest,
    told: Mapping[str, Any],
) -> PassJob:
    columns = {name: (column.dtype.str, column.shape) for name, column in run.folder.columns.items()}
    return PassJob(run.model.path, dict(reading), explainer, request, told, columns, str(run.folder.path)).shipped()
