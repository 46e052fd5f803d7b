"""Solar cells: how much of the defect score hangs on the evidence for it, by map, area and what hides the area.

    python -m benchmarks.truth.cells [--folder build/inspection] [--split train|unseen] [--cells 100]

Uses what `python examples/inspection/run.py` made in the folder. In each defective cell the area of a map is hidden,
and three areas of the same form and size elsewhere; the share of the score explained is the drop of the probability of
"defective", summed over the cells, over the sum of the scores. Hidden is by inpainting, by blur, and by the same place
of the most similar intact cell of the training half ("exchange"; matched in mean and spread, so that no brighter patch
shows). Maps: the explainer's evidence, gradient x activation at the depths that `--why` tries and at the deepest three
together, the class activation map, and random ones. What is chosen, is chosen with `--split train`. Writes
build/cells-SPLIT.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import plainly
from benchmarks.truth.boards import Maps, explainer_maps
from benchmarks.truth.decisions import at_depths
from fsagn_onnx.data.images import read_image
from fsagn_onnx.evaluation.decision import AnsweringModel, at_granularity, highest_places, moved_away
from fsagn_onnx.methods import make_class_method
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.infill import HELD_OUT, masked_images
from fsagn_onnx.statistics.bootstrap import bootstrap_ratio

INSPECTION = Path(__file__).resolve().parents[2] / "examples" / "inspection"
AREAS = (0.05, 0.1, 0.2, 0.3)
HIDING = (HELD_OUT, "blur", "exchange")
ELSEWHERE = 3
CELL = 4
"""Pixels of the places of every map."""
DEFECTIVE = 1
"""Number of the class."""
SMALL = 20
"""Edge in pixels at which cells are compared."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Twins:
    """Intact cells, to exchange parts for."""

    pixels: Pixels
    small: NDArray[np.float64]

    @classmethod
    def of(cls, pictures: Sequence[Pixels]) -> Twins:
        """Of fitted pictures."""
        return cls(np.stack(pictures), np.stack([_small(picture) for picture in pictures]))

    def nearest(self, picture: Pixels) -> Pixels:
        """The most similar one, with the mean and the spread of the picture."""
        found = self.pixels[np.abs(self.small - _small(picture)).mean(axis=(1, 2)).argmin()].astype(np.float64)
        matched = (found - found.mean()) / max(found.std(), 1.0) * picture.std() + picture.mean()
        return np.asarray(matched.round().clip(0, 255).astype(np.uint8))


def _small(picture: Pixels) -> NDArray[np.float64]:
    """Small, gray, without its brightness and contrast."""
    gray = cv2.resize(picture.mean(axis=2), (SMALL, SMALL), interpolation=cv2.INTER_AREA)
    return np.asarray((gray - gray.mean()) / max(gray.std(), 1.0))


def drops(answers: AnsweringModel, pixels: Pixels, fine: NDArray[Any], twin: Pixels, seed: int) -> NDArray[np.float64]:
    """``(areas, hiding, 2)``: drop of the score with the area hidden, and with as much hidden elsewhere."""
    rng = np.random.default_rng(seed)
    pictures = [pixels[None]]
    for area in AREAS:
        mask = highest_places(fine, area)
        masks = [~mask, *(~moved_away(mask, rng) for _ in range(ELSEWHERE))]
        pictures += [masked_images(pixels, masks, twin if kind == "exchange" else kind) for kind in HIDING]
    found = answers.probabilities(np.concatenate(pictures))[:, DEFECTIVE]
    lost = (found[0] - found[1:]).reshape(len(AREAS), len(HIDING), 1 + ELSEWHERE)
    return np.stack([lost[..., 0], lost[..., 1:].mean(axis=2)], axis=2)


