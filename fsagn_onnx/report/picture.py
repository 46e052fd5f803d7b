"""Pictures inside a page."""

from __future__ import annotations

import cv2

from ..runtime.stream import Pixels
from .sheet import base64


def jpeg(pixels: Pixels, quality: int) -> str:
    """A picture as JPEG in base64."""
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return base64(encoded.tobytes())
