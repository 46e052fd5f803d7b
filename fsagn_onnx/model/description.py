"""What the file, or a file beside it, says about its own input and labels."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..errors import ModelError
from .dialects import FIELDS, MAX_METADATA, described_by, labels_in, literal, of_metadata
from .guesses import completed, layout_of
from .input_spec import MAX_PIXELS, InputSpec
from .onnx_file import Shape, ValueInfo

__all__ = [
    "image_input", "input_spec", "labels_in_any", "labels_of", "parsed_yaml", "preprocess_labels", "read_preprocess",
]  # fmt: skip

FLOATS = frozenset({"float32", "float16", "float64", "bfloat16"})
INTEGERS = frozenset({"uint8", "int8", "uint16", "int16", "int32"})
"""Types of whole numbers that an image input may have."""
MAX_PREPROCESS_BYTES = 2**20
"""Largest `--preprocess` file."""


def image_input(inputs: Sequence[ValueInfo], name: str | None = None) -> ValueInfo:
    """The input that is the image: the named one, else the first that can be one (those of floats come first).

    That is a 4-D input of 1, 3, 4 or an unknown number of channels.

    Raises:
        ModelError: there is none; the message lists what there is.
    """
    if name is not None:
        found = next((item for item in inputs if item.name == name), None)
        if found is None:
            raise ModelError(f"no input '{name}'; {_nearest(name, [item.name for item in inputs])}")
        return found
    for dtypes in (FLOATS, INTEGERS):
        for item in inputs:
            if item.dtype in dtypes and item.shape is not None and len(item.shape) == 4 and layout_of(item.shape):
                return item
    listed = ", ".join(f"'{item.name}' {item.dtype} {_words(item.shape)}" for item in inputs[:20]) or "none"
    raise ModelError(
        "no image input: expected a 4-D input of floats or 8-bit pixels with 1, 3 or 4 channels, "
        f"but got {listed}; name it with --input"
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    if not known:
        return "the graph has no inputs"
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
    return f"nearest: {', '.join(repr(item) for item in nearest)}"


def _words(shape: Shape | None) -> str:
    return "of unknown rank" if shape is None else f"({', '.join('?' if d is None else str(d) for d in shape)})"


def _objects(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object that describes a plain model (`fsagn_model`) or, failing that, an explainer."""
    for key in ("fsagn_model", "fsagn"):
        if key in metadata:
            try:
                described = json.loads(metadata[key][:MAX_METADATA])
            except (json.JSONDecodeError, RecursionError) as error:
                raise ModelError(f"metadata entry '{key}' is not JSON: {error}") from error
            if not isinstance(described, dict):
                raise ModelError(f"metadata entry '{key}' must be a JSON object, but is a {type(described).__name__}")
            return described
    return {}


