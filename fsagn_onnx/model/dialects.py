"""What other programs write about a model's preprocessing, in the words of our own input spec.

Read are: timm (`pretrained_cfg`, `data_config`, its `config.json`), Hugging Face (`preprocessor_config.json`), Paddle
(`inference.yml` of PaddleClas and PaddleX, `infer_cfg.yml` of PaddleDetection), Ultralytics' metadata, and ONNX's own
metadata keys for images (onnx/docs/MetadataProps.md). Nothing is trusted: what has the wrong form is left out, and
the spec's own checks follow.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["FIELDS", "MAX_METADATA", "described_by", "labels_in", "literal", "of_metadata"]

Fields = dict[str, Any]

FIELDS = frozenset({"name", "layout", "color", "size", "scale", "mean", "std", "resize"})
"""The fields of the input spec."""
MAX_METADATA = 4 * 2**20
"""Characters of a metadata entry that is parsed."""
GRAY_PAD = 114
"""Ultralytics' gray of letterbox borders."""
PIXEL_FORMATS = {"Gray8": "GRAY", "Rgb8": "RGB", "Bgr8": "BGR", "Rgba8": "RGBA", "Bgra8": "BGRA"}
PIXEL_RANGES = {
    "NominalRange_0_255": (1.0, 0.0, 1.0),
    "Normalized_0_1": (1 / 255, 0.0, 1.0),
    "Normalized_1_1": (1 / 255, 0.5, 0.5),
}
"""ONNX's names of pixel ranges -> scale, mean, std."""


def literal(text: str) -> object:
    """JSON or a Python literal; None if it is neither or too long."""
    if not text or len(text) > MAX_METADATA:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def of_metadata(metadata: Mapping[str, str]) -> tuple[Fields, str]:
    """What the metadata of an ONNX file says of its input in a foreign dialect, and whose dialect that is."""
    if metadata.get("author") == "Ultralytics":
        return _ultralytics(metadata), "Ultralytics"
    for key, text in metadata.items():
        found = literal(text) if text.lstrip().startswith("{") else None
        if isinstance(found, dict):
            fields, source = described_by({key: found}) if key.lower() == "preprocess" else described_by(found)
            if fields:
                return fields, source
    parsed = {key: literal(text) for key, text in metadata.items() if len(text) < 1000}
    fields, source = described_by({key: metadata[key] if value is None else value for key, value in parsed.items()})
    return (fields, source) if fields else (_onnx_image(metadata), "ONNX image metadata")


def described_by(found: Mapping[str, Any]) -> tuple[Fields, str]:
    """Fields of the input spec out of a foreign description, and whose it is; no fields where it is none."""
    for key in ("pretrained_cfg", "default_cfg", "data_config"):
        if isinstance(found.get(key), dict):
            return _timm(found[key]), "timm"
    if "image_mean" in found or "image_processor_type" in found:
        return _hugging_face(found), "Hugging Face"
    for key in ("PreProcess", "Preprocess", "preprocess"):
        if isinstance(found.get(key), (dict, list)):
            return _paddle(found[key]), "Paddle"
    fields = _timm(found)
    return (fields, "timm") if fields else ({}, "")


def labels_in(found: Mapping[str, Any]) -> object:
    """The class names in a foreign description, in whatever form; None where there are none."""
    for key in ("label_names", "id2label", "label_list"):
        if isinstance(found.get(key), (list, dict)):
            return found[key]
    after = found.get("PostProcess")
    for step in after.values() if isinstance(after, dict) else ():
        if isinstance(step, dict) and isinstance(step.get("label_list"), list):
            return step["label_list"]
    return None


def _numbers(found: object) -> list[float] | None:
    """A list of numbers (or one), None for anything else."""
    numbers = [
        float(number)
        for number in (found if isinstance(found, (list, tuple)) else [found])
        if isinstance(number, (int, float)) and not isinstance(number, bool)
    ]
    whole = len(numbers) == (len(found) if isinstance(found, (list, tuple)) else 1)
    return numbers if numbers and whole else None


def _side(found: object) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _size(found: object) -> list[int] | None:
    """[height, width] out of a number, a pair, or an object with height and width; of three the last two."""
    if isinstance(found, Mapping):
        found = [found.get("height"), found.get("width")]
    listed = [found, found] if _side(found) else list(found)[-2:] if isinstance(found, (list, tuple)) else []
    sides = [side for side in map(_side, listed) if side]
    return sides if len(sides) == 2 else None


def _kept(**fields: object) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


def _normalised(scale: float, mean: object, std: object) -> Fields:
    """Mean and std in units of pixel * scale, one number or one for each channel."""
    found = {"mean": _numbers(mean), "std": _numbers(std)}
    kept = {name: numbers[0] if len(numbers) == 1 else numbers for name, numbers in found.items() if numbers}
    return {"scale": scale} | kept


def _crop(shown: float | None) -> str | None:
    return None if shown is None else f"crop:{shown:.6g}" if 0 < shown < 1 else "crop:1"


