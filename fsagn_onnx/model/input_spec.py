"""What a model expects of its input, and how a photograph becomes it.

normalised = (pixel * scale - mean) / std        pixel in 0..255, one mean and std per channel
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..schema import Meta, Text, Word, checked, one_of, shown
from .geometry import Geometry, Window, crop_window, letterbox_window, resize_pixels

__all__ = ["CHANNELS", "Geometry", "InputSpec"]

CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4}
"""Channels per color order. A fourth channel is opaque: images are read as RGB, so alpha is 255 everywhere."""
OPAQUE = 255
MAX_SIDE = 16384
"""Largest height or width of a model's input."""
MAX_PIXELS = 2**24
"""Largest input: 4096 x 4096 pixels, or as many in one fixed batch."""
SAID: Final = "input spec: "
"""How messages about a spec begin."""
LAYOUTS: Final = ("NCHW", "NHWC")

_Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
SideLengths = Annotated[tuple[_Side, _Side], Meta(description=f"[height, width] in whole pixels, 1..{MAX_SIDE}")]
_PerChannel = Annotated[tuple[float, ...], Meta(max_length=4, description="a number, or a list of one per channel")]


@dataclass(frozen=True)
class InputSpec:
    """The image input of a model.

    Attributes:
        name: Name of the graph input.
        layout: "NCHW" or "NHWC".
        color: Order of the channels: "RGB", "BGR", "GRAY", "RGBA" or "BGRA".
        size: (H, W) in pixels.
        scale: Factor on the pixel, before the mean is taken off.
        mean: Per channel in the order of `color`, in units of pixel * scale.
        std: Per channel, as `mean`.
        resize: "stretch"; "crop:FRACTION" (the centred window of the model's aspect ratio, FRACTION of the
            largest that fits); "letterbox:PADVALUE" (the whole image, borders of gray PADVALUE in 0..255).
        guessed: In words, what was guessed rather than read from the model or the user's file.

    Raises:
        ModelError: a field is out of range; the message names it.
    """

    name: Word
    layout: Annotated[str, one_of(LAYOUTS)]
    color: Annotated[str, one_of(tuple(CHANNELS))]
    size: SideLengths
    scale: float
    mean: _PerChannel
    std: _PerChannel
    resize: Text
    guessed: Annotated[tuple[Text, ...], Meta(max_length=100, description="at most 100 texts")] = ()

    def __post_init__(self) -> None:
        """Check every field."""
        if not self.name:
            raise ModelError("input spec: field 'name' must be the name of a graph input, but is empty")
        _one_of("layout", self.layout, LAYOUTS)
        _one_of("color", self.color, tuple(CHANNELS))
        if not all(1 <= side <= MAX_SIDE for side in self.size):
            raise ModelError(f"input spec: field 'size' must be [height, width] in 1..{MAX_SIDE}, but got {self.size}")
        if self.size[0] * self.size[1] > MAX_PIXELS:
            raise ModelError(f"input spec: field 'size' must be at most {MAX_PIXELS} pixels, but got {self.size}")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ModelError(f"input spec: field 'scale' must be a number > 0, but got {self.scale}")
        for field, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) != self.channels or not all(map(math.isfinite, numbers)):
                raise ModelError(
                    f"input spec: field '{field}' must be {self.channels} finite numbers for {self.color}, "
                    f"but got {list(numbers)}"
                )
        if not all(number > 0 for number in self.std):
            raise ModelError(f"input spec: field 'std' must be > 0, but got {list(self.std)}")
        with np.errstate(all="ignore"):
            black, white = (self._level(level) for level in (0, 255))
        if not (np.isfinite(black).all() and np.isfinite(white).all()):
            raise ModelError(
                "input spec: fields 'scale', 'mean' and 'std' must make finite float32 numbers of pixels in 0..255, "
                f"but got {self.scale}, {list(self.mean)} and {list(self.std)}"
            )
        parse_resize(self.resize)

    def _level(self, level: int) -> NDArray[np.float32]:
        """What a pixel becomes, per channel."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return np.asarray((np.float32(level) * np.float32(self.scale) - mean) / std)

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return CHANNELS[self.color]

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Shape of one image as the model takes it: (C, H, W) or (H, W, C) by layout."""
        height, width = self.size
        return (self.channels, height, width) if self.layout == "NCHW" else (height, width, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """The `input` object of the metadata, ready for JSON; `guessed` is left out."""
        return {
            "name": self.name,
            "layout": self.layout,
            "color": self.color,
            "size": list(self.size),
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.resize,
        }

    @classmethod
    def from_dict(cls, described: Mapping[str, Any], *, guessed: tuple[str, ...] = ()) -> InputSpec:
        """Read the `input` object of the metadata.

        Args:
            described: All fields of `to_dict`. `mean` and `std` may be one number for all channels.
            guessed: What of it was guessed.

        Raises:
            ModelError: a field is missing, unknown, of the wrong type or out of range; the message names it.
        """
        color = described.get("color")
        count = CHANNELS.get(color, 1) if isinstance(color, str) else 1
        spread = {name: [described[name]] * count for name in ("mean", "std") if _is_number(described.get(name))}
        said = {"guessed": guessed} if guessed else {}
        return checked({**described, **spread, **said}, cls, lambda wrong: ModelError(SAID + wrong.removeprefix(SAID)))

    def fit(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Geometry]:
        """Resize an image to the model's input by the resize policy, its channels in the model's order.

        Args:
            image: uint8 RGB (H0, W0, 3).

        Returns:
            uint8 (H, W, c) in the order of `color`, and the geometry.

        Raises:
            ModelError: the picture is not uint8 RGB (H, W, 3).
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ModelError(f"an image must be uint8 RGB (H, W, 3), but got {image.dtype} {image.shape}")
        original = (image.shape[0], image.shape[1])
        policy, number = parse_resize(self.resize)
        source, target = Window(0, 0, *original), Window(0, 0, *self.size)
        if policy == "crop":
            source = crop_window(original, self.size, number)
        elif policy == "letterbox":
            target = letterbox_window(original, self.size)
        seen = image[source.top : source.top + source.height, source.left : source.left + source.width]
        resized = resize_pixels(seen, (target.height, target.width))
        if (target.height, target.width) != self.size:
            padded = np.full((*self.size, 3), round(number), dtype=np.uint8)
            padded[target.top : target.top + target.height, target.left : target.left + target.width] = resized
            resized = padded
        return self._ordered(resized), Geometry.from_windows(original, self.size, source, target)

    def _ordered(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.color in ("BGR", "BGRA"):
            rgb = rgb[..., ::-1]
        if self.channels == 4:
            return np.dstack([rgb, np.full(rgb.shape[:2], OPAQUE, dtype=np.uint8)])
        if self.color == "GRAY":
            gray = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
            return gray.astype(np.uint8, copy=False)[..., None]
        return np.array(rgb, order="C")

    def normalise(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """(..., H, W, c) pixels in 0..255 -> float32 (..., C, H, W) or (..., H, W, C) by layout."""
        mean, std = np.asarray(self.mean, dtype=np.float32), np.asarray(self.std, dtype=np.float32)
        normalised = (pixels.astype(np.float32) * np.float32(self.scale) - mean) / std
        if self.layout == "NCHW":
            normalised = np.moveaxis(normalised, -1, -3)
        return np.ascontiguousarray(normalised, dtype=np.float32)

    def denormalise(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """The inverse of `normalise`: float32 pixels (..., H, W, c), neither rounded nor clipped."""
        mean, std = np.asarray(self.mean, dtype=np.float32), np.asarray(self.std, dtype=np.float32)
        last = np.moveaxis(x, -3, -1) if self.layout == "NCHW" else x
        pixels = (last.astype(np.float32) * std + mean) / np.float32(self.scale)
        return np.ascontiguousarray(pixels, dtype=np.float32)

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], Geometry]:
        """`fit`, then `normalise`: uint8 RGB (H0, W0, 3) -> float32 (C, H, W) or (H, W, C), and geometry."""
        pixels, geometry = self.fit(image)
        return self.normalise(pixels), geometry


def _one_of(field: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise ModelError(f"input spec: field '{field}' must be one of {', '.join(known)}, but got {shown(found)}")


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def parse_resize(resize: str) -> tuple[str, float]:
    """("stretch", 0), ("crop", fraction in (0, 1]) or ("letterbox", pad value in 0..255).

    Raises:
        ModelError: the text names no way to resize.
    """
    policy, _, text = resize.partition(":")
    if resize == "stretch":
        return policy, 0.0
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if (policy == "crop" and 0 < number <= 1) or (policy == "letterbox" and 0 <= number <= 255):
        return policy, number
    raise ModelError(
        "input spec: field 'resize' must be 'stretch', 'crop:FRACTION' with 0 < FRACTION <= 1, or "
        f"'letterbox:PADVALUE' with 0 <= PADVALUE <= 255, but got {shown(resize)}"
    )
