"""Could the boards' evidence keep the decision better? Other maps out of the same explainer, beside it.

    python -m benchmarks.truth.board_tries --data DEEPPCB [--pairs 150] [--split trainval] [--only mirrored]

Kept and removed as in `boards.py`, on training boards unless told: what is chosen here is to be measured on unseen ones
there. Each map is brought to cells of 4 pixels; mixtures are sums of maps over their largest value. Prints means and
paired differences to the explainer's own evidence and to Grad-CAM, with 95 % bootstrap intervals.

    mirrored        the mean of the evidence of the four mirrored pictures, four passes
    smoothed        the evidence after one more Gaussian of one cell, and of two
    filters         sum over the 20 most contributing filters of contribution x -log area rank, one pass
    + filters       the evidence and that, mixed half and half
    + cam           the evidence and the class activation map, mixed half and half
    + gradient      the evidence and gradient x activation at the last and the chosen block, mixed half and half
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import plainly
from benchmarks.truth.boards import CELL, MODEL, fitted, shown_interval, usable
from fsagn_onnx.evaluation.decision import AnsweringModel, answers_shown, at_granularity, highest_places
from fsagn_onnx.methods import make_class_method
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.models.boards import board_pairs, read_boards
from fsagn_onnx.runtime.contract import DECISIVE
from fsagn_onnx.runtime.depth_choice import DECISION_AREAS
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.infill import HELD_OUT
from fsagn_onnx.runtime.masks import from_rank, grid_of, to_grid
from fsagn_onnx.statistics.bootstrap import bootstrap_mean

FILTERS = 20
Map = NDArray[np.float32]
Batch = NDArray[np.float32]
Way = Callable[[Batch, int], Map]


def over_peak(found: Map) -> Map:
    """A map over its largest value."""
    return np.asarray(found / max(float(found.max()), 1e-12), dtype=np.float32)


class Ways:
    """Maps of one crop (1, 3, H, W) and one class, at cells of `CELL` pixels."""

    def __init__(self, model: Model, explainer: Path) -> None:
        self._model = model
        self._engine = FileEngine(explainer, "cpu", 1)
        self._grid = grid_of(self._model.input_spec.size, CELL)

    def method(self, name: str) -> Way:
        made = make_class_method(name, self._model, self._model.default_layer.value)
        return lambda batch, number: to_grid(made.evidence(batch, np.array([number]))[0], self._grid)

    def evidence(self, batch: Batch, number: int) -> Map:
        found = self._engine.decide(batch, np.array([[DECISIVE]]), np.array([[number]])).decisions
        assert found is not None
        return to_grid(from_rank(found.evidence_rank[0, 0]), self._grid)

    def sideways(self, batch: Batch, number: int) -> Map:
        return self.mirrored(batch, number, (1,))

    def mirrored(self, batch: Batch, number: int, upright: Sequence[int] = (1, -1)) -> Map:
        total = np.zeros(self._grid, dtype=np.float32)
        for rows in upright:
            for columns in (1, -1):
                turned = np.ascontiguousarray(batch[:, :, ::rows, ::columns])
                total += self.evidence(turned, number)[::rows, ::columns]
        return total

    def smoothed(self, cells: float) -> Way:
        return lambda batch, number: np.asarray(
            cv2.GaussianBlur(self.evidence(batch, number), (0, 0), cells, borderType=cv2.BORDER_REFLECT), np.float32
        )

    def filters(self, batch: Batch, number: int) -> Map:
        looked = self._engine.decide(batch, np.full((1, FILTERS), DECISIVE, dtype=np.int64), np.array([[number]]))
        assert looked.decisions is not None
        weights = np.maximum(looked.decisions.contributions[0, 0], 0)
        return to_grid(np.tensordot(weights, from_rank(looked.area_rank[0]), 1), self._grid)

    def mixed(self, first: Way, second: Way) -> Way:
        return lambda batch, number: over_peak(first(batch, number)) + over_peak(second(batch, number))

    def all(self, block: str) -> dict[str, Way]:
        """By name; `block` is where gradient x activation measures best."""
        ways: dict[str, Way] = {"evidence": self.evidence, "grad-cam": self.method("grad-cam")}
        ways["recipro-cam"] = self.method("recipro-cam")
        ways["mirrored"] = self.mirrored
        ways["smoothed 1"], ways["smoothed 2"] = self.smoothed(1.0), self.smoothed(2.0)
        ways["filters"], ways["+ filters"] = self.filters, self.mixed(self.evidence, self.filters)
        ways["+ cam"] = self.mixed(self.evidence, self.method("grad-cam"))
        for name in (self._model.default_layer.value, block):
            ways[f"+ gradient {name}"] = self.mixed(self.evidence, self.method(f"gradient-x-activation@{name}"))
        return ways


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option("--explainer", type=click.Path(path_type=Path), default=MODEL.with_name("boards_explainer.onnx"))
@click.option("--pairs", "count", default=150, show_default=True)
@click.option("--block", default="block1", show_default=True, help="Where boards.py chose gradient x activation.")
@click.option("--split", default="trainval", show_default=True, type=click.Choice(["test", "trainval"]))
@click.option("--only", help="Names of maps, joined by commas.")
@plainly
def main(data: Path, explainer: Path, count: int, block: str, split: str, only: str | None) -> None:
    model = load_model(MODEL)
    answers = AnsweringModel(model, threads=1)
    pairs = [pair for board in read_boards(data, split) for pair in board_pairs(board)]
    chosen, _ = usable(model, answers, pairs, count, 2)
    ways = Ways(model, explainer).all(block)
    pictures = ((fitted(model, pair.defect), pair.box.type + 1) for pair in chosen)
    print(f"{len(chosen)} pairs of {split}")
    compare(model, answers, only_of(ways, only), pictures)


def only_of(ways: Mapping[str, Way], only: str | None) -> dict[str, Way]:
    """Those named, and what they are compared with."""
    wanted = list(ways) if only is None else ("evidence", "grad-cam", *only.split(","))
    return {name: way for name, way in ways.items() if name in wanted}


def compare(
    model: Model, answers: AnsweringModel, ways: Mapping[str, Way], pictures: Iterable[tuple[NDArray[np.uint8], int]]
) -> None:
    """Print kept and removed of each map, over pictures (H, W, 3) as the model takes them, and a class of each."""
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for pixels, number in pictures:
        batch = model.input_spec.normalise(pixels[None]).astype(np.float32)
        for name, way in ways.items():
            fine = at_granularity(way(batch, number), (pixels.shape[0], pixels.shape[1]), 0)
            masks = [highest_places(fine, area) for area in DECISION_AREAS]
            shown = answers_shown(answers, pixels, masks, number, HELD_OUT)
            rows[name].append((shown.kept, shown.removed))
    figures = {name: np.array(values) for name, values in rows.items()}
    for name, values in figures.items():
        cells = [f"{name:20} kept {values[:, 0].mean():.3f} removed {values[:, 1].mean():.3f}"]
        for other in ("evidence", "grad-cam"):
            kept, removed = (shown_interval(bootstrap_mean(one)) for one in (values - figures[other]).T)
            cells.append(f"to {other}: kept {kept}, removed {removed}")
        print("; ".join(cells))


if __name__ == "__main__":
    main()
