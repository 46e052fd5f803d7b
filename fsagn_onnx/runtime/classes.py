"""What a model answers about an image: classes, their probabilities and names. Nothing else reads its outputs so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExplainerError, UsageError
from ..model.class_map import ClassMap
from ..model.classifier import SCORES, SINGLE, Classifier, find_classifier
from ..model.detector import Detector
from ..model.graph_reading import GraphReading, read_graph
from ..model.input_spec import InputSpec
from ..model.model import Model
from .explanation import Prediction
from .metadata import ClassOutput, ExplainerMetadata
from .score_formulas import log_odds_of, probabilities_of

__all__ = ["ANSWERS", "SCORES", "Classes", "classes_in", "classes_of", "classes_of_explainer"]

Outputs = Mapping[str, NDArray[Any]]

ANSWERS: Final = 5
"""Predictions kept per image."""


@dataclass(frozen=True)
class Classes:
    """How the outputs of one model are read.

    One number per image is a decision between two classes: 1 above a probability of .5, else 0. Several labels that
    do not exclude each other each have a probability of their own; the strongest counts as the answer.

    Attributes:
        classifier: which output classifies, and how.
        labels: names of the classes in the order of their numbers, or None. Of a decision: that of class 1, or both.
        detector: how the boxes of a detector are read; None where no layout is recognised.
        class_map: how the map of a segmentation network is read; None where there is none.
        reading: the graph's outputs and what made them.
    """

    classifier: Classifier
    labels: tuple[str, ...] | None = None
    detector: Detector | None = None
    class_map: ClassMap | None = None
    reading: GraphReading | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Whether the model classifies."""
        return self.classifier.output is not None

    @property
    def wanted(self) -> list[str]:
        """The outputs that are read: one, or none."""
        return [] if self.classifier.output is None else [self.classifier.output]

    def chosen(
        self,
        output: str | None = None,
        scores: str | None = None,
        labels: Sequence[str] | None = None,
        detections: str | None = None,
    ) -> Classes:
        """The same model read as the user says; as it is where all four are None.

        Raises:
            UsageError: no such output, it cannot be read so, or has not as many classes as there are names.
        """
        if output is None and scores is None and labels is None and detections is None:
            return self
        names = self.labels if labels is None else tuple(labels)
        if output is None and scores is None and self:
            found = self.classifier
        else:
            found = find_classifier(self.classifier.outputs, names, output=output, scores=scores)
        boxes, segments = self.detector, self.class_map
        if self.reading is not None and (labels is not None or detections is not None):
            boxes = self.reading.boxes(names, detections)
            segments = None if boxes is not None else self.reading.map(names, detections)
        chosen = replace(self, classifier=found, labels=names, detector=boxes, class_map=segments)
        if labels is not None:
            chosen.require_names()
        return chosen

    def require_names(self) -> None:
        """Check that names which the user gave are as many as the classes, where their number is known.

        Raises:
            UsageError: they are not.
        """
        if self.labels and self and self.count is not None and not self.names():
            raise UsageError(
                f"{len(self.labels):,} class names, but output '{self.classifier.output}' has {self.count:,} classes: "
                "give one name for each, in the order of their numbers"
            )

    def part(self, name: str, values: NDArray[Any], images: slice) -> NDArray[Any]:
        """What of an output belongs to some images of a batch: nothing where it does not belong to single images."""
        axis = self.classifier.axis(name)
        if axis is None or axis >= values.ndim:
            return values.ravel()[:0]
        return values[(slice(None),) * axis + (images,)]

    def probabilities(self, outputs: Outputs) -> NDArray[np.float64] | None:
        """Probabilities (N, classes) of N images; None where the model does not classify."""
        name, scores = self.classifier.output, self.classifier.scores
        values = outputs.get(name) if name is not None else None
        if values is None or not np.ndim(values):
            return None
        numbers = values.reshape(len(values), -1).astype(np.float64)
        if not numbers.size:
            return None
        return probabilities_of(numbers, scores)

    def decisions(self, outputs: Outputs) -> NDArray[np.float64] | None:
        """Decision values d_c (N, classes) of N images; None where the model does not classify.

        The log-odds of each class: z_c - log sum exp of the other logits; from probabilities log p_c - log(1 - p_c);
        one logit is that of class 1, and minus that of class 0; several labels have one each. Finite where the
        model's numbers are: a probability of 0 counts as `LEAST`.
        """
        name, scores = self.classifier.output, self.classifier.scores
        values = outputs.get(name) if name is not None else None
        if values is None or not np.ndim(values) or not np.size(values):
            return None
        numbers = values.reshape(len(values), -1).astype(np.float64)
        return log_odds_of(numbers, scores)

    def winners(self, outputs: Outputs) -> NDArray[np.intp] | None:
        """The class of every image, (N,); None where the model does not classify."""
        name, scores = self.classifier.output, self.classifier.scores
        if scores in SINGLE:
            found = self.probabilities(outputs)
            return None if found is None else (found[:, 1] > 0.5).astype(np.intp)
        values = outputs.get(name) if name is not None else None
        return None if values is None or not values.size else values.reshape(len(values), -1).argmax(axis=1)

    def predictions(self, outputs: Outputs, n: int) -> tuple[Prediction, ...]:
        """The strongest classes of image ``n``, best first: at most `ANSWERS`; none where the model has no classes."""
        name = self.classifier.output
        values = outputs.get(name) if name is not None else None
        if name is None or values is None or not np.ndim(values) or n >= len(values):
            return ()
        found = self.probabilities({name: values[n : n + 1]})
        if found is None:
            return ()
        scores = found[0]
        least = np.partition(scores, -ANSWERS)[-ANSWERS] if scores.size > ANSWERS else -np.inf
        best = np.flatnonzero(scores >= least)
        order = best[np.argsort(-scores[best], kind="stable")[:ANSWERS]]
        return tuple(Prediction(int(i), self.label(int(i), scores.size), float(scores[i])) for i in order)

    def heads(self, outputs: Outputs, n: int) -> dict[str, tuple[Prediction, ...]]:
        """The strongest classes of image ``n`` by every one of several outputs that classify equally well."""
        found = {}
        for name, (scores, width) in self.classifier.heads.items():
            one = replace(self, classifier=replace(self.classifier, output=name, scores=scores, width=width))
            if answers := one.predictions(outputs, n):
                found[name] = answers
        return found

    def label(self, number: int, count: int | None = None) -> str | None:
        """The name of a class in the model, or None.

        Args:
            number: of the class.
            count: how many classes the output has; None: as the graph says.
        """
        names = self.names(count)
        return names[number] if 0 <= number < len(names) else None

    def name(self, number: int) -> str:
        """What to call a class: its label, or ``class N``."""
        return self.label(number) or f"class {number}"

    def names(self, count: int | None = None) -> tuple[str, ...]:
        """Labels of all classes; empty where there are none, or as many as belong to something else."""
        labels = self.labels or ()
        if self.classifier.scores in SINGLE:
            return (f"not {labels[0]}", labels[0]) if len(labels) == 1 else labels if len(labels) == 2 else ()
        count = self.classifier.width if count is None else count
        return labels if count is None or count == len(labels) else ()

    def number(self, label: str) -> int | None:
        """The number of a class from its name, from its number as text, or from what `name` calls it; else None."""
        names, text = self.names(), label.strip()
        folded = [name.casefold() for name in names]
        if text.casefold() in folded:
            return folded.index(text.casefold())
        text = text.removeprefix("class ")
        if text.isascii() and text.isdigit() and len(text) < 10 and (self.count is None or int(text) < self.count):
            return int(text)
        return None

    @property
    def decides(self) -> bool:
        """Whether there is a decision to ask about: for a class of the image, of a box, or of places."""
        return bool(self) or self.detector is not None or self.class_map is not None

    @property
    def count(self) -> int | None:
        """How many classes there are, of the image or else of boxes or places, where that is known."""
        if not self:
            found = self.detector or self.class_map
            return found.classes if found is not None else 0
        return 2 if self.classifier.scores in SINGLE else self.classifier.width

    def __str__(self) -> str:
        """In words, as `inspect` prints it."""
        found = self.classifier
        if not self:
            return f"none: {found.reason}" + self._beside()
        count = f"{self.count:,} classes" if self.count is not None else "classes"
        kind = {
            "logits": f"logits of {count}", "probabilities": f"probabilities of {count}",
            "log-probabilities": f"logarithms of probabilities of {count}",
            "labels": f"a probability for each of {count}",
            "logit": "one logit, a decision between 2 classes", "sigmoid": "one probability, of class 1 of 2",
        }[found.scores]  # fmt: skip
        return f"'{found.output}': {kind} ({found.reason}); correct it with --output and --scores" + self._beside()

    def _beside(self) -> str:
        """Boxes or a map, in words."""
        if self.detector is not None:
            names = ", ".join(f"'{name}'" for name in self.detector.roles.values())
            return f"; boxes in {names}: {self.detector.layout} ({self.detector.reason})"
        if self.class_map is not None:
            guess = ", a guess" if self.class_map.guessed else ""
            return f"; a map of classes in '{self.class_map.output}' ({self.class_map.reason}{guess})"
        return ""

    def described(self) -> ClassOutput:
        """What the metadata of an explainer says about it."""
        found = self.classifier
        count = self.count if self else None
        return ClassOutput(found.output, found.scores, count, bool(self) and bool(self.names()), found.guessed)

    def to_dict(self) -> dict[str, Any]:
        """What `inspect` says: strict JSON."""
        found = self.classifier
        return {
            **asdict(self.described()),
            "reason": found.reason,
            "left_out": list(found.left_out),
            "detections": None if self.detector is None else self.detector.layout,
            "segmentation": None if self.class_map is None else self.class_map.output,
            "heads": list(found.heads),
            "outputs": [{"name": o.name, "images_axis": o.axis, "constant": o.constant} for o in found.outputs],
        }


