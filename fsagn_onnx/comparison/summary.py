"""What two runs say about the same things, as numbers per image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from ..data.store import Store
from ..dissection.dissection import Dissection
from ..dissection.observations import dissection_columns, unpack
from ..dissection.scores import Floats
from ..errors import OutputError, UsageError
from ..explanations.parts import dataset_rows
from ..explanations.rows import COLUMNS, lines_of
from ..perturbation.effects import Effect
from ..runs.reader import FinishedRun
from ..schema import Meta

MAX_IMAGES: Final = 4000
"""Images of a `dissect` run that are compared, evenly spaced: keeps memory flat."""

NEVER: Final = ("among the strongest", "answers")
HANGS: Final = "hangs on filter "
"""Shares of images: what is not noted at all never happened."""

Key = tuple[str, str]
"""(what, of what), for example ``("area", "filter 17")``."""


class PredictionEntry(msgspec.Struct):
    """A prediction of a line of explanations.jsonl."""

    index: int
    label: str | None
    score: float


class FilterEntry(msgspec.Struct):
    """An explained filter of a line of explanations.jsonl."""

    id: int
    peak: float
    area: float | None
    retention: dict[str, float | None]
    centroid: tuple[float, float] | None
    contribution: float | None = None
    share: float | None = None


class EvidenceEntry(msgspec.Struct):
    """What a decision rests on, in a line of explanations.jsonl."""

    index: int = msgspec.field(name="class")
    label: str | None
    decision: float
    area: float | None
    centroid: tuple[float, float] | None


class ExplanationLine(msgspec.Struct):
    """What is read of a line of explanations.jsonl."""

    path: str
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    predictions: list[PredictionEntry]
    filters: list[FilterEntry]
    evidence: list[EvidenceEntry] = []


@dataclass
class RunSummary:
    """What a run says.

    Attributes:
        kind: of the run.
        about: things that must agree: layer, number of filters, parts.
        values: (what, of) -> image -> number.
        places: filter -> image -> (x, y) of its mask, in shares of the image's width and height.
        parts: filter -> the part that it was given, or None.
        effects: (what, of) -> (value, standard error), of runs that hold no numbers per image.
        images: number of images.
    """

    kind: str
    about: dict[str, Any]
    values: dict[Key, dict[str, float]] = field(default_factory=dict)
    places: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)
    parts: dict[str, str | None] = field(default_factory=dict)
    effects: dict[Key, tuple[float, float]] = field(default_factory=dict)
    images: int = 0

    def add(self, what: str, of: str, image: str, value: float | None) -> None:
        """Note a number."""
        if value is not None and np.isfinite(value):
            self.values.setdefault((what, of), {})[image] = float(value)

    def shares(self, key: Key) -> dict[str, float]:
        """The numbers of a key; 0 for every image where a share was never noted because it never happened."""
        if key in self.values or (key[0] not in NEVER and not key[0].startswith(HANGS)):
            return self.values.get(key, {})
        if key[0].startswith(HANGS):
            return {image: 0.0 for image, is_it in self.values.get(("answers", key[1]), {}).items() if is_it}
        return {image: 0.0 for (what, _), values in self.values.items() if what in NEVER for image in values}


def summarise(folder: Path) -> RunSummary:
    """Read a finished run of `explain`, `dissect` or `perturb`.

    Raises:
        OutputError: no such run, an unfinished one, or a damaged one.
        UsageError: its kind cannot be compared.
    """
    run = FinishedRun(folder)
    readers = {"explain": _explained, "dissect": _dissected, "perturb": _perturbed}
    if run.kind not in readers:
        raise UsageError(f"{folder} holds a run of '{run.kind}'; expected explain, dissect or perturb")
    try:
        return readers[run.kind](run)
    except (KeyError, TypeError, ValueError) as error:
        raise OutputError(f"{folder} is damaged ({type(error).__name__}: {error}): run it again") from error


def _image(path: str) -> str:
    """What an image is called in both runs: its file name and folder, whatever lies above."""
    return "/".join(PurePath(path.replace("\\", "/")).parts[-2:])


def _spread(count: int) -> list[int]:
    """Rows that are compared, of so many."""
    places: list[int] = np.unique(np.linspace(0, count - 1, min(count, MAX_IMAGES)).astype(int)).tolist()
    return places


def _explained(run: FinishedRun) -> RunSummary:
    manifest = run.manifest
    about = {"layer": manifest["layer"], "number of filters": manifest["filters_of_layer"]}
    found = RunSummary("explain", {**about, "the filters asked for": manifest["arguments"]["filters"]})
    found.about["the depths of the evidence"] = manifest.get("evidence_depths")
    shown: dict[str, tuple[str | None, dict[int, float]]] = {}
    for line in _explained_lines(run):
        image = _image(line["path"])
        answers = line["predictions"]
        answer = None if not answers else answers[0]["label"] or f"class {answers[0]['index']}"
        if answers:
            found.add("certainty", "all images", image, answers[0]["score"])
        shown[image] = answer, _weights(line["filters"])
        _rested(found, image, line)
        for item in line["filters"]:
            of = f"filter {item['id']}"
            found.add("peak", of, image, item["peak"])
            found.add("area", of, image, item["area"])
            retention = item["retention"].get("measured")
            found.add("retention", of, image, item["retention"].get("predicted") if retention is None else retention)
            if item["centroid"] is not None:
                x, y = item["centroid"]
                found.places.setdefault(of, {})[image] = (x / line["width"], y / line["height"])
    classes = sorted({answer for answer, _ in shown.values() if answer is not None})
    filters = sorted({number for _, numbers in shown.values() for number in numbers})
    for image, (answer, numbers) in shown.items():
        for name in classes:
            found.add("answers", name, image, float(answer == name))
        for number in filters:
            found.add("among the strongest", f"filter {number}", image, float(number in numbers))
            if answer is not None:
                found.add(f"{HANGS}{number}", answer, image, numbers.get(number, 0.0))
    found.images = len(shown)
    return found


def _explained_lines(run: FinishedRun) -> Iterator[dict[str, Any]]:
    """The lines of a run of `explain`, or its rows where it has a dataset instead."""
    if run.manifest.get("dataset") is None:
        return run.lines("explanations.jsonl", ExplanationLine)
    return lines_of(dataset_rows(Store(run.path), [name for name in COLUMNS if name not in ("mask", "details")]))


def _weights(filters: list[dict[str, Any]]) -> dict[int, float]:
    """Active filters of an image -> their share of the support for its class; 1 where none was told."""
    weights = {}
    for item in filters:
        if item["peak"] > 0:
            contribution = item.get("contribution")
            weights[item["id"]] = 1.0 if contribution is None else (item.get("share") or 0.0) * (contribution > 0)
    return weights


def _rested(found: RunSummary, image: str, line: dict[str, Any]) -> None:
    """What the decisions rested on in an image: size and place of the evidence for each class asked about."""
    for item in line.get("evidence", ()):
        name = item["label"] or f"class {item['class']}"
        found.add("log-odds", name, image, item["decision"])
        found.add("evidence area", name, image, item["area"])
        if item["centroid"] is not None:
            x, y = item["centroid"]
            found.places.setdefault(f"evidence for {name}", {})[image] = (x / line["width"], y / line["height"])


def _dissected(run: FinishedRun) -> RunSummary:
    dissection, manifest = Dissection.load(run.path), run.manifest
    rows = dissection.filters
    about = {
        "layer": dissection.layer,
        "number of filters": len(rows),
        "parts": list(dissection.parts),
        "area": manifest["area"],
    }
    found = RunSummary("dissect", about)
    found.parts = {f"filter {row.filter}": row.part for row in rows}
    count, (h, w) = len(run.index), manifest["grid"]
    specs = dissection_columns(len(rows), (h, w), parts=run.has_column("part_cells"))
    peaks, masks = run.column("peaks", specs["peaks"]), run.column("masks", specs["masks"])
    limits = np.array([np.inf if row.threshold is None else row.threshold for row in rows])
    cell_rows, cell_columns = np.divmod(np.arange(h * w), w)
    for n in _spread(count):
        image, active = _image(run.index[n]["path"]), peaks[n] >= limits
        kept = unpack(np.asarray(masks[n]), h * w).astype(np.float64)
        total = np.maximum(kept.sum(axis=1), 1)
        x, y = kept @ (cell_columns + 0.5) / total / w, kept @ (cell_rows + 0.5) / total / h
        label = run.index[n]["label"]
        for k, row in enumerate(rows):
            of = f"filter {row.filter}"
            found.add("active", of, image, float(active[k]))
            found.add("peak", of, image, float(peaks[n, k]))
            if label is not None:
                found.add(f"answers to class {label}", of, image, float(active[k]))
            if active[k]:
                found.places.setdefault(of, {})[image] = (float(x[k]), float(y[k]))
    if "part_cells" in specs and count:
        covered = run.column("part_ids", specs["part_ids"]), run.column("part_cells", specs["part_cells"])
        _follow_parts(found, run, dissection, covered, peaks >= limits, masks)
    found.images = count
    return found


def _follow_parts(
    found: RunSummary, run: FinishedRun, dissection: Dissection, parts: tuple[Any, Any], active: Any, masks: Any
) -> None:
    """IoU of every filter with each part that any filter stands for, per image in which it is active."""
    ids, covered = parts
    count, cells = len(run.index), covered.shape[-1]
    for n in _spread(count):
        image = _image(run.index[n]["path"])
        part = np.asarray(covered[n][ids[n] >= 0], dtype=np.float64) / 255
        kept = unpack(np.asarray(masks[n]), cells).astype(np.float64)
        inter = kept @ part.T
        iou = inter / np.maximum(kept.sum(axis=1)[:, None] + part.sum(axis=1)[None] - inter, 1e-9)
        for place, number in enumerate(ids[n][ids[n] >= 0].tolist()):
            for k in np.flatnonzero(active[n]).tolist():
                of = f"filter {dissection.filters[k].filter}"
                found.add(f"follows {dissection.parts[number]}", of, image, float(iou[k, place]))


def _perturbed(run: FinishedRun) -> RunSummary:
    manifest = run.manifest
    about = {"layer": manifest["layer"], "disturbances": manifest["disturbances"], "parts": manifest["parts"]}
    found = RunSummary("perturb", about, images=manifest["images"])
    for line in run.lines("effects.jsonl", Effect):
        if line["disturbance"] == "all":
            region = line["region"] if line["kind"] == "part" else f"filter {line['region']}"
            error = (line["high"] - line["low"]) / (2 * 1.96)
            found.effects[(f"hangs on {region}", line["label"])] = (line["effect"], error)
    return found


def arrays(values: Mapping[str, float], images: list[str]) -> Floats:
    """Numbers of images, in their order."""
    return np.array([values[image] for image in images], dtype=np.float64)
