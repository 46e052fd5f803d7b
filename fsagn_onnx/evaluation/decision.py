"""What a decision hangs on, measured: kept, removed, exchanged for the good part, pointing, IoU, filters switched off.

Figures of one picture, one class and one evidence map; method.md "The decision" has the definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from ..data.closing import Closing
from ..errors import UsageError
from ..gradient import add_contributions
from ..model import Model
from ..runtime.ablation import Ablation
from ..runtime.classes import classes_of
from ..runtime.feature_maps import BATCH_SIZE
from ..runtime.infill import Pixels, masked_images
from ..runtime.masks import Mask, area_rank, grid_of, pixel_mask, to_grid, upsample
from ..runtime.session import Session
from ..statistics.correlation import spearman

CLASSES_INPUT: Final = "fsagn_asked_classes"
TRIES: Final = 200
"""Shifts that are drawn for an area elsewhere."""


class AnsweringModel(Closing):
    """A model's answers about fitted pixels.

    Attributes:
        classes: how its outputs are read.

    Args:
        model: the CNN.
        providers: see `Session`.
        threads: see `Session`.

    Raises:
        UsageError: it does not classify.
    """

    def __init__(self, model: Model, providers: str | Sequence[str] = "auto", threads: int | None = None) -> None:
        self.classes = classes_of(model)
        if not self.classes:
            raise UsageError(
                f"{model.path}: the decision metrics need a model that classifies, but {self.classes.classifier.reason}"
            )
        self._spec = model.input_spec
        self._session = Session(model.proto, providers, threads, source=str(model.path))
        self._size = self._session.batch or BATCH_SIZE

    def probabilities(self, pixels: Pixels) -> NDArray[np.float64]:
        """``(M, H, W, c)`` -> ``(M, classes)``.

        Raises:
            UsageError: the output has no answer per picture.
        """
        parts = []
        for start in range(0, len(pixels), self._size):
            batch = self._spec.normalise(pixels[start : start + self._size]).astype(np.float32)
            found = self.classes.probabilities(self._session.run(self.classes.wanted, {self._spec.name: batch}))
            if found is None:
                raise UsageError("the decision metrics need one answer per picture, but the output has none")
            parts.append(found)
        return np.concatenate(parts)

    def winners(self, pixels: Pixels) -> NDArray[np.intp]:
        """``(M, H, W, c)`` -> ``(M,)`` numbers of classes."""
        return np.asarray(self.probabilities(pixels).argmax(axis=1))

    def close(self) -> None:
        """Free the session."""
        self._session.close()


@dataclass(frozen=True)
class Shown:
    """The class's probability when only an area is shown, and when it is hidden; over several areas.

    Attributes:
        kept: mean probability with the area alone; more is better.
        removed: mean probability without it; less is better.
        stays: share of the areas at which the area alone still gives the class.
        falls: share of the areas at which, without it, the answer is another.
    """

    kept: float
    removed: float
    stays: float
    falls: float


def answers_shown(answers: AnsweringModel, pixels: Pixels, masks: Sequence[Mask], number: int, infill: str) -> Shown:
    """What the model says with each mask's area alone, and without it.

    Args:
        answers: of the model.
        pixels: ``(H, W, c)``.
        masks: ``(H, W)`` each, True = the area.
        number: of the class.
        infill: what shows through.
    """
    pictures = [masked_images(pixels, masks, infill), masked_images(pixels, [~mask for mask in masks], infill)]
    found = answers.probabilities(np.concatenate(pictures))
    own, won = found[:, number], found.argmax(axis=1) == number
    count = len(masks)
    return Shown(
        float(own[:count].mean()), float(own[count:].mean()), float(won[:count].mean()), float((~won[count:]).mean())
    )


def at_granularity(maps: NDArray[np.floating], size: tuple[int, int], cell: int) -> NDArray[np.float32]:
    """An evidence map ``(h, w)`` at cells of so many pixels, smoothed, and brought to ``(H, W)``; cell 0: as it is."""
    return upsample(to_grid(maps, grid_of(size, cell)) if cell else maps, size)


def highest_places(evidence: NDArray[np.floating], area: float) -> Mask:
    """The pixels of an area's share with the highest evidence: ``(H, W)`` -> bool ``(H, W)``, ties by position."""
    return pixel_mask(area_rank(evidence), area, (evidence.shape[0], evidence.shape[1]))


