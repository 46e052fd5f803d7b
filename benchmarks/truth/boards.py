"""What is a decision about a real board worth, when the defect can be exchanged for the good board?

    python -m benchmarks.truth.boards --data DEEPPCB [--model FILE] [--explainer FILE]... [--pairs 200]

Unseen pairs of DeepPCB's test split that the network gets right (the defect's type, and the good place called good) and
where exchanging the true box makes the answer "good". Per method, of its evidence for the network's answer: pointing
(the highest place lies in the box), IoU (the highest places, as many as the box holds), exchange (these places replaced
by the good board: does the answer become "good"), with half of that area, with an equally large area elsewhere, and the
probability with the areas .03 to .5 alone (kept) and without them (removed), infill inpaint, which no training sees, at
cells of 4 pixels. Methods that need a layer are read at the network's default layer; gradient x activation at each conv
layer, and the best of these is chosen on training boards by kept - removed. Writes the figures and the paired
differences with their 95 % bootstrap intervals as JSON, prints them, and says which bars hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import plainly
from benchmarks.truth.stored import StoredFigures
from fsagn_onnx.evaluation.decision import (
    AnsweringModel,
    SwitchedOff,
    answers_shown,
    at_granularity,
    exchanged,
    highest_places,
    iou,
    moved_away,
    points_at,
)
from fsagn_onnx.methods import make_class_method
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.models.boards import LABELS, Pair, board_pairs, read_boards
from fsagn_onnx.runtime.contract import DECISIVE
from fsagn_onnx.runtime.depth_choice import DECISION_AREAS, SUMMED
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.runtime.infill import HELD_OUT
from fsagn_onnx.runtime.masks import from_rank
from fsagn_onnx.runtime.session import Session
from fsagn_onnx.statistics.bootstrap import Interval, bootstrap_mean

COMMAND = "python -m benchmarks.truth.boards"
MODEL = Path(__file__).parents[2] / "models" / "boards_cnn.onnx"
GOOD = LABELS.index("good")
CELL = 4
"""Pixels of the cells at which kept and removed of every method are measured; other figures take maps as they are."""
FAMILY = ("cam", "grad-cam", "layer-cam", "recipro-cam")
OTHERS = ("optimise-class", "occlusion", "integrated-gradients", "rise-class")
CONTROLS = ("random-class", "centre-class")
FIGURES = ("pointing", "IoU", "exchange", "exchange, half the area", "elsewhere", "kept", "removed")
BATCH = 25
MOST_BLOCKS = 10
"""Of networks with more conv layers, gradient x activation is read where `--why` would on a plain model."""

Maps = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]


def fitted(model: Model, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop as the model takes it, ``(H, W, c)``."""
    return model.input_spec.fit(np.repeat(grey[..., None], 3, axis=2))[0]


def usable(
    model: Model, answers: AnsweringModel, pairs: Sequence[Pair], count: int, seed: int
) -> tuple[list[Pair], float]:
    """So many pairs, drawn, that the network gets right and whose box exchanged says "good"; and the latter's share."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    kept: list[Pair] = []
    right = turned = 0
    for index in order.tolist():
        pair = pairs[index]
        defect, good = fitted(model, pair.defect), fitted(model, pair.good)
        found = answers.winners(np.stack([defect, good, exchanged(defect, good, [pair.mask])[0]]))
        if found[0] == pair.box.type + 1 and found[1] == GOOD:
            right += 1
            turned += int(found[2] == GOOD)
            if found[2] == GOOD:
                kept.append(pair)
        if len(kept) == count:
            break
    return kept, turned / max(1, right)


def explainer_maps(path: Path, threads: int | None = None) -> Maps:
    """The evidence of an explainer file for one class in a batch; one pass."""
    session = Session(path, threads=threads)

    def maps(batch: NDArray[np.float32], classes: NDArray[np.int64]) -> NDArray[np.float32]:
        image = next(port.name for port in session.inputs if port.name not in ("classes", "filters"))
        asked = np.full((len(batch), 1), DECISIVE, dtype=np.int64)
        feeds: dict[str, NDArray[Any]] = {image: batch, "classes": classes[:, None], "filters": asked}
        return from_rank(session.run(["evidence_rank"], feeds)["evidence_rank"][:, 0])

    return maps


def evidence(model: Model, maps: Maps, pairs: Sequence[Pair]) -> list[NDArray[np.float32]]:
    """The maps of the pairs' defects."""
    batch = np.stack([model.input_spec.normalise(fitted(model, pair.defect)) for pair in pairs]).astype(np.float32)
    return list(maps(batch, np.array([pair.box.type + 1 for pair in pairs], dtype=np.int64)))


