"""How a server behaves."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Limits and batching of a server.

    Attributes:
        max_batch: images that go through the graph together, at most.
        max_delay: seconds that the first image of a batch waits for others.
        queue: requests in hand at a time, from the first byte of the body to the answer; one more is told to come
            again (429).
        max_body: bytes of a request's body.
        max_images: images of one request.
        max_filters: filters per image.
        max_pairs: images times filters and classes of one request.
        max_pixels: pixels of all encoded pictures of one request.
        max_mask_pixels: pixels of all masks of one request.
        light: bytes of a body, and pixels of pictures and masks, up to which a request is read and answered beside
            others; heavier ones take turns in a thread of their own.
        body_timeout: seconds in which a request's body must arrive.
        header_timeout: seconds in which a request's headers must arrive.
        drain: seconds that a stopping server gives to requests in hand.
    """

    max_batch: int = 8
    max_delay: float = 0.002
    queue: int = 64
    max_body: int = 32 * 2**20
    max_images: int = 64
    max_filters: int = 256
    max_pairs: int = 4096
    max_pixels: int = 256 * 2**20
    max_mask_pixels: int = 128 * 2**20
    light: int = 16 * 2**20
    body_timeout: float = 10.0
    header_timeout: float = 10.0
    drain: float = 30.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name != "max_delay"):
                raise UsageError(f"{field.name} must be greater than 0, but got {value}")