def points_at(evidence: NDArray[np.floating], truth: Mask) -> bool:
    """Pointing game: the highest place lies in the truth."""
    return bool(truth.ravel()[int(np.argmax(evidence))])


def iou(mask: Mask, truth: Mask) -> float:
    """Intersection over union."""
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else float("nan")


def exchanged(pixels: Pixels, good: Pixels, masks: Sequence[Mask]) -> Pixels:
    """The picture with each mask's pixels exchanged for the aligned good picture's: ``(M, H, W, c)``."""
    return np.stack([np.where(mask[..., None], good, pixels) for mask in masks])


def moved_away(mask: Mask, rng: np.random.Generator) -> Mask:
    """An area of the same size and form elsewhere: shifted over the borders, with as little in common as can be."""
    best, least = mask, int(mask.sum()) + 1
    for _ in range(TRIES):
        shifted = np.roll(mask, (int(rng.integers(mask.shape[0])), int(rng.integers(mask.shape[1]))), axis=(0, 1))
        common = int((shifted & mask).sum())
        if common < least:
            best, least = shifted, common
        if not common:
            break
    return best


class SwitchedOff(Closing):
    """Contributions of a layer's filters against what switching them off does to the decision.

    A filter is switched off by 0 everywhere. The contributions come from the gradient in the graph, without torch.

    Args:
        model: the CNN.
        layer: value name.
        **session: ``providers`` and ``threads``.

    Raises:
        GradientError: the decision does not hang on the layer, or an operator has no rule.
    """

    def __init__(self, model: Model, layer: str, **session: Any) -> None:
        self._classes, self._spec, self._layer = classes_of(model), model.input_spec, layer
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        proto.graph.input.append(onnx.helper.make_tensor_value_info(CLASSES_INPUT, onnx.TensorProto.INT64, ["N", 1]))
        added = add_contributions(proto, self._classes.classifier, layer, CLASSES_INPUT, single=True)
        self._phi = added.phi
        known = {value.name for value in proto.graph.output}
        for name in (added.phi, layer):
            if name not in known:
                proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        self._session = Session(proto, source=f"{model.path} with contributions", **session)
        channels = model.layer(layer).channels
        self._ablation = Ablation(model, layer, np.zeros(channels, np.float32), self._classes.wanted, **session)

    def measure(self, pixels: Pixels, number: int, most: int | None = None) -> tuple[NDArray[np.float64], ...]:
        """Contributions and drops of d_c of the filters that are not silent in a picture.

        Args:
            pixels: ``(H, W, c)``.
            number: of the class.
            most: so many with the largest contributions either way; None: all.

        Returns:
            phi and d_c(x) - d_c(x, filter switched off), ``(K,)`` each.

        Raises:
            UsageError: the output has no decision of one class per picture.
        """
        batch = self._spec.normalise(pixels)[None].astype(np.float32)
        feeds: dict[str, NDArray[Any]] = {self._spec.name: batch, CLASSES_INPUT: np.array([[number]], dtype=np.int64)}
        made = self._session.run([self._phi, self._layer, *self._classes.wanted], feeds)
        phi = made[self._phi].reshape(-1).astype(np.float64)
        feature_map = made[self._layer][0].astype(np.float32)
        alive = np.flatnonzero(np.abs(feature_map).max(axis=(1, 2)) > 0)
        chosen = alive[np.argsort(-np.abs(phi[alive]), kind="stable")[:most]]
        whole, without = (
            self._classes.decisions(outputs)
            for outputs in (made, self._ablation.run(batch, feature_map, chosen.tolist()))
        )
        if whole is None or without is None:
            raise UsageError("contributions need a decision of one class per picture")
        return phi[chosen], whole[0, number] - without[:, number]

    def agreement(self, pixels: Pixels, number: int, most: int | None = None) -> float:
        """Spearman's correlation of contributions and drops in one picture."""
        return spearman(*self.measure(pixels, number, most))

    def close(self) -> None:
        """Free the sessions."""
        self._session.close()
        self._ablation.close()