def measured(
    model: Model, answers: AnsweringModel, pair: Pair, found: NDArray[np.float32], cell: int, *, areas: bool = True
) -> list[float]:
    """The figures of a map in a pair; without areas, kept and removed are NaN."""
    defect, good = fitted(model, pair.defect), fitted(model, pair.good)
    size, box = pair.mask.shape, float(pair.mask.mean())
    fine = at_granularity(found, size, cell)
    whole, half = highest_places(fine, box), highest_places(fine, box / 2)
    away = moved_away(whole, np.random.default_rng(0))
    turned = answers.winners(exchanged(defect, good, [whole, half, away])) == GOOD
    figures = [points_at(fine, pair.mask), iou(whole, pair.mask), *turned.tolist()]
    if not areas:
        return [*figures, float("nan"), float("nan")]
    coarse = at_granularity(found, size, CELL)
    shown = answers_shown(
        answers, defect, [highest_places(coarse, area) for area in DECISION_AREAS], pair.box.type + 1, HELD_OUT
    )
    return [*figures, shown.kept, shown.removed]


@dataclass(frozen=True)
class Bench:
    """Measures maps of a model on pairs; what is known already is not measured again.

    Attributes:
        model: the network.
        answers: its answers.
        cell: of pointing, IoU and exchange.
        stored: figures of pairs.
        areas: kept and removed too, which take most of the time.
    """

    model: Model
    answers: AnsweringModel
    cell: int
    stored: StoredFigures
    areas: bool = True

    def figures(self, name: str, maps: Maps, pairs: Sequence[Pair]) -> dict[str, NDArray[np.float64]]:
        """Each figure ``(pairs,)`` of a method."""
        missing = [pair for pair in pairs if (pair.name, name) not in self.stored]
        for start in range(0, len(missing), BATCH):
            some = missing[start : start + BATCH]
            for pair, found in zip(some, evidence(self.model, maps, some), strict=True):
                self.stored.add(
                    pair.name, name, measured(self.model, self.answers, pair, found, self.cell, areas=self.areas)
                )
        return self.stored.of(name, [pair.name for pair in pairs])


def blocks(model: Model) -> list[str]:
    """Where gradient x activation is read: every conv layer, or the depths of `--why` and three of them together."""
    found = [layer.value for layer in model.layers if min(layer.shape[1:]) >= 3]
    if len(found) <= MOST_BLOCKS:
        return found
    with PlainEvidence(model, threads=1) as engine:
        depths = engine.depths
    return [*depths, "+".join(depths[: -SUMMED - 1 : -1])]


def best_block(bench: Bench, pairs: Sequence[Pair]) -> tuple[str, dict[str, Any]]:
    """The conv layer at which gradient x activation keeps and removes the decision best, on training boards."""
    scores: dict[str, Any] = {}
    for layer in blocks(bench.model):
        method = make_class_method(f"gradient-x-activation@{layer}", bench.model, bench.model.default_layer.value)
        figures = bench.figures(f"gradient-x-activation@{layer}", method.evidence, pairs)
        scores[layer] = {name: round(float(values.mean()), 4) for name, values in figures.items()}
    gap = {layer: row["kept"] - row["removed"] if bench.areas else row["IoU"] for layer, row in scores.items()}
    return max(gap, key=gap.__getitem__), scores


