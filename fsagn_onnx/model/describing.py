"""What the file says about its own input and labels, and what has to be guessed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .preprocess import InputSpec
from .reading import ValueInfo

__all__ = ["image_input", "input_spec", "labels_of", "read_preprocess"]

FLOATS = frozenset({"float32", "float16", "float64", "bfloat16"})
IMAGE_CHANNELS = (3, 1, 4)
GUESSED_SIZE = 224
IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Mean of ImageNet's pixels, RGB in 0..255 (torchvision's .485 .456 .406)."""
IMAGENET_STD = (58.395, 57.12, 57.375)
MAX_METADATA = 4 * 2**20
"""Characters of a metadata entry that is parsed."""


def image_input(inputs: Sequence[ValueInfo]) -> ValueInfo:
    """The first input that can be an image: 4-D, floating point, 1, 3, 4 or an unknown number of channels.

    Raises:
        ModelError: there is none; the message lists what there is.
    """
    for item in inputs:
        if item.dtype in FLOATS and item.shape is not None and len(item.shape) == 4 and _layout(item.shape):
            return item
    listed = ", ".join(f"'{item.name}' {item.dtype} {_words(item.shape)}" for item in inputs) or "none"
    raise ModelError(f"no image input: expected a 4-D float input with 1 or 3 channels, but got {listed}")


def _words(shape: Sequence[int | str | None] | None) -> str:
    return "of unknown rank" if shape is None else f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _layout(shape: Sequence[int | str | None]) -> str | None:
    """NCHW or NHWC by the place of a dimension of 3, 1 or 4; NCHW if all are dynamic; None: no image."""
    for count in IMAGE_CHANNELS:
        if shape[1] == count:
            return "NCHW"
        if shape[3] == count:
            return "NHWC"
    if not isinstance(shape[1], int):
        return "NCHW"
    return None if isinstance(shape[3], int) else "NHWC"


