"""The pass of `perturb`: disturb filters' areas and annotated parts in every image, and switch filters off."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..data.annotations import Annotations, Labels
from ..data.annotations.parts import cell_coverage, largest
from ..dissection.observations import MAX_PARTS
from ..errors import AnnotationError, FsagnError, ModelError
from ..model import Model
from ..runs.column_folder import ColumnFolder, ColumnSpec
from ..runs.tapped_explainer import TappedExplainer
from ..runtime.ablation import Ablation
from ..runtime.classes import Classes
from ..runtime.filter_request import FilterRequest
from ..runtime.masks import pixel_mask
from ..runtime.session import Session
from ..runtime.stream import DECODERS, Failure, Prepared, named_images, ordered_map, prepare
from ..runtime.variant import FILL
from .disturbances import LEVELS, REGIONS, disturbed

FEWEST_PIXELS: Final = 4
_BATCH: Final = 32


@dataclass(frozen=True)
class PerturbationPass:
    """What is disturbed.

    Attributes:
        classes: how the model's outputs are read.
        tapped: gives masks and feature maps.
        answers: session of the whole model.
        ablation: switches filters off; None leaves it out.
        ablated: filters that are switched off.
        filters: to disturb.
        area: of the filters' masks.
        kinds: disturbances.
        annotations: of parts, or None.
        labels: of classes, or None: the model's own answer counts as true.
        part_numbers: part name -> number.
        seed: of everything that is drawn.
        workers: images at the same time.
    """

    classes: Classes
    tapped: TappedExplainer
    answers: Session
    ablation: Ablation | None
    ablated: tuple[int, ...]
    filters: FilterRequest
    area: float
    kinds: tuple[str, ...]
    annotations: Annotations | None = None
    labels: Labels | None = None
    part_numbers: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    workers: int = 1

    @property
    def regions(self) -> int:
        """Places of a row: the filters, then annotated parts."""
        return len(self.filters) + (MAX_PARTS if self.annotations is not None else 0)


def perturbation_columns(plan: PerturbationPass) -> dict[str, ColumnSpec]:
    """The columns of a `perturb` run: type and shape of a row by name."""
    shape = (plan.regions, len(plan.kinds), LEVELS, len(REGIONS))
    specs: dict[str, ColumnSpec] = {
        "ids": ("i4", (plan.regions,)),
        "drops": ("f4", shape),
        "winners": ("i4", shape),
        "base": ("f4", (1,)),
        "classes": ("i4", (2,)),
    }
    if plan.ablated:
        specs |= {"ablation": ("f4", (len(plan.ablated),)), "ablation_winners": ("i4", (len(plan.ablated),))}
    return specs


def disturb_images(
    folder: ColumnFolder, plan: PerturbationPass, images: Iterable[str | Path]
) -> Iterator[str | Failure]:
    """Disturb the images that the folder does not hold yet, and write a row for each; yields paths and failures."""
    named = named_images(images)
    folder.require_same_images(islice(named, folder.count))
    spec = plan.tapped.spec
    prepared = ordered_map(lambda item: prepare(item, spec), named, DECODERS, 4)
    try:
        for line, row in ordered_map(lambda item: disturbed_row(plan, item), prepared, plan.workers, plan.workers):
            folder.append([(line, row)])
            error = line.get("error")
            yield line["path"] if error is None else Failure(line["path"], error)
    finally:
        prepared.close()


def class_number(classes: Classes, label: str | None) -> int | None:
    """Number of a class, from its name or number.

    Raises:
        AnnotationError: the model has no such class.
    """
    if label is None:
        return None
    number = classes.number(label)
    if number is None:
        known = ", ".join(classes.names()[:12]) or f"none, {classes.count or 'some'} classes"
        raise AnnotationError(f"the model has no class '{label}'; its labels: {known}")
    return number


def require_classes(model: Model, classes: Classes) -> None:
    """Refuse a model that does not classify.

    Raises:
        ModelError: saying why it does not.
    """
    if not classes:
        raise ModelError(f"{model.path}: perturb needs a classifier: {classes.classifier.reason}")


def disturbed_row(plan: PerturbationPass, item: Prepared | Failure) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Line of the index and row of the columns of an image; None: it failed."""
    if isinstance(item, Failure):
        return {"path": item.path, "error": item.message}, None
    try:
        return _measured(plan, item)
    except AnnotationError as error:
        return {"path": item.name, "error": f"{item.name}: {error}"}, None


