"""What an explainer file says about itself: the JSON object under its metadata key `fsagn`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

from ..errors import ExplainerError, FsagnError
from ..model.input_spec import InputSpec
from .variant import Variant

FORMAT: Final = 1
"""The newest format of explainer files that this version reads, and the one that it writes."""

KEY: Final = "fsagn"
"""The metadata key of the ONNX file."""

MAX_FILTERS: Final = 2**20
"""More filters than any layer has; what is made for each is made only then."""

ENCODERS: Final = ("shared", "own")

T = TypeVar("T")


@dataclass(frozen=True)
class ExplainerMetadata:
    """The description of an explainer file.

    Attributes:
        format: version of the file's contract, 1..`FORMAT`.
        tool: what wrote the file, for example ``fsagn-onnx 0.1.0``.
        model_sha256: content hash of the model that the explainer was trained for (`Model.sha256`).
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
    """

    format: int
    tool: str
    model_sha256: str
    layer: str
    filters: int
    encoder: str
    input: InputSpec
    labels: tuple[str, ...] | None
    areas: tuple[float, ...]
    objective: str
    infills: tuple[str, ...]
    training: Mapping[str, Any]
    quality: Mapping[str, Any]
    variant: Variant = field(default_factory=Variant)

    def to_json(self) -> str:
        """The text of the metadata key `fsagn`: one JSON object without NaN."""
        members = {member.name: getattr(self, member.name) for member in fields(self)}
        members["input"], members["variant"] = self.input.to_dict(), self.variant.to_dict()
        for name in ("training", "quality"):
            members[name] = dict(members[name])
        return json.dumps(members, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "explainer") -> ExplainerMetadata:
        """Read the metadata key `fsagn`.

        Args:
            text: the JSON object.
            source: what the text comes from, for the messages.

        Raises:
            ExplainerError: the text is no JSON object, its format is newer than `FORMAT`, or a member is missing,
                unknown, or of the wrong type.
        """
        members = _json_object(text, source)
        _check_format(members, source)
        known = {member.name for member in fields(cls)}
        if missing := sorted(known - {"variant"} - members.keys()):
            raise ExplainerError(f"not an explainer: {source}: metadata '{KEY}' lacks {', '.join(missing)}")
        if unknown := sorted(members.keys() - known):
            raise ExplainerError(f"not an explainer: {source}: metadata '{KEY}' has the unknown {', '.join(unknown)}")
        member = _Member(members, source)
        try:
            spec = InputSpec.from_dict(member("input", dict, "an object"), guessed=_guessed(members))
        except ExplainerError:
            raise
        except (FsagnError, KeyError, TypeError, ValueError) as error:
            raise ExplainerError(f"{source}: metadata '{KEY}': input: {error}") from error
        labels = None if members["labels"] is None else member.texts("labels")
        return cls(
            format=members["format"],
            tool=member("tool", str, "a text"),
            model_sha256=member("model_sha256", str, "a text", lambda value: len(value) > 0),
            layer=member("layer", str, "a value name", lambda value: len(value) > 0),
            filters=member("filters", int, f"a number in 1..{MAX_FILTERS}", lambda value: 0 < value <= MAX_FILTERS),
            encoder=member("encoder", str, " or ".join(ENCODERS), lambda value: value in ENCODERS),
            input=spec,
            labels=labels,
            areas=member.areas(),
            objective=member("objective", str, "a text"),
            infills=member.texts("infills"),
            training=member("training", dict, "an object"),
            quality=member("quality", dict, "an object"),
            variant=_variant(members, source),
        )


def _guessed(members: Mapping[str, Any]) -> tuple[str, ...]:
    """What was guessed of the input when the explainer was trained, as its training's summary says."""
    training = members.get("training")
    words = training.get("guessed_input") if isinstance(training, dict) else None
    return tuple(str(word)[:200] for word in words[:20]) if isinstance(words, list) else ()


def _variant(members: dict[str, Any], source: str) -> Variant:
    value = members.get("variant", {})
    if not isinstance(value, dict):
        raise ExplainerError(f"{source}: metadata '{KEY}': variant must be an object, but is {value!r:.60}")
    return Variant.from_dict(value, source, members["filters"])


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _json_object(text: str, source: str) -> dict[str, Any]:
    try:
        members = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ExplainerError(
            f"{source}: metadata '{KEY}' is broken JSON ({error}); export the explainer again"
        ) from error
    if not isinstance(members, dict):
        raise ExplainerError(
            f"not an explainer: {source}: metadata '{KEY}' must be a JSON object, but is {type(members).__name__}"
        )
    return members


def _check_format(members: dict[str, Any], source: str) -> None:
    if "format" not in members:
        raise ExplainerError(f"not an explainer: {source}: metadata '{KEY}' lacks format")
    version = members["format"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ExplainerError(f"{source}: format must be a number from 1, but is {version!r}")
    if version > FORMAT:
        raise ExplainerError(
            f"{source} is format {version}, this fsagn-onnx reads up to {FORMAT}: upgrade (pip install -U fsagn-onnx)"
        )


class _Member:
    """Typed access to the members of the metadata object; every mistake is an ExplainerError."""

    def __init__(self, members: dict[str, Any], source: str) -> None:
        self._members = members
        self._source = source

    def _error(self, name: str, expected: str, value: object) -> ExplainerError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return ExplainerError(f"{self._source}: metadata '{KEY}': {name} must be {expected}, but is {shown}")

    def __call__(self, name: str, kind: type[T], expected: str, holds: Callable[[T], bool] = lambda value: True) -> T:
        value = self._members[name]
        if not isinstance(value, kind) or isinstance(value, bool) or not holds(value):
            raise self._error(name, expected, value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._members[name]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._error(name, "a list of texts", value)
        return tuple(value)

    def areas(self) -> tuple[float, ...]:
        value = self._members["areas"]
        numbers = isinstance(value, list) and all(
            isinstance(area, int | float) and not isinstance(area, bool) and 0 < area <= 1 for area in value
        )
        if not numbers or any(a >= b for a, b in itertools.pairwise(value)):
            raise self._error("areas", "an ascending list of areas in (0, 1]", value)
        return tuple(float(area) for area in value)