def rows(lost: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, Any]:
    """Of ``(cells, areas, hiding, 2)`` drops: the shares of the score, by hiding and area."""
    made: dict[str, Any] = {}
    for place, kind in enumerate(HIDING):
        made[kind] = {}
        for column, area in enumerate(AREAS):
            inside, elsewhere = lost[:, column, place].T
            sides = {"area": inside, "elsewhere": elsewhere, "area - elsewhere": inside - elsewhere}
            made[kind][str(area)] = {side: vars(bootstrap_ratio(drop, scores)) for side, drop in sides.items()}
    return made


def measure(model: Model, maps: dict[str, Maps], pictures: Sequence[Pixels], twins: Twins) -> dict[str, Any]:
    """The shares of every map, and what whole cells lose by each way of hiding."""
    answers = AnsweringModel(model, threads=1)
    size = model.input_spec.size
    lost: dict[str, list[NDArray[np.float64]]] = {name: [] for name in maps}
    scores, whole = [], []
    for number, picture in enumerate(pictures):
        batch, twin = model.input_spec.normalise(picture[None]).astype(np.float32), twins.nearest(picture)
        nothing = [np.zeros(size, dtype=bool)]
        hidden = [masked_images(picture, nothing, twin if kind == "exchange" else kind) for kind in HIDING[1:]]
        first, *rest = answers.probabilities(np.concatenate([picture[None], *hidden]))[:, DEFECTIVE]
        scores.append(first)
        whole.append(first - np.array(rest))
        for name, make in maps.items():
            fine = at_granularity(make(batch, np.array([DEFECTIVE]))[0], size, CELL)
            lost[name].append(drops(answers, picture, fine, twin, number))
    base = np.array(scores)
    return {
        "mean score": float(base.mean()),
        "the whole cell": {
            kind: vars(bootstrap_ratio(np.array(whole)[:, place], base)) for place, kind in enumerate(HIDING[1:])
        },
        **{name: rows(np.stack(found), base) for name, found in lost.items()},
    }


@click.command()
@click.option("--folder", type=click.Path(exists=True, path_type=Path), default=Path("build/inspection"))
@click.option("--split", "part", type=click.Choice(["train", "unseen"]), default="unseen", show_default=True)
@click.option("--cells", "count", default=100, show_default=True, help="Defective cells.")
@click.option("--explainer", "explainers", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--write", type=click.Path(path_type=Path), help="build/cells-SPLIT.json unless told.")
@plainly
def main(folder: Path, part: str, count: int, explainers: tuple[Path, ...], write: Path | None) -> None:
    sys.path.insert(0, str(INSPECTION))
    from cells import split

    training, unseen = split(folder)
    model = load_model(folder / "cells.onnx")
    fit = model.input_spec.fit
    chosen = training if part == "train" else unseen
    bad = sorted(file for file, worse in zip(chosen.files, chosen.defective, strict=True) if worse)
    order = np.random.default_rng(0).permutation(len(bad))[:count]
    good = [file for file, worse in zip(training.files, training.defective, strict=True) if not worse]
    twins = Twins.of([fit(read_image(file))[0] for file in good])
    maps: dict[str, Maps] = {file.stem: explainer_maps(file, 1) for file in explainers or (folder / "explainer.onnx",)}
    for name in (*at_depths(model), "cam", "random-class"):
        maps[name] = make_class_method(name, model, model.default_layer.value).evidence
    result = {
        "command": f"python -m benchmarks.truth.cells --split {part} --cells {count}",
        "cells": len(order),
        **measure(model, maps, [fit(read_image(bad[index]))[0] for index in order], twins),
    }
    out = write or Path(f"build/cells-{part}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{len(order)} cells, mean score {result['mean score']:.3f}; whole cell {result['the whole cell']}")
    for name in maps:
        for kind in HIDING:
            for area, sides in result[name][kind].items():
                told = ", ".join(
                    f"{side} {found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
                    for side, found in sides.items()
                )
                print(f"{name:60} {kind:9} {area:5} {told}")


if __name__ == "__main__":
    main()
