"""Photographs for benchmarks: those that were named, or scikit-image's; and any number of crops of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from fsagn_onnx.data.images import list_images, read_image
from fsagn_onnx.models.demo import photographs


def given_photographs(sources: Sequence[str]) -> list[Path]:
    return list(list_images(sources)) if sources else photographs()


def photo_crops(sources: Sequence[str], count: int, folder: Path) -> list[Path]:
    """Windows of a quarter to all of each photograph's height and width, as JPEG files."""
    random, paths = np.random.default_rng(0), []
    images = [read_image(path) for path in given_photographs(sources)]
    for number, image in zip(range(count), itertools.cycle(images), strict=False):
        height, width = (round(side * random.uniform(0.25, 1)) for side in image.shape[:2])
        y, x = random.integers(image.shape[0] - height + 1), random.integers(image.shape[1] - width + 1)
        paths.append(folder / f"{number:06}.jpg")
        cv2.imwrite(str(paths[-1]), image[y : y + height, x : x + width, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths
