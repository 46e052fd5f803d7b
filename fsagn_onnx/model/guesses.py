"""What has to be guessed of a model's input where nothing describes it; each guess says so in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx

from .input_spec import CHANNELS
from .onnx_file import Shape, ValueInfo
from .own_normalisation import own_range

__all__ = ["IMAGE_CHANNELS", "completed", "layout_of"]

IMAGE_CHANNELS = (3, 1, 4)
GUESSED_SIZE = 224
TEXT_LINES = {32: 320, 48: 320, 64: 256}
"""Heights of networks that read a line of text, whose width is open -> the width of a line."""
IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""Mean of ImageNet's pixels, RGB in 0..255 (torchvision's .485 .456 .406)."""
IMAGENET_STD = (58.395, 57.12, 57.375)

Guess = tuple[str, object, str]
"""(field, value, words); no words: not really a guess."""


def layout_of(shape: Shape) -> str | None:
    """NCHW or NHWC by the place of a dimension of 3, 1 or 4; NCHW if all are dynamic; None: no image.

    Where only the last dimension is open, it may be the channels of NHWC. Two open ones behind another number are the
    sides of another network's maps.
    """
    for count in IMAGE_CHANNELS:
        if shape[1] == count:
            return "NCHW"
        if shape[3] == count:
            return "NHWC"
    if not isinstance(shape[1], int):
        return "NCHW"
    return None if isinstance(shape[3], int) or not isinstance(shape[2], int) else "NHWC"


def completed(
    described: Mapping[str, Any], image: ValueInfo, graph: onnx.GraphProto | None = None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fill the fields that are not described with guesses.

    Args:
        described: What is known of the input spec.
        image: The image input.
        graph: The graph, whose first nodes may tell in which range it wants its pixels.

    Returns:
        All fields, and the guesses in words (where the file leaves a choice).
    """
    full = dict(described)
    guessed: list[str] = []
    for guess in (_place(full, image), _range(full, image, graph), _imagenet(full)):
        for field, value, words in guess:
            if field not in full:
                full[field] = value
                guessed += [words] if words else []
    return full, tuple(guessed)


def _place(full: Mapping[str, Any], image: ValueInfo) -> Iterator[Guess]:
    """Name, layout, size and color order, by the shape of the input."""
    shape = image.shape if image.shape is not None and len(image.shape) == 4 else (None, None, None, None)
    certain = any(count in (shape[1], shape[3]) for count in IMAGE_CHANNELS)
    layout = full.get("layout", layout_of(shape) or "NCHW")
    yield "name", image.name, ""
    yield "layout", layout, "" if certain else f"layout {layout} (the shape of the input does not say it)"
    channels, sides = (shape[3], shape[1:3]) if layout == "NHWC" else (shape[1], shape[2:4])
    static = [side if isinstance(side, int) and side > 0 else None for side in sides]
    size = [side or next((other for other in static if other), GUESSED_SIZE) for side in static]
    if static[0] in TEXT_LINES and static[1] is None:
        size[1] = TEXT_LINES[static[0]]
    yield "size", size, f"size {size[0]}x{size[1]} (that of the input is dynamic)" if None in static else ""
    if channels == 1:
        yield "color", "GRAY", ""
    elif channels == 4:
        yield "color", "RGBA", "color order RGBA, alpha opaque"
    else:
        yield "color", "RGB", "color order RGB"


def _range(full: Mapping[str, Any], image: ValueInfo, graph: onnx.GraphProto | None) -> Iterator[Guess]:
    """Whole numbers take pixels as they are; so does a graph that begins with a normalisation of its own."""
    if image.dtype.startswith(("uint", "int")):
        yield "scale", 1.0, ""
        yield "mean", 128.0 if image.dtype == "int8" else 0.0, ""
        yield "std", 1.0, ""
    elif graph is not None and (largest := own_range(graph, image.name)):
        yield "scale", 1.0 if largest == 255 else 1 / 255, f"pixels in 0..{largest} (the graph normalises them itself)"
        yield "mean", 0.0, ""
        yield "std", 1.0, ""


def _imagenet(full: Mapping[str, Any]) -> Iterator[Guess]:
    """ImageNet's mean and standard deviation in the units of the scale (opaque alpha becomes 1), and stretching."""
    yield "scale", 1.0, ""
    scale = full["scale"] if isinstance(full["scale"], (int, float)) else 1.0
    for field, words, rgb, alpha in (
        ("mean", "mean of ImageNet", IMAGENET_MEAN, 0.0),
        ("std", "standard deviation of ImageNet", IMAGENET_STD, 255.0),
    ):
        color = full["color"]
        ordered: tuple[float, ...] = rgb[::-1] if str(color).startswith("BGR") else rgb
        if color == "GRAY":
            ordered = (sum(rgb) / 3,)
        ordered += (alpha,) if CHANNELS.get(str(color)) == 4 else ()
        yield field, [number * scale for number in ordered], words
    yield "resize", "stretch", "resize by stretching"