def _timm(found: Mapping[str, Any]) -> Fields:
    """timm/data/config.py: pixels in 0..1, mean and std per channel, crop_pct of the resized short side."""
    if "mean" not in found or "std" not in found or not {"input_size", "crop_pct", "interpolation"} & set(found):
        return {}
    shown = _numbers(found.get("crop_pct"))
    mode = found.get("crop_mode", "center")
    resize = _crop(shown[0]) if shown else None
    if mode == "squash" and (not shown or shown[0] >= 1):
        resize = "stretch"
    elif mode == "border":
        resize = "letterbox:0"
    size = _size(found.get("input_size"))
    channels = found["input_size"][0] if isinstance(found.get("input_size"), (list, tuple)) else 3
    color = "RGB" if channels == 3 else None
    return _kept(color=color, size=size, resize=resize) | _normalised(1 / 255, found["mean"], found["std"])


def _hugging_face(found: Mapping[str, Any]) -> Fields:
    """Transformers' image processors: rescale, normalise, resize (the short side, or both), centre crop."""
    size, cropped = found.get("size"), _size(found.get("crop_size"))
    short = size.get("shortest_edge") if isinstance(size, Mapping) else _side(size)
    whole = _size(size) if isinstance(size, (Mapping, list)) and not short else None
    resize = "stretch" if whole else None
    if found.get("do_center_crop", cropped is not None) and cropped and (_side(short) or whole):
        resize = _crop(min(cropped) / (_side(short) or min(whole or cropped)))
        whole = cropped
    factor = _numbers(found.get("rescale_factor", 1 / 255))
    scale = factor[0] if factor and found.get("do_rescale", True) is not False else 1.0
    plain = found.get("do_normalize", True) is False
    mean, std = (0.0, 1.0) if plain else (found.get("image_mean"), found.get("image_std"))
    return _kept(color="RGB", size=whole, resize=resize) | _normalised(scale, mean, std)


def _steps(found: object) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """(name, arguments) of Paddle's preprocessing operators, in either of its forms."""
    listed = found.get("transform_ops") if isinstance(found, Mapping) else found
    for step in listed if isinstance(listed, list) else ():
        if isinstance(step, Mapping) and isinstance(step.get("type"), str):
            yield step["type"], step
        elif isinstance(step, Mapping) and step:
            name, arguments = next(iter(step.items()))
            yield str(name), arguments if isinstance(arguments, Mapping) else {}


def _paddle(found: object) -> Fields:
    """Decode (BGR unless told), resize (short side, or both), crop, normalise: (pixel * scale - mean) / std."""
    fields: Fields = {"color": "BGR"} if isinstance(found, Mapping) else {"color": "RGB"}  # PaddleDetection reads RGB
    short: int | None = None
    for name, step in _steps(found):
        if name in ("DecodeImage", "Decode", "ReadImage"):
            rgb = step.get("to_rgb") is True or str(step.get("img_mode", step.get("format", ""))).upper() == "RGB"
            fields["color"] = "RGB" if rgb else "BGR"
        elif name in ("ResizeImage", "Resize", "ResizeByShort"):
            short = _side(step.get("resize_short", step.get("target_short_edge")))
            size = _size(step.get("size", step.get("target_size")))
            kept = step.get("keep_ratio") is True
            fields |= _kept(size=size, resize=None if size is None else "letterbox:0" if kept else "stretch")
        elif name in ("CropImage", "Crop"):
            size = _size(step.get("size", step.get("crop_size")))
            shown = min(size) / short if size and short else None
            fields |= _kept(size=size, resize=_crop(shown))
        elif name in ("NormalizeImage", "Normalize"):
            fields |= _paddle_normalise(step)
    return fields


def _paddle_normalise(step: Mapping[str, Any]) -> Fields:
    scale = literal(step["scale"]) if isinstance(step.get("scale"), str) else step.get("scale")
    if isinstance(step.get("scale"), str) and step["scale"].replace(" ", "") in (
        "1/255",
        "1./255",
        "1./255.",
        "1.0/255.0",
    ):
        scale = 1 / 255
    factor = _numbers(scale) if scale is not None else None
    default = 1 / 255 if step.get("is_scale", True) is not False else 1.0
    plain = step.get("norm_type") == "none"
    mean, std = (0.0, 1.0) if plain else (step.get("mean"), step.get("std"))
    return _normalised(factor[0] if factor else default, mean, std)


def _ultralytics(metadata: Mapping[str, str]) -> Fields:
    """Ultralytics: RGB / 255, letterboxed; classifiers get the centred square."""
    classify = metadata.get("task") == "classify"
    channels = literal(metadata.get("channels", "3"))
    return _kept(
        color="RGB" if channels == 3 else None,
        size=_size(literal(metadata.get("imgsz", ""))),
        scale=1 / 255,
        mean=0.0,
        std=1.0,
        resize="crop:1" if classify else f"letterbox:{GRAY_PAD}",
    )


def _onnx_image(metadata: Mapping[str, str]) -> Fields:
    """onnx/docs/MetadataProps.md: Image.BitmapPixelFormat and Image.NominalPixelRange."""
    scale, mean, std = PIXEL_RANGES.get(metadata.get("Image.NominalPixelRange", ""), (None, None, None))
    color = PIXEL_FORMATS.get(metadata.get("Image.BitmapPixelFormat", ""))
    return _kept(color=color, scale=scale, mean=mean, std=std)