def middle(model: Model) -> str:
    """The third conv layer from the end, or the one halfway up a network of many."""
    found = [layer.value for layer in model.layers if min(layer.shape[1:]) >= 3]
    return found[-3 if len(found) <= MOST_BLOCKS else len(found) // 2]


def switched_off(model: Model, pairs: Sequence[Pair], layers: Sequence[str]) -> dict[str, str]:
    rows = {}
    for layer in layers:
        with SwitchedOff(model, layer) as off:
            values = [off.agreement(fitted(model, pair.defect), pair.box.type + 1) for pair in pairs]
        rows[layer] = f"{bootstrap_mean(np.array(values))}, least {min(values):.3f}"
    return rows


def shown_interval(value: Interval) -> str:
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def differences(
    figures: dict[str, dict[str, NDArray[np.float64]]], of: str, others: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Paired differences of one method to others, per figure."""
    return {
        other: {
            name: shown_interval(bootstrap_mean(apart))
            for name in FIGURES
            if not np.isnan(apart := figures[of][name] - figures[other][name]).any()
        }
        for other in others
    }


def bars(
    figures: dict[str, dict[str, NDArray[np.float64]]], ours: str, best: str, family: Sequence[str]
) -> dict[str, bool]:
    """The issue's bars for one explainer; without those of kept and removed where these were not measured."""
    own = figures[ours]
    kept = [bootstrap_mean(own["kept"] - figures[name]["kept"]).low for name in family]
    removed = [bootstrap_mean(own["removed"] - figures[name]["removed"]).high for name in family]
    block = figures[best]
    shown = {
        "kept better than the class activation map's family": min(kept) > 0,
        "removed better than the class activation map's family": max(removed) < 0,
        "kept not below gradient x activation's best block": bootstrap_mean(own["kept"] - block["kept"]).high >= 0,
        "removed not above gradient x activation's best block": bootstrap_mean(own["removed"] - block["removed"]).low
        <= 0,
    }
    return {
        "pointing >= .99": bool(own["pointing"].mean() >= 0.99),
        "IoU >= .70": bool(own["IoU"].mean() >= 0.70),
        **({} if np.isnan(own["kept"]).any() else shown),
        "exchange >= .98": bool(own["exchange"].mean() >= 0.98),
        "exchange >= .9": bool(own["exchange"].mean() >= 0.9),
        "exchange, half the area >= .95": bool(own["exchange, half the area"].mean() >= 0.95),
        "elsewhere <= .03": bool(own["elsewhere"].mean() <= 0.03),
        "IoU >= the class activation map's + .10": bool(own["IoU"].mean() >= figures[family[0]]["IoU"].mean() + 0.1),
    }


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option("--model", "path", default=MODEL, show_default="models/boards_cnn.onnx", type=click.Path(path_type=Path))
@click.option("--explainer", "explainers", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--pairs", "count", default=200, show_default=True, help="Unseen pairs.")
@click.option("--chosen-on", default=60, show_default=True, help="Training pairs on which the best block is chosen.")
@click.option("--methods", default=",".join((*FAMILY, *OTHERS, *CONTROLS)), show_default=True)
@click.option("--best-only", is_flag=True, help="Of gradient x activation, only the chosen block on unseen pairs.")
@click.option("--without-areas", is_flag=True, help="Neither kept nor removed; the best block is that of the best IoU.")
@click.option("--cell", default=0, show_default=True, help="Cells of pointing, IoU and exchange; 0: maps as they are.")
@click.option("--threads", default=1, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="Keeps the figures of pairs, so that a run goes on.")
@click.option("--split", default="test", show_default=True, type=click.Choice(["test", "trainval"]))
@click.option("--seed", default=0, show_default=True)
@click.option("--write", type=click.Path(path_type=Path), default=Path("build/boards-truth.json"), show_default=True)
@plainly
def main(
    data: Path, path: Path, explainers: tuple[Path, ...], count: int, chosen_on: int, methods: str, best_only: bool,
    without_areas: bool, cell: int, threads: int, results: Path | None, split: str, seed: int, write: Path,
) -> None:  # fmt: skip
    model = load_model(path)
    size = model.input_spec.size[0]
    answers = AnsweringModel(model, threads=threads)
    bench = Bench(model, answers, cell, StoredFigures(results, FIGURES), not without_areas)
    training = [pair for board in read_boards(data, "trainval") for pair in board_pairs(board, size)]
    unseen = training if split == "trainval" else [p for b in read_boards(data, "test") for p in board_pairs(b, size)]
    chosen, _ = usable(model, answers, training, chosen_on, seed + 1)
    pairs, turned = usable(model, answers, unseen, count, seed)
    best, per_block = best_block(bench, chosen)
    print(f"{len(pairs)} pairs; of those that the network gets right, the box exchanged says good in {turned:.3f}")
    print(f"gradient x activation on training boards, chosen block: {best}")
    default = model.default_layer.value
    makers: dict[str, Maps] = {file.stem: explainer_maps(file, threads) for file in explainers}
    layers = [best] if best_only else blocks(model)
    passes: dict[str, Sequence[int]] = dict.fromkeys(makers, (0, 0))
    for name in [f"gradient-x-activation@{layer}" for layer in layers] + methods.split(","):
        method = make_class_method(name, model, default)
        makers[name], passes[name] = method.evidence, method.passes
    figures: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, maps in makers.items():
        figures[name] = bench.figures(name, maps, pairs)
        cells = "  ".join(f"{figure} {values.mean():.3f}" for figure, values in figures[name].items())
        print(f"{name:36} {cells}", flush=True)
    block = f"gradient-x-activation@{best}"
    family = [name for name in FAMILY if name in figures]
    compared = [file.stem for file in explainers] or [block]
    result: dict[str, Any] = {
        "command": f"{COMMAND} --model {path.name} --pairs {count} --methods {methods}"
        f"{' --best-only' if best_only else ''} --cell {cell} --split {split} --seed {seed}",
        "pairs": len(pairs),
        "box exchanged says good": turned,
        "chosen block": best,
        "blocks on training boards": per_block,
        "figures": {
            name: {
                figure: shown_interval(bootstrap_mean(values))
                for figure, values in row.items()
                if not np.isnan(values).any()
            }
            for name, row in figures.items()
        },
        "passes for one class (forward, backward)": passes,
        "differences": {name: differences(figures, name, [n for n in figures if n != name]) for name in compared},
        "switched off against contributions": switched_off(
            model, pairs[:40], list(dict.fromkeys([default, middle(model)]))
        ),
        "bars": {file.stem: bars(figures, file.stem, block, family) for file in explainers},
    }
    write.parent.mkdir(parents=True, exist_ok=True)
    write.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name in ("switched off against contributions", "bars"):
        print(f"{name}: {json.dumps(result[name], indent=1)}")
    print(write)


if __name__ == "__main__":
    main()