def classes_of(model: Model, output: str | None = None, scores: str | None = None) -> Classes:
    """How a model's outputs are read.

    Raises:
        UsageError: ``output``, ``scores`` or the class names, where the user gives them, do not fit to the model.
    """
    found = classes_in(model.proto, model.input_spec, model.labels).chosen(output, scores)
    if model.named:
        found.require_names()
    return found


def classes_of_explainer(proto: onnx.ModelProto, metadata: ExplainerMetadata, own: Sequence[str]) -> Classes:
    """How the outputs of the model inside an explainer are read: as its metadata says, else as the graph says.

    The metadata has the word of the user who trained it, and from format 2 on the decision made at export.

    Args:
        proto: the explainer's graph; its weights are not read.
        metadata: its description.
        own: names of the outputs that are the explainer's, not the model's.

    Raises:
        ExplainerError: the metadata names an output that cannot be read so.
    """
    outputs = [item.name for item in proto.graph.output if item.name not in own]
    pixels = metadata.variant.preprocessing
    found = classes_in(proto, metadata.input, metadata.labels, outputs=outputs, pixels=pixels)
    if not outputs:
        found = replace(found, classifier=replace(found.classifier, reason="the file does not contain the model"))
    user, file = metadata.training.get("classes"), metadata.classes
    said: tuple[str | None, str | None] = (found.classifier.output, found.classifier.scores)
    if isinstance(user, Mapping):
        said = (user.get("output"), user.get("scores"))
    elif outputs and file is not None and (file.output, file.scores) != said:
        said = (file.output, file.scores)
    else:
        return found
    try:
        return found.chosen(*said)
    except UsageError as error:
        raise ExplainerError(f"metadata 'fsagn': classes: {error}; export the explainer again") from error


def classes_in(
    proto: onnx.ModelProto,
    spec: InputSpec,
    labels: tuple[str, ...] | None,
    *,
    outputs: Sequence[str] | None = None,
    pixels: bool = False,
) -> Classes:
    """How the outputs of a graph are read.

    Args:
        proto: the graph; its weights are not read.
        spec: its image input.
        labels: names of its classes.
        outputs: names of the model's outputs, where the graph has others too.
        pixels: it takes RGB pictures (N, H, W, 3) as they are.
    """
    sample = (*spec.size, spec.channels) if spec.layout == "NHWC" or pixels else (spec.channels, *spec.size)
    reading = read_graph(proto, spec.name, sample, spec.size, outputs)
    boxes = reading.boxes(labels)
    segments = None if boxes is not None else reading.map(labels)
    return Classes(find_classifier(reading.outputs, labels), labels, boxes, segments, reading)
