"""Training images: a pool that decodes and remembers, and batches that depend on nothing but seed and step."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import read_image
from ..errors import ImageError
from ..model import InputSpec
from .options import TrainingOptions, default_crop

Pixels = NDArray[np.uint8]

JITTERED = 0.5
"""Share of the crops that get other colours."""

REMEMBERED_BYTES = 600 * 2**20
"""Decoded pictures are kept up to this much; beyond it they are decoded again."""


class ImagePool:
    """Pictures by index: read, shrunk to at most four times the input, remembered up to a number of bytes.

    A picture that cannot be read is reported once and replaced by the next one that can.

    Args:
        paths: the pictures.
        spec: the model's input.
        report: is told each picture that cannot be read and why.

    Raises:
        ImageError: there are no pictures.
    """

    def __init__(self, paths: Sequence[Path], spec: InputSpec, report: Callable[[Path, str], None]) -> None:
        if not paths:
            raise ImageError("no images to train on: name files, folders or globs")
        self.paths = list(paths)
        self.limit = 4 * max(spec.size)
        self.report = report
        self.failures: dict[Path, str] = {}
        self.noted: dict[Path, str] = {}
        self._kept: OrderedDict[int, Pixels] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        """The picture ``(H, W, 3)`` RGB, or the next readable one.

        Raises:
            ImageError: if no picture at all can be read.
        """
        for offset in range(len(self.paths)):
            place = (index + offset) % len(self.paths)
            if self.paths[place] in self.failures:
                continue
            try:
                return self._read(place)
            except ImageError as error:
                self.failures[self.paths[place]] = str(error)
                self.report(self.paths[place], str(error))
        raise ImageError(f"none of the {len(self.paths)} training images can be read; the first: {self.paths[0]}")

    def place(self, index: int) -> int:
        """Where `pool[index]` stands in the list: its own place, or that of the next readable picture."""
        return next(
            (
                place
                for place in ((index + offset) % len(self.paths) for offset in range(len(self.paths)))
                if self.paths[place] not in self.failures
            ),
            index,
        )

    def note(self, place: int, message: str) -> None:
        """Report a picture once, without leaving it out of what is drawn."""
        path = self.paths[place]
        if path not in self.noted and path not in self.failures:
            self.noted[path] = f"{path}: {message}"
            self.report(path, self.noted[path])

    def _read(self, place: int) -> Pixels:
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place]
        picture = read_image(self.paths[place])
        shrink = self.limit / max(picture.shape[:2])
        if shrink < 1:
            size = (max(1, round(picture.shape[1] * shrink)), max(1, round(picture.shape[0] * shrink)))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        self._kept[place] = picture
        self._bytes += picture.nbytes
        while self._bytes > REMEMBERED_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return picture


def fingerprint(paths: Sequence[Path]) -> str:
    """Hash of the list of training images, by which a resumed run knows that it is the same list."""
    return hashlib.sha256("\n".join(str(path) for path in paths).encode("utf-8", "surrogateescape")).hexdigest()


def random_crop(picture: Pixels, smallest: float, flip: bool, rng: np.random.Generator) -> Pixels:
    """A random part of a picture: area log-uniform in [smallest, 1], aspect ratio in [3/4, 4/3], perhaps mirrored."""
    height, width = picture.shape[:2]
    area = float(np.exp(rng.uniform(np.log(smallest), 0.0))) * height * width
    aspect = float(np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3))))
    rows = int(np.clip(round((area / aspect) ** 0.5), 1, height))
    columns = int(np.clip(round((area * aspect) ** 0.5), 1, width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    cut = picture[top : top + rows, left : left + columns]
    return cut[:, ::-1] if flip and rng.random() < 0.5 else cut


class Jitter(NamedTuple):
    """Other colours: each channel times a gain in 1 +- strength, plus an offset within +- 255 strength."""

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def drawn(cls, channels: int, strength: float, rng: np.random.Generator) -> Jitter:
        """For a picture of so many channels."""
        gain = rng.uniform(1 - strength, 1 + strength, size=channels)
        offset = rng.uniform(-255 * strength, 255 * strength) + rng.uniform(-strength, strength, size=channels) * 32
        return cls(gain, offset)

    def of(self, pixels: Pixels) -> Pixels:
        """The picture in these colours."""
        changed: Pixels = np.clip(np.rint(pixels * self.gain + self.offset), 0, 255).astype(np.uint8)
        return changed


class Crops:
    """Crops of a step, ``(B, H, W, c)`` uint8 in the model's colour order; each is made when it is asked for.

    Attributes:
        shape: of all.

    Args:
        spec: the model's input, at the size of the step.
        cuts: parts of pictures.
        jitters: what becomes of their colours; None: nothing.
    """

    def __init__(self, spec: InputSpec, cuts: Sequence[Pixels], jitters: Sequence[Jitter | None]) -> None:
        self._spec, self._cuts, self._jitters = spec, cuts, jitters
        self._made: dict[int, Pixels] = {}
        self.shape = (len(cuts), *spec.size, spec.channels)

    def __len__(self) -> int:
        return len(self._cuts)

    def __getitem__(self, which: int | slice | Sequence[int]) -> Pixels:
        """One ``(H, W, c)``, or several ``(n, H, W, c)``."""
        if isinstance(which, slice):
            which = range(len(self))[which]
        return self._one(which) if isinstance(which, int) else np.stack([self._one(number) for number in which])

    def _one(self, number: int) -> Pixels:
        if number not in self._made:
            pixels = self._spec.fit(np.ascontiguousarray(self._cuts[number]))[0]
            jitter = self._jitters[number]
            self._made[number] = pixels if jitter is None else jitter.of(pixels)
        return self._made[number]


def draw_batch(
    pool: ImagePool,
    spec: InputSpec,
    size: tuple[int, int],
    count: int,
    options: TrainingOptions,
    rng: np.random.Generator,
) -> tuple[Crops, list[int]]:
    """Random crops of random pictures at one input size, mirrored and in other colours as the options say.

    Returns:
        The B crops, and the places of their pictures in the pool.
    """
    target = replace(spec, size=size, resize="stretch")
    smallest = default_crop(len(pool)) if options.crop is None else options.crop
    cuts: list[Pixels] = []
    jitters: list[Jitter | None] = []
    places = []
    for index in rng.integers(len(pool), size=count):
        picture = pool[int(index)]
        places.append(pool.place(int(index)))
        cuts.append(random_crop(picture, smallest, options.flip, rng))
        jitters.append(Jitter.drawn(spec.channels, options.jitter, rng) if rng.random() < JITTERED else None)
    return Crops(target, cuts, jitters), places