def _objects(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object that describes a plain model (`fsagn_model`) or, failing that, an explainer."""
    for key in ("fsagn_model", "fsagn"):
        if key in metadata:
            try:
                described = json.loads(metadata[key][:MAX_METADATA])
            except json.JSONDecodeError as error:
                raise ModelError(f"metadata entry '{key}' is not JSON: {error}") from error
            if not isinstance(described, dict):
                raise ModelError(f"metadata entry '{key}' must be a JSON object, but is a {type(described).__name__}")
            return described
    return {}


def labels_of(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Class names: `labels` of our metadata, Ultralytics' `names`, or a plain `labels` or `classes` list."""
    labels = _objects(metadata).get("labels")
    if labels is not None:
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ModelError("metadata field 'labels' must be a list of texts or null")
        return tuple(labels)
    for key in ("names", "labels", "classes"):
        found = _label_list(_literal(metadata.get(key, "")))
        if found:
            return found
    return None


def _literal(text: str) -> object:
    """JSON or a Python literal; None if it is neither or too long."""
    if not text or len(text) > MAX_METADATA:
        return None
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _label_list(found: object) -> tuple[str, ...] | None:
    if isinstance(found, dict):
        try:
            numbered = {int(key): name for key, name in found.items()}
        except (TypeError, ValueError):
            return None
        if sorted(numbered) != list(range(len(numbered))):
            return None
        found = [numbered[index] for index in range(len(numbered))]
    if isinstance(found, (list, tuple)) and all(isinstance(name, (str, int, float)) for name in found):
        return tuple(str(name) for name in found)
    return None


def read_preprocess(path: Path) -> dict[str, Any]:
    """Read a `--preprocess` file: a JSON object with some or all fields of the input spec.

    Raises:
        ModelError: the file cannot be read or is not a JSON object.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"preprocess file {path} cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"preprocess file {path} is not JSON: {error}") from error
    if not isinstance(described, dict):
        raise ModelError(f"preprocess file {path} must be a JSON object, but is a {type(described).__name__}")
    return described


def input_spec(
    inputs: Sequence[ValueInfo], metadata: Mapping[str, str], override: Mapping[str, Any] | InputSpec | None
) -> InputSpec:
    """The input spec: the user's fields over the metadata's over guesses; `guessed` lists the last.

    Args:
        inputs: The graph's inputs.
        metadata: The file's metadata.
        override: Fields of the user (`--preprocess`), or a whole spec.

    Raises:
        ModelError: no image input; a field is wrong or contradicts the graph.
    """
    if isinstance(override, InputSpec):
        _agrees(override, inputs)
        return override
    described = _objects(metadata).get("input", {})
    if not isinstance(described, dict):
        raise ModelError("metadata field 'input' must be a JSON object")
    described = {**described, **(override or {})}
    named = [item for item in inputs if item.name == described.get("name")]
    image = named[0] if named else image_input(inputs)
    full, guessed = _completed(described, image, metadata)
    spec = InputSpec.from_dict(full, guessed=guessed)
    _agrees(spec, inputs)
    return spec


def _completed(
    described: Mapping[str, Any], image: ValueInfo, metadata: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fill the fields that are not described with guesses, and say so (where the graph leaves a choice)."""
    full = dict(described)
    guessed: list[str] = []
    for guess in (_guess_place, _guess_ultralytics, _guess_imagenet):
        for field, value, words in guess(full, image, metadata):
            if field not in full:
                full[field] = value
                guessed += [words] if words else []
    return full, tuple(guessed)


def _guess_place(
    full: Mapping[str, Any], image: ValueInfo, metadata: Mapping[str, str]
) -> Iterator[tuple[str, object, str]]:
    """Name, layout, size and color order, by the shape of the input."""
    shape = image.shape if image.shape is not None and len(image.shape) == 4 else (None, None, None, None)
    certain = any(count in (shape[1], shape[3]) for count in IMAGE_CHANNELS)
    layout = full.get("layout", _layout(shape) or "NCHW")
    yield "name", image.name, ""
    yield "layout", layout, "" if certain else f"layout {layout} (the shape of the input does not say it)"
    channels, sides = (shape[3], shape[1:3]) if layout == "NHWC" else (shape[1], shape[2:4])
    static = [side if isinstance(side, int) and side > 0 else None for side in sides]
    stored = _literal(metadata.get("imgsz", ""))
    if None in static and isinstance(stored, list) and len(stored) == 2:
        yield "size", stored, ""
    size = [side or next((other for other in static if other), GUESSED_SIZE) for side in static]
    yield "size", size, f"size {size[0]}x{size[1]} (that of the input is dynamic)" if None in static else ""
    yield "color", *(("GRAY", "") if channels == 1 else ("RGB", "color order RGB"))


def _guess_ultralytics(
    full: Mapping[str, Any], image: ValueInfo, metadata: Mapping[str, str]
) -> Iterator[tuple[str, object, str]]:
    """What models of that exporter expect: pixels / 255, letterboxed (cropped for classification)."""
    if metadata.get("author") == "Ultralytics":
        resize = "crop:1.0" if metadata.get("task") == "classify" else "letterbox:114"
        yield "scale", 1 / 255, "scale 1/255 (Ultralytics)"
        yield "mean", 0.0, "mean 0 (Ultralytics)"
        yield "std", 1.0, "standard deviation 1 (Ultralytics)"
        yield "resize", resize, f"resize {resize} (Ultralytics)"


def _guess_imagenet(
    full: Mapping[str, Any], image: ValueInfo, metadata: Mapping[str, str]
) -> Iterator[tuple[str, object, str]]:
    """ImageNet's mean and standard deviation in the units of the scale, and stretching."""
    yield "scale", 1.0, ""
    scale = full["scale"] if isinstance(full["scale"], (int, float)) else 1.0
    for field, words, rgb in (
        ("mean", "mean of ImageNet", IMAGENET_MEAN),
        ("std", "standard deviation of ImageNet", IMAGENET_STD),
    ):
        ordered = {"GRAY": (sum(rgb) / 3,), "BGR": rgb[::-1]}.get(full["color"], rgb)
        yield field, [number * scale for number in ordered], words
    yield "resize", "stretch", "resize by stretching"


def _agrees(spec: InputSpec, inputs: Sequence[ValueInfo]) -> None:
    """Compare a spec with the graph's input."""
    item = next((item for item in inputs if item.name == spec.name), None)
    if item is None:
        known = ", ".join(f"'{entry.name}'" for entry in inputs)
        raise ModelError(f"input spec: field 'name' is '{spec.name}', but the inputs are {known}")
    if item.dtype not in FLOATS:
        raise ModelError(f"the image input '{item.name}' must be of floating point, but is {item.dtype}")
    if item.shape is None:
        return
    if len(item.shape) != 4:
        raise ModelError(f"the image input '{item.name}' must be 4-D, but is {_words(item.shape)}")
    if item.shape[1 if spec.layout == "NCHW" else 3] == 4:
        raise ModelError(f"the image input '{item.name}' {_words(item.shape)} has 4 channels; expected 1 or 3")
    order = (spec.channels, *spec.size) if spec.layout == "NCHW" else (*spec.size, spec.channels)
    fields = ("color", "size", "size") if spec.layout == "NCHW" else ("size", "size", "color")
    for field, wanted, found in zip(fields, order, item.shape[1:], strict=True):
        if isinstance(found, int) and found != wanted:
            raise ModelError(
                f"input spec: field '{field}' gives {spec.layout} (N, {', '.join(map(str, order))}), but "
                f"the input '{item.name}' is {_words(item.shape)}; "
                "give color, layout and size with --preprocess"
            )
