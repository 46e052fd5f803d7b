"""Pillow's images, recognised by what they can do: the package itself does not need Pillow."""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

ORIENTATION: Final = 0x0112
"""EXIF tag: how the camera was held."""
MODES: Final = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"})
"""Modes with 8 bits or less per channel; alpha is dropped."""


class PillowImage(Protocol):
    """What is used of a ``PIL.Image.Image``."""

    @property
    def mode(self) -> str:
        """How pixels are stored."""

    def convert(self, mode: str) -> Any:
        """The same image in another mode."""

    def getexif(self) -> Any:
        """What the camera wrote, by tag."""


def is_pillow(image: object) -> TypeGuard[PillowImage]:
    """Whether something is an image of Pillow."""
    return all(hasattr(image, name) for name in ("mode", "convert", "getexif"))


def pillow_pixels(name: str, image: PillowImage) -> NDArray[np.uint8]:
    """An image of Pillow as upright RGB, (H, W, 3), as `read_image` would read its file.

    Raises:
        ImageError: the image cannot be loaded, or is neither gray nor coloured with 8 bits per channel.
    """
    try:
        if image.mode.startswith("I;16"):  # the high byte, as from a file
            gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            pixels = np.repeat(gray[..., None], 3, axis=2)
        elif image.mode in MODES:
            if image.mode in ("P", "PA"):  # a palette may have transparent colours
                image = image.convert("RGBA")
            pixels = np.array(image.convert("RGB"), dtype=np.uint8)
        else:
            raise ImageError(f"{name}: an image of Pillow must have 8 bits per channel, but its mode is {image.mode}")
        orientation = image.getexif().get(ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name}: Pillow cannot load the image: {error}") from error
    return np.ascontiguousarray(_upright(pixels, orientation))


def _upright(pixels: NDArray[np.uint8], orientation: object) -> NDArray[np.uint8]:
    """Undo how the camera was held (EXIF 2.3, 4.6.4, tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
