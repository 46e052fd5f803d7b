"""Maps of a class out of forward passes alone: RISE, Recipro-CAM, and the controls. No torch."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..model import Model
from ..runtime.ablation import tail
from ..runtime.classes import Classes, classes_of
from ..runtime.feature_maps import FeatureMaps
from ..runtime.infill import MASK_FREE
from ..runtime.masks import common_grid
from ..runtime.session import Session
from .controls import Centre, Random
from .interface import Passes
from .rise import KEPT, rise_masks

CLASS_METHODS: Final = {
    "rise-class": "RiseClass",
    "recipro-cam": "ReciproCam",
    "random-class": "RandomClass",
    "centre-class": "CentreClass",
}

BATCH: Final = 25
RISE_MASKS: Final = 1000
SPREAD: Final = 0.6
"""Standard deviation in cells of the window that Recipro-CAM leaves; 3 x 3 cells."""


class RiseClass:
    """RISE (Petsiuk, Das and Saenko 2018): sum_i p_c(m_i x + (1 - m_i) b) (m_i - .5), b the picture's mean colour.

    Args:
        model: the CNN.
        layer: not needed.
        masks: their number.
        seed: of the masks.
    """

    def __init__(self, model: Model, layer: str, masks: int = RISE_MASKS, seed: int = 0) -> None:
        self._classes = classifying(model)
        self._spec = model.input_spec
        self._session = Session(model.proto, threads=None, source=str(model.path))
        self._masks = rise_masks(masks, self._spec.size, np.random.default_rng(seed))
        self.passes = Passes(masks, 0)

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`; the maps have the input's own resolution."""
        return np.stack([self._one(image, int(number)) for image, number in zip(batch, classes, strict=True)])

    def _one(self, image: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        pixels = np.clip(np.rint(self._spec.denormalise(image)), 0, 255).astype(np.uint8)
        behind = self._spec.normalise(MASK_FREE["mean"](pixels, np.random.default_rng(0)))
        total = np.zeros(self._spec.size, dtype=np.float64)
        size = self._session.batch or BATCH
        for start in range(0, len(self._masks), size):
            masks = self._masks[start : start + size]
            spread = masks[:, None] if self._spec.layout == "NCHW" else masks[..., None]
            masked = (behind + spread * (image - behind)).astype(np.float32)
            answers = self._session.run(self._classes.wanted, {self._spec.name: masked})
            found = self._classes.probabilities(answers)
            if found is not None:
                total += np.einsum("m,mhw->hw", found[:, number], masks - KEPT)
        return (total / len(self._masks)).astype(np.float32)


class ReciproCam:
    """Recipro-CAM (Byun and Lee 2022): the class's number when only one place of the feature map is left.

    A place is left with a Gaussian window of 3 x 3 cells; the rest of the feature map is 0.

    Args:
        model: the CNN.
        layer: value name.
    """

    def __init__(self, model: Model, layer: str) -> None:
        self._classes, self._spec = classifying(model), model.input_spec
        self._maps = FeatureMaps.of_model(model, layer, batch_size=1)
        self._layer = layer
        self._tail = Session(tail(model.proto, layer, self._classes.wanted), source=str(model.path))
        self._image = next((port.name for port in self._tail.inputs if port.name != layer), None)
        rows, columns = model.layer(layer).shape[1:]
        self.passes = Passes(rows * columns, 0)

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`; the map has the layer's own resolution."""
        return np.stack([self._one(image, int(number)) for image, number in zip(batch, classes, strict=True)])

    def _one(self, image: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        (maps,) = self._maps.maps(image[None])
        rows, columns = maps.shape[1:]
        numbers = []
        for place in range(rows * columns):
            window = np.zeros((rows, columns), dtype=np.float32)
            window[divmod(place, columns)] = 1
            window = cv2.GaussianBlur(window, (3, 3), SPREAD, borderType=cv2.BORDER_CONSTANT)
            beside = {} if self._image is None else {self._image: image[None]}
            answers = self._tail.run(self._classes.wanted, {self._layer: (maps * window)[None], **beside})
            found = self._classes.probabilities(answers)
            numbers.append(0.0 if found is None else float(found[0, number]))
        return np.array(numbers, dtype=np.float32).reshape(rows, columns)


class RandomClass:
    """Independent noise at the common granularity, the same for the same image and class."""

    passes = Passes(0, 0)

    def __init__(self, model: Model, layer: str) -> None:
        self._random = Random(common_grid(model.input_spec.size))

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`."""
        return self._random.saliency(batch, batch, classes[:, None])[:, 0]


class CentreClass:
    """Closeness to the centre of the picture, whatever is in it."""

    passes = Passes(0, 0)

    def __init__(self, model: Model, layer: str) -> None:
        self._centre = Centre(common_grid(model.input_spec.size))

    def evidence(self, batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ClassMethod`."""
        return self._centre.saliency(batch, batch, classes[:, None])[:, 0]


def classifying(model: Model) -> Classes:
    """How a model's classes are read.

    Raises:
        UsageError: it has none.
    """
    classes = classes_of(model)
    if not classes:
        raise UsageError(f"{model.path}: class methods need a model that classifies, but {classes.classifier.reason}")
    return classes