def labels_of(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Class names: `labels` of our metadata, Ultralytics' `names`, a plain `labels` or `classes` list.

    Also those in a description of timm or Hugging Face, and `character` of Paddle's exports, one on each line.

    Raises:
        ModelError: the labels in the metadata are damaged.
    """
    labels = _objects(metadata).get("labels")
    if labels is not None:
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ModelError("metadata field 'labels' must be a list of texts or null")
        return tuple(labels)
    for key in ("names", "labels", "classes", "label_names", "id2label"):
        found = _label_list(literal(metadata.get(key, "")))
        if found:
            return found
    for text in metadata.values():
        described = literal(text) if text.lstrip().startswith("{") else None
        found = _label_list(labels_in(described)) if isinstance(described, dict) else None
        if found:
            return found
    lines = metadata.get("character", "")[:MAX_METADATA].splitlines()
    return tuple(lines) or None


def labels_in_any(found: object) -> tuple[str, ...] | None:
    """Class names out of whatever a file holds: a list, number -> name, name -> number, or an object with one inside.

    Args:
        found: what a JSON or YAML file held.

    Returns:
        The names in the order of their numbers; None where there are none.
    """
    names = _label_list(found)
    if names or not isinstance(found, dict):
        return names or None
    numbers = list(found.values())
    if all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        return (
            _label_list({number: name for name, number in found.items()}) if len(set(numbers)) == len(numbers) else None
        )
    for key in ("labels", "names", "classes", "class_names"):
        inner = found.get(key)
        if isinstance(inner, list | dict):
            return labels_in_any(inner)
    return _label_list(labels_in(found))


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


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "imagenet": {"color": "RGB", "scale": 1.0, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
    "0..1": {"scale": 1 / 255, "mean": 0.0, "std": 1.0},
    "0..255": {"scale": 1.0, "mean": 0.0, "std": 1.0},
    "-1..1": {"scale": 1.0, "mean": 127.5, "std": 127.5},
    "caffe-bgr": {"color": "BGR", "scale": 1.0, "mean": [103.939, 116.779, 123.68], "std": 1.0},
    "timm-inception": {"color": "RGB", "scale": 1.0, "mean": 127.5, "std": 127.5},
}
"""Preprocessings that many networks share: name -> fields of the input spec."""


def read_preprocess(path: Path) -> dict[str, Any]:
    """Read a `--preprocess` file: fields of the input spec, or what another program writes (see `dialects`).

    The name of one of the `PRESETS` is good too, where there is no file of that name. Class names that the file holds
    are read by `preprocess_labels`.

    Args:
        path: A JSON object, or YAML (`.yml`, `.yaml`; needs PyYAML).

    Returns:
        Fields of the input spec.

    Raises:
        ModelError: the file cannot be read, or is not an object.
    """
    if str(path) in PRESETS and not path.exists():
        return dict(PRESETS[str(path)])
    described = _preprocess_file(path)
    if isinstance(described.get("input"), dict):
        return dict(described["input"])
    fields = {key: value for key, value in described.items() if key != "labels"}
    if fields.keys() <= FIELDS:
        return fields
    return described_by(described)[0] or fields


def preprocess_labels(path: Path) -> tuple[str, ...] | None:
    """The class names in a `--preprocess` file: its `labels`, or those of a foreign description; None without.

    Raises:
        ModelError: the file cannot be read, or its `labels` are no list of names.
    """
    if str(path) in PRESETS and not path.exists():
        return None
    described = _preprocess_file(path)
    if described.get("labels") is None:
        return _label_list(labels_in(described))
    names = labels_in_any(described["labels"])
    if names is None:
        raise ModelError(f"preprocess file {path}: 'labels' must be a list of names, or an object from number to name")
    return names


def _preprocess_file(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"preprocess file {path} is no regular file")
        if path.stat().st_size > MAX_PREPROCESS_BYTES:
            raise ModelError(f"preprocess file {path} has more than {MAX_PREPROCESS_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        described = parsed_yaml(path, text) if path.suffix.lower() in (".yml", ".yaml") else json.loads(text)
    except OSError as error:
        raise ModelError(f"preprocess file {path} cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"preprocess file {path} is not JSON: {error}") from error
    if not isinstance(described, dict):
        raise ModelError(f"preprocess file {path} must be a JSON object, but is a {type(described).__name__}")
    return described


def parsed_yaml(path: Path, text: str) -> object:
    """The content of a YAML file, read safely; needs PyYAML.

    Raises:
        ModelError: PyYAML is missing, or the text is no YAML.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ModelError(f"{path} is YAML, which needs 'pip install pyyaml'; or write JSON") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from error


def input_spec(
    inputs: Sequence[ValueInfo],
    metadata: Mapping[str, str],
    override: Mapping[str, Any] | InputSpec | None,
    *,
    graph: onnx.GraphProto | None = None,
    image: str | None = None,
) -> InputSpec:
    """The input spec: the user's fields over the metadata's over guesses; `guessed` lists the last.

    Args:
        inputs: The graph's inputs.
        metadata: The file's metadata.
        override: Fields of the user (`--preprocess`), or a whole spec.
        graph: The graph, whose first nodes may tell in which range it wants its pixels.
        image: Name of the image input (`--input`).

    Raises:
        ModelError: no image input; a field is wrong or contradicts the graph.
    """
    if isinstance(override, InputSpec):
        _agrees(override, inputs)
        return override
    own = _objects(metadata).get("input", {})
    if not isinstance(own, dict):
        raise ModelError("metadata field 'input' must be a JSON object")
    described = {**(own or of_metadata(metadata)[0]), **(override or {})}
    if image is not None:
        described["name"] = image
    named = next((item for item in inputs if item.name == described.get("name")), None)
    found = named or image_input(inputs, image)
    full, guessed = completed(_fitting(described, own, override or {}, found), found, graph)
    spec = InputSpec.from_dict(full, guessed=guessed)
    _agrees(spec, inputs)
    return spec


def _fitting(
    described: Mapping[str, Any], own: Mapping[str, Any], override: Mapping[str, Any], image: ValueInfo
) -> dict[str, Any]:
    """Leave out what a foreign description says against the graph: another size, means for other channels."""
    said = own.keys() | override.keys() | {"name"}
    kept = dict(described)
    shape = image.shape if image.shape is not None and len(image.shape) == 4 else (None,) * 4
    layout = kept.get("layout", layout_of(shape) or "NCHW")
    channels, sides = (shape[3], shape[1:3]) if layout == "NHWC" else (shape[1], shape[2:4])
    if "size" in kept and "size" not in said and not _fits(kept["size"], sides):
        del kept["size"]
    if isinstance(channels, int):
        if "color" not in said and channels != 3:
            kept.pop("color", None)
        for field in ("mean", "std"):
            if field not in said and isinstance(kept.get(field), list) and len(kept[field]) not in (1, channels):
                del kept[field]
    return kept


def _fits(size: Iterable[int], sides: Iterable[int | str | None]) -> bool:
    return all(not isinstance(side, int) or side == wanted for wanted, side in zip(size, sides, strict=True))


def _agrees(spec: InputSpec, inputs: Sequence[ValueInfo]) -> None:
    """Compare a spec with the graph's input."""
    item = next((item for item in inputs if item.name == spec.name), None)
    if item is None:
        known = [entry.name for entry in inputs]
        raise ModelError(f"input spec: field 'name' is '{spec.name}', but the inputs are {', '.join(map(repr, known))}")
    if item.dtype not in FLOATS | INTEGERS:
        raise ModelError(f"the image input '{item.name}' must be of floats or 8-bit pixels, but is {item.dtype}")
    if item.dtype in INTEGERS:
        _whole(spec, item)
    if item.shape is None:
        return
    if len(item.shape) != 4:
        raise ModelError(f"the image input '{item.name}' must be 4-D, but is {_words(item.shape)}")
    batch = item.shape[0]
    if isinstance(batch, int) and batch * spec.size[0] * spec.size[1] > MAX_PIXELS:
        raise ModelError(
            f"the image input '{item.name}' has a fixed batch of {batch} images of {spec.size[0]} x {spec.size[1]}, "
            f"expected at most {MAX_PIXELS} pixels; export the model with a smaller or a dynamic batch"
        )
    order = spec.sample_shape
    fields = ("color", "size", "size") if spec.layout == "NCHW" else ("size", "size", "color")
    for field, wanted, found in zip(fields, order, item.shape[1:], strict=True):
        if isinstance(found, int) and found != wanted:
            raise ModelError(
                f"input spec: field '{field}' gives {spec.layout} (N, {', '.join(map(str, order))}), but "
                f"the input '{item.name}' is {_words(item.shape)}; "
                "give color, layout and size with --preprocess"
            )


def _whole(spec: InputSpec, item: ValueInfo) -> None:
    """An input of whole numbers gets whole numbers of its own range."""
    limits = np.iinfo(item.dtype)
    ends = spec.normalise(np.array([[[0] * spec.channels, [255] * spec.channels]], dtype=np.uint8))
    step = spec.scale / np.asarray(spec.std)
    if ends.min() < limits.min or ends.max() > limits.max or not np.allclose(step, np.rint(step)):
        raise ModelError(
            f"the image input '{item.name}' is {item.dtype}, but (pixel * scale - mean) / std gives "
            f"{ends.min():g} to {ends.max():g} in steps of {step.min():g}; give scale 1, mean 0 and std 1"
        )
