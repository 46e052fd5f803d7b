"""From whatever names images to prepared batches, at flat memory: decoding overlaps with inference."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import list_images, read_image
from ..data.pillow import PillowImage, is_pillow, pillow_pixels
from ..errors import FsagnError, ImageError, UsageError
from ..model.input_spec import Geometry, InputSpec

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """An image with a name of its own, for example of a video.

    Attributes:
        name: what its explanation is called.
        pixels: uint8 RGB (H, W, 3).
    """

    name: str
    pixels: Pixels


Single: TypeAlias = "str | Path | Pixels | PillowImage | Frame"
Images: TypeAlias = "Single | Iterable[Single]"
"""Files, folders, globs, `-`, uint8 RGB arrays (H, W, 3), images of Pillow, or frames."""
Source: TypeAlias = "Path | Pixels | PillowImage"
"""What an image is decoded from."""

DECODERS: Final = 2
"""Threads that decode."""

PREVIEW_EDGE: Final = 512
"""Longest side in pixels of the reduced picture that an explanation keeps for drawing."""

NO_PREVIEW: Final[Pixels] = np.zeros((0, 0, 3), dtype=np.uint8)

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """An image that could not be explained.

    Attributes:
        path: the file, or the name of the array.
        message: one line that says why.
    """

    path: str
    message: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image on its way into the model.

    Attributes:
        name: the path as given, or ``image-N`` for the N-th image of a list of arrays.
        path: the file, or None for an array.
        preview: uint8 (h', w', 3) RGB, the image reduced to at most `PREVIEW_EDGE`; or `NO_PREVIEW`.
        pixels: uint8 (H, W, c), fitted to the model's input.
        values: what the engine takes: float32, the normalised pixels in the model's layout; or (``raw``) the image.
        geometry: from the model's input to the original.
    """

    name: str
    path: Path | None
    preview: Pixels
    pixels: Pixels
    values: NDArray[Any]
    geometry: Geometry


def named_images(images: Images) -> Iterator[tuple[str, Source]]:
    """Name and source of every image, lazily.

    Raises:
        UsageError: something that is neither a path nor an array nor an image of Pillow.
    """
    alone = isinstance(images, str | Path | Frame) or is_pillow(images)
    singles: Iterable[Any] = [images] if alone or (isinstance(images, np.ndarray) and images.ndim == 3) else images  # type: ignore[assignment]
    if not isinstance(singles, Iterable):
        raise _no_images(images)
    number = 0
    for single in singles:
        if isinstance(single, np.ndarray) or is_pillow(single):
            yield f"image-{number}", single
            number += 1
        elif isinstance(single, Frame):
            yield single.name, single.pixels
        elif isinstance(single, str | Path):
            for path in list_images([single]):
                yield str(path), path
                number += 1
        else:
            raise _no_images(single)


def _no_images(given: object) -> UsageError:
    return UsageError(
        f"images must be paths, uint8 arrays (H, W, 3) or images of Pillow, but got {type(given).__name__}"
    )


def prepare(
    named: tuple[str, Source], spec: InputSpec, *, raw: bool = False, preview: bool = True
) -> Prepared | Failure:
    """Decode one image and fit it to the model's input.

    Args:
        named: name and source.
        spec: the model's input.
        raw: the engine takes the image as it is.
        preview: keep a reduced picture for drawing.
    """
    name, source = named
    try:
        image = _decoded(name, source)
        pixels, geometry = spec.fit(image)
        values = image if raw else np.asarray(spec.normalise(pixels), dtype=np.float32)
    except FsagnError as error:
        return Failure(name, str(error))
    path = source if isinstance(source, Path) else None
    small = reduced(image, PREVIEW_EDGE) if preview else NO_PREVIEW
    return Prepared(name, path, small, pixels, values, geometry)


def _decoded(name: str, source: Source) -> Pixels:
    if isinstance(source, Path):
        return read_image(source)
    return _checked_array(name, source) if isinstance(source, np.ndarray) else pillow_pixels(name, source)


def _checked_array(name: str, array: NDArray[Any]) -> Pixels:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ImageError(f"{name}: an array must be uint8 RGB (H, W, 3), but is {array.dtype} {array.shape}")
    return array


def reduced(image: Pixels, edge: int) -> Pixels:
    """A copy of an image, shrunk so that no side is longer than ``edge``."""
    height, width = image.shape[:2]
    scale = edge / max(height, width)
    if scale >= 1:
        return image.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small: Pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return small


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Generator[R]:
    """Apply a function in threads, in order, with at most ``ahead`` results waiting.

    ``items`` is consumed in the caller's thread. Closing the iterator early ends the threads.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
