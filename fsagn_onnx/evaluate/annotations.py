"""Part annotations for the part metrics: a mask PNG per picture and one JSON file that names the parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.images import read_image
from ..data.synthetic import render
from ..errors import ImageError, UsageError
from ..model import InputSpec
from ..runtime.infill import inpaint
from ..runtime.masks import Mask


@dataclass(frozen=True, eq=False)
class Annotation:
    """The parts of one picture, at the model's input size.

    Attributes:
        parts: visible pixels of every part, ``(H, W)`` bool each, none of them empty.
        removed: the picture without each part, ``(H, W, c)`` pixels fitted to the model's input.
        exact: whether ``removed`` was rendered anew (True) or filled from its surroundings (False).
    """

    parts: Mapping[str, Mask]
    removed: Mapping[str, NDArray[np.uint8]]
    exact: bool


class PartMasks:
    """Annotations as `fsagn_onnx.data.synthetic.write_folder` writes them.

    ``names.json``: ``{"parts": {"1": "body", ...}, "images": [{"file", "mask", "seed"?}, ...]}``, paths relative to
    it; a mask is a gray PNG of the picture's size, 0 the ground, i part i. With a ``seed`` the picture is one of the
    synthetic set, and its parts are removed by rendering it anew; without, by inpainting their pixels.

    Args:
        names: the JSON file.

    Raises:
        UsageError: it cannot be read or is of another form.
    """

    def __init__(self, names: Path) -> None:
        try:
            content = json.loads(names.read_text(encoding="utf-8"))
            self._parts = {int(number): str(part) for number, part in content["parts"].items()}
            self._images: dict[Path, Mapping[str, Any]] = {
                (names.parent / entry["file"]).resolve(): {
                    "mask": names.parent / entry["mask"],
                    "seed": entry.get("seed"),
                }
                for entry in content["images"]
            }
        except OSError as error:
            raise UsageError(
                f"{names} cannot be read: {error.strerror or error}; give the JSON of the masks"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f'{names} must be {{"parts": {{"1": name, ...}}, "images": [{{"file", "mask"}}, ...]}}, but {error!r}'
            ) from error

    def of(self, path: Path, image: NDArray[np.uint8], spec: InputSpec) -> Annotation | None:
        """The annotation of a picture, or None where it has none.

        Args:
            path: of the picture.
            image: ``(H0, W0, 3)`` RGB as read.
            spec: the model's input.

        Raises:
            ImageError: the mask cannot be read or is of another size.
        """
        entry = self._images.get(path.resolve())
        if entry is None:
            return None
        numbers = read_image(entry["mask"])[..., 0]
        if numbers.shape != image.shape[:2]:
            raise ImageError(f"mask {entry['mask']} is {numbers.shape}, but {path} is {image.shape[:2]}")
        parts = {}
        for number, part in self._parts.items():
            fitted = fit_mask(numbers == number, spec)
            if fitted.any():
                parts[part] = fitted
        pixels = spec.fit(image)[0]
        seed = entry["seed"]
        if seed is None:
            removed = {part: inpaint(pixels, ~_grown(mask)) for part, mask in parts.items()}
        else:
            side = image.shape[0]
            removed = {part: spec.fit(render(seed, size=side, remove=part).image)[0] for part in parts}
        return Annotation(parts, removed, seed is not None)


def fit_mask(mask: Mask, spec: InputSpec) -> Mask:
    """Bring a mask to the model's input as its picture: ``(H0, W0)`` -> ``(H, W)``; False on added borders."""
    white = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    inside, outside = spec.fit(white)[0], spec.fit(255 - white)[0]
    return np.asarray((inside[..., 0] > 127) & (outside[..., 0] < 128), dtype=np.bool_)


def _grown(mask: Mask) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), dtype=np.uint8)) > 0, dtype=np.bool_)
