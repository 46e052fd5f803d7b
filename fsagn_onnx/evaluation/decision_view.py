"""What the decision metrics see of one image: evidence maps of every class method and explainer file, and the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.closing import Closing
from ..data.images import read_image
from ..errors import UsageError
from ..gradient import GradientError
from ..methods import Passes, make_class_method
from ..model import Model
from ..runtime.file_engine import FileEngine
from ..runtime.infill import Pixels
from ..runtime.masks import Mask, from_rank
from .decision import AnsweringModel, SwitchedOff
from .part_masks import Annotation

CLASS_METHODS = ("gradient-x-activation", "cam", "random-class")
"""Compared unless others are named; they read the explained layer, or ``NAME@LAYER``."""


@dataclass(frozen=True, eq=False)
class DecisionView:
    """One image and the model's own answer about it.

    Attributes:
        answers: of the model.
        number: of the class that it answers.
        evidence: by method, ``(h, w)`` at any resolution.
        passes: by method.
        good: the aligned good picture, fitted, or None.
        truth: ``(H, W)`` bool, all that is annotated, or None.
        agreement: Spearman's correlation of contributions and switching off, or NaN.
    """

    answers: AnsweringModel
    number: int
    evidence: Mapping[str, NDArray[np.float32]]
    passes: Mapping[str, Passes]
    good: Pixels | None
    truth: Mask | None
    agreement: float


class Deciders(Closing):
    """Everything that explains decisions in one evaluation.

    Args:
        model: the CNN.
        layer: value name, of class methods that need one.
        engines: explainer files by name; those that cannot be asked about classes are left out.
        methods: names of `fsagn_onnx.methods.CLASS_METHODS`.
        good: folder of aligned good pictures of the same names, or None.
        **session: ``providers`` and ``threads``.

    Raises:
        UsageError: the model does not classify, or a method cannot be had.
    """

    def __init__(
        self,
        model: Model,
        layer: str,
        engines: Mapping[str, FileEngine],
        methods: Sequence[str],
        good: Path | None,
        **session: Any,
    ) -> None:
        if good is not None and not good.is_dir():
            raise UsageError(f"--good must be a folder of good pictures, but {good} is none")
        self._spec, self._good = model.input_spec, good
        self._answers = AnsweringModel(model, **session)
        self._engines = {name: engine for name, engine in engines.items() if engine.answers_classes}
        self._methods = {name: make_class_method(name, model, layer) for name in dict.fromkeys(methods)}
        self._switched: SwitchedOff | None = None
        try:
            self._switched = SwitchedOff(model, layer, **session)
        except GradientError:  # an operator without a rule: that row is left out
            self._switched = None

    def look(
        self, path: Path, pixels: Pixels, batch: NDArray[np.float32], annotation: Annotation | None
    ) -> DecisionView:
        """The evidence for the model's own answer about one image.

        Args:
            path: of the image.
            pixels: ``(H, W, c)`` fitted.
            batch: ``(1, ...)`` normalised.
            annotation: its parts, or None.

        Raises:
            ImageError: the good picture cannot be read.
        """
        number = int(self._answers.winners(pixels[None])[0])
        classes = np.array([number], dtype=np.int64)
        evidence: dict[str, NDArray[np.float32]] = {}
        for name, engine in self._engines.items():
            found = engine.decide(batch, np.array([[-2]], dtype=np.int64), classes[None]).decisions
            if found is not None:
                evidence[name] = from_rank(found.evidence_rank[0, 0])
        for name, method in self._methods.items():
            evidence[name] = method.evidence(batch, classes)[0]
        parts = list(annotation.parts.values()) if annotation is not None else []
        truth = np.any(np.stack(parts), axis=0) if parts else None
        passes = {name: method.passes for name, method in self._methods.items()}
        agreement = float("nan") if self._switched is None else self._switched.agreement(pixels, number)
        return DecisionView(self._answers, number, evidence, passes, self._partner(path), truth, agreement)

    def _partner(self, path: Path) -> Pixels | None:
        partner = None if self._good is None else self._good / path.name
        return self._spec.fit(read_image(partner))[0] if partner is not None and partner.is_file() else None

    def close(self) -> None:
        """Free the sessions."""
        self._answers.close()
        if self._switched is not None:
            self._switched.close()
