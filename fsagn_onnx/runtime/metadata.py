"""What an explainer file says about itself: the JSON object under its metadata key `fsagn`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Final

from ..errors import ExplainerError
from ..model.classifier import SCORES
from ..model.input_spec import InputSpec
from ..schema import MAX_ITEMS, Meta, Text, Word, checked, one_of, parse_json, shown, within
from .trust import Trust
from .variant import MOST_FILTERS, Variant

FORMAT: Final = 2
"""The newest format of explainer files that this version reads, and the one that it writes."""

KEY: Final = "fsagn"
"""The metadata key of the ONNX file."""

ENCODERS: Final = ("shared", "own")

QUESTIONS: Final = ("filters", "classes")
"""What an explainer can be asked about; filters always."""

MAX_AREAS: Final = 1000
"""Areas at which retention can be predicted."""

_Area = Annotated[float, Meta(gt=0, le=1)]
AscendingAreas = Annotated[
    tuple[_Area, ...], Meta(max_length=MAX_AREAS, description=f"at most {MAX_AREAS} ascending areas in (0, 1]")
]


@dataclass(frozen=True)
class ClassOutput:
    """Which output of the model says the class, and how: what a client in any language needs to read it.

    Attributes:
        output: name of the output, or None where none classifies.
        scores: what its numbers are, one of `SCORES`.
        count: how many classes there are, where that is known.
        named: the metadata's ``labels`` name them.
        guessed: nothing but the output's form speaks for it.
    """

    output: Word | None
    scores: Annotated[str, one_of(SCORES)]
    count: Annotated[int, within(0, MAX_ITEMS)] | None
    named: bool
    guessed: bool


NO_CLASSES: Final = ClassOutput(None, "none", None, named=False, guessed=False)
"""Of a file that classifies nothing, or does not contain the model."""


@dataclass(frozen=True)
class ExplainerMetadata:
    """The description of an explainer file.

    Attributes:
        format: version of the file's contract, 1..`FORMAT`.
        tool: what wrote the file, for example ``fsagn-onnx 0.1.0``.
        content: hash of the content of the model that the explainer was trained for (`Model.content`); in format 1
            this was called ``model_sha256``.
        layer: name of the tapped value.
        filters: number of filters (channels) of the layer, > 0.
        encoder: ``shared`` (the file contains the model) or ``own`` (it does not).
        input: how an image becomes the model's input.
        labels: names of the model's classes in the order of its output, or None.
        areas: ascending areas in (0, 1] at which the output ``retention`` is predicted.
        objective: ``budget`` or ``fsagn``.
        infills: the infills of the training.
        training: summary of the training.
        quality: measured quality.
        variant: in what the file differs from the plain one; files without the member are plain.
        sha256: of the model's file, where that was known; other files can have the same content.
        classes: how the model's outputs are read; None in format 1, where every reader decides by itself.
        questions: what the file can be asked about, of `QUESTIONS`; with ``classes`` it has the input of that name.
        trust: what was measured on pictures left out of the training; None where nothing was.

    Raises:
        ExplainerError: areas that do not ascend, or a variant that asks for filters that the layer has not.
    """

    format: Annotated[int, within(1, FORMAT)]
    tool: Text
    content: Word
    layer: Word
    filters: Annotated[int, within(1, MOST_FILTERS)]
    encoder: Annotated[str, one_of(ENCODERS)]
    input: InputSpec
    labels: Annotated[tuple[Text, ...], Meta(max_length=MAX_ITEMS, description="a list of texts")] | None
    areas: AscendingAreas
    objective: Text
    infills: Annotated[tuple[Text, ...], Meta(max_length=100, description="a list of at most 100 texts")]
    training: Mapping[str, Any]
    quality: Mapping[str, Any]
    variant: Variant = field(default_factory=Variant)
    sha256: Word | None = None
    classes: ClassOutput | None = None
    questions: Annotated[tuple[Annotated[str, one_of(QUESTIONS)], ...], Meta(max_length=2)] = QUESTIONS[:1]
    trust: Trust | None = None

    def __post_init__(self) -> None:
        """Check what no single member can say."""
        if any(a >= b for a, b in itertools.pairwise(self.areas)):
            raise ExplainerError(f"field 'areas' must be ascending areas in (0, 1], but got {shown(self.areas)}")
        self.variant.check(self.filters)
        if self.trust is not None and len(self.trust.random) != len(self.areas):
            raise ExplainerError(
                f"field 'trust.random' must be as long as 'areas' ({len(self.areas)}), but got {len(self.trust.random)}"
            )

    @property
    def random(self) -> tuple[float, ...] | None:
        """What a random area of each of `areas` keeps; None where that was not measured."""
        return None if self.trust is None else self.trust.random

    @property
    def answers_classes(self) -> bool:
        """Whether the file can be asked about classes."""
        return "classes" in self.questions

    def to_json(self) -> str:
        """The text of the metadata key `fsagn`: one JSON object without NaN."""
        members = {member.name: getattr(self, member.name) for member in fields(self)}
        members["input"], members["variant"] = self.input.to_dict(), self.variant.to_dict()
        members["classes"] = None if self.classes is None else asdict(self.classes)
        members["trust"] = None if self.trust is None else self.trust.to_dict()
        for name in ("training", "quality"):
            members[name] = dict(members[name])
        text = json.dumps(members, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "replace").decode("utf-8")  # a file's name may be no UTF-8

    @classmethod
    def from_json(cls, text: str, source: str = "explainer") -> ExplainerMetadata:
        """Read the metadata key `fsagn`.

        Args:
            text: the JSON object.
            source: what the text comes from, for the messages.

        Raises:
            ExplainerError: the text is no JSON object, its format is newer than `FORMAT`, or a member is missing,
                unknown, of the wrong type or out of range.
        """

        def wrong(said: str) -> ExplainerError:
            return ExplainerError(f"not an explainer: {source}: metadata '{KEY}': {said}; export the explainer again")

        members = parse_json(text, wrong)
        if not isinstance(members, dict):
            raise wrong(f"it must be a JSON object, but got {shown(members)}")
        version = members.get("format")
        if type(version) is int and version > FORMAT:
            raise ExplainerError(
                f"{source} is format {shown(version)}, this fsagn-onnx reads up to {FORMAT}: "
                "upgrade (pip install -U fsagn-onnx)"
            )
        return checked(_of_today(members), cls, wrong)


def _of_today(members: dict[str, Any]) -> dict[str, Any]:
    """Metadata of any format, spelled as today: null in a variant means the default."""
    found = dict(members)
    if found.get("format") == 1 and "content" not in found and "model_sha256" in found:
        found["content"] = found.pop("model_sha256")
    spec, variant, training = (found.get(name) for name in ("input", "variant", "training"))
    if isinstance(variant, dict):
        found["variant"] = {name: value for name, value in variant.items() if value is not None}
    if isinstance(spec, dict) and isinstance(training, dict) and "guessed_input" in training:
        found["input"] = {**spec, "guessed": training["guessed_input"]}
    return found