def _measured(plan: PerturbationPass, item: Prepared) -> tuple[dict[str, Any], dict[str, Any]]:
    batch = item.values[None]
    found = None if plan.annotations is None else plan.annotations.find(item.name)
    label = None if plan.labels is None else plan.labels.find(item.name)
    true = class_number(plan.classes, label if label is not None else found.label if found else None)
    base = _probabilities(plan, batch)[0]
    predicted = int(base.argmax())
    judged = predicted if true is None else true
    if judged >= len(base):
        raise AnnotationError(f"class {judged} is none of the model's {len(base)}")
    regions, feature_map = _regions(plan, item, batch)
    ids = np.full(plan.regions, -1, dtype=np.int32)
    shape = (len(ids), len(plan.kinds), LEVELS, len(REGIONS))
    drops, winners = np.zeros(shape, dtype=np.float32), np.full(shape, -1, dtype=np.int32)
    rng = np.random.default_rng([plan.seed, zlib.crc32(Path(item.name).name.encode("utf-8", "surrogatepass"))])
    for slot, (number, mask) in regions.items():
        ids[slot] = number
        pictures = disturbed(item.pixels, mask, plan.kinds, rng)
        scores = _answers(plan, pictures.reshape(-1, *item.pixels.shape))
        drops[slot] = (base[judged] - scores[:, judged]).reshape(shape[1:])
        winners[slot] = scores.argmax(axis=1).reshape(shape[1:])
    row: dict[str, Any] = {
        "ids": ids, "drops": drops, "winners": winners, "base": base[judged], "classes": [judged, predicted],
    }  # fmt: skip
    if plan.ablation is not None:
        switched = _known(plan.classes.probabilities(plan.ablation.run(batch, feature_map, plan.ablated)))
        row |= {"ablation": base[judged] - switched[:, judged], "ablation_winners": switched.argmax(axis=1)}
    return {"path": item.name, "label": label, "predicted": predicted, "true": true}, row


def _regions(
    plan: PerturbationPass, item: Prepared, batch: NDArray[np.float32]
) -> tuple[dict[int, tuple[int, NDArray[np.bool_]]], NDArray[np.float32]]:
    """Slot -> (id, mask) of what is disturbed in an image, and the feature map."""
    size = plan.tapped.spec.size
    seen = plan.tapped.run(batch, plan.filters)
    feature_map = seen.feature_map[0]
    regions: dict[int, tuple[int, NDArray[np.bool_]]] = {}
    for slot, (k, rank) in enumerate(zip(seen.filter_ids[0].tolist(), seen.area_rank[0], strict=True)):
        if k != FILL and feature_map[k].max() > 0:
            regions[slot] = (k, pixel_mask(rank, plan.area, size))
    found = None if plan.annotations is None else plan.annotations.find(item.name)
    parts = {} if found is None else largest(found.masks(item.geometry.original), MAX_PARTS)
    for place, (name, (pixels, _)) in enumerate(parts.items()):
        mask = cell_coverage(pixels[None], item.geometry, size)[0] >= 0.5
        if mask.sum() >= FEWEST_PIXELS:
            regions[len(plan.filters) + place] = (plan.part_numbers[name], mask)
    return regions, feature_map


def _probabilities(plan: PerturbationPass, batch: NDArray[np.float32]) -> NDArray[np.float64]:
    return _known(plan.classes.probabilities(plan.answers.run(plan.classes.wanted, {plan.tapped.spec.name: batch})))


def _known(found: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if found is None:
        raise ModelError("the output that classifies came without a single number")
    return found


def _answers(plan: PerturbationPass, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    spec = plan.tapped.spec
    step = plan.answers.batch or _BATCH
    scores = []
    for start in range(0, len(pictures), step):
        scores.append(_probabilities(plan, spec.normalise(pictures[start : start + step])))
    return np.concatenate(scores)


def mean_channels(tapped: TappedExplainer, images: Iterable[str | Path], count: int) -> NDArray[np.float64]:
    """Mean of every channel of the layer over the first readable images, (C,).

    Raises:
        FsagnError: none of the images can be read.
    """
    sums, seen = np.zeros(tapped.filters), 0
    for named in islice(named_images(images), count):
        item = prepare(named, tapped.spec)
        if isinstance(item, Prepared):
            sums += tapped.run(item.values[None], FilterRequest((FILL,))).feature_map[0].mean(axis=(1, 2))
            seen += 1
    if not seen:
        raise FsagnError("none of the first images can be read; check the paths")
    return np.asarray(sums / seen)
