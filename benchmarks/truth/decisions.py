"""Is an explainer's evidence what a decision hangs on? Kept and removed beside other methods, on unseen pictures.

    python -m benchmarks.truth.decisions demo [--pictures 100] [--explainer FILE]
    python -m benchmarks.truth.decisions lite0 --photos FOLDER [--pictures 140] [--methods cam,grad-cam,rise-class]

`demo`: the demo CNN on the first pictures of the synthetic set's test split. `lite0`: EfficientNet-Lite0 on photographs
of its own domain, every fifth of them (in the order of names), which the shipped generator was not trained on; in an
order drawn once, so that fewer are a fair part. Of every picture the class that the model answers; kept and removed are
the mean of its probability over the areas .03 .05 .1 .2 .3 .5 with the area alone and without it, infill inpaint, which
no training sees, maps at cells of `--cell` pixels. Gradient x activation is read at every depth that `--why` tries on a
plain model, and at the deepest three together; which of them is best is chosen on pictures of the training half.
Figures of a picture are kept in --results, so that a stopped run goes on and later methods join. Writes and prints
means, paired differences with their 95 % bootstrap intervals, and the cost of one class in forward and backward passes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import DEMO_EXPLAINER, DEMO_MODEL, lite0
from benchmarks.plan import plainly
from benchmarks.truth.boards import CONTROLS, FAMILY, OTHERS, Maps, explainer_maps, shown_interval
from benchmarks.truth.stored import StoredFigures
from fsagn_onnx.data.images import list_images, read_image
from fsagn_onnx.evaluation.decision import AnsweringModel, answers_shown, at_granularity, highest_places
from fsagn_onnx.methods import make_class_method
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.runtime.depth_choice import DECISION_AREAS, SUMMED
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.runtime.infill import HELD_OUT
from fsagn_onnx.statistics.bootstrap import bootstrap_mean

COMMAND = "python -m benchmarks.truth.decisions"
FIGURES = ("kept", "removed")
CHOSEN_ON = 16
"""Training pictures on which the depth is chosen."""
DEMO_KEPT, DEMO_REMOVED = 0.80, 0.33

Pixels = NDArray[np.uint8]


def subject(network: str, photos: Path | None) -> tuple[Model, Path, Iterator[tuple[str, Pixels]], list[Pixels]]:
    """The model, its shipped explainer, its unseen pictures by name, and some that it was trained on."""
    if network == "demo":
        from fsagn_onnx.testing.synthetic import SyntheticParts

        model = load_model(DEMO_MODEL)
        test, seen = SyntheticParts("test", 10_000), SyntheticParts("train", CHOSEN_ON)
        unseen = ((f"test-{number:05d}", test[number].image) for number in range(len(test)))
        return model, DEMO_EXPLAINER, unseen, [seen[number].image for number in range(CHOSEN_ON)]
    from fsagn_onnx.models.train_lite0 import split

    if photos is None:
        raise click.UsageError("lite0 needs --photos FOLDER")
    file, explainer = lite0()
    training, held_out = split(list(list_images([photos])))
    order = np.random.default_rng(0).permutation(len(held_out)).tolist()
    unseen = ((held_out[index].stem, read_image(held_out[index])) for index in order)
    return load_model(file), explainer, unseen, [read_image(path) for path in training[:CHOSEN_ON]]


class Answers:
    """Measures maps of a model's own answers."""

    def __init__(self, model: Model, cell: int, threads: int) -> None:
        self._model, self._cell = model, cell
        self._answers = AnsweringModel(model, threads=threads)

    def fit(self, picture: Pixels) -> tuple[Pixels, NDArray[np.float32], int]:
        """Pixels as the model takes them, the batch of one, and the model's answer."""
        pixels = self._model.input_spec.fit(picture)[0]
        batch = self._model.input_spec.normalise(pixels[None]).astype(np.float32)
        return pixels, batch, int(self._answers.winners(pixels[None])[0])

    def shown(self, maps: Maps, pixels: Pixels, batch: NDArray[np.float32], number: int) -> tuple[float, float]:
        """Kept and removed of a method in a picture."""
        found = maps(batch, np.array([number], dtype=np.int64))[0]
        fine = at_granularity(found, (pixels.shape[0], pixels.shape[1]), self._cell)
        masks = [highest_places(fine, area) for area in DECISION_AREAS]
        shown = answers_shown(self._answers, pixels, masks, number, HELD_OUT)
        return shown.kept, shown.removed


def at_depths(model: Model) -> list[str]:
    """Gradient x activation at each depth that `--why` tries, and at the deepest three together."""
    with PlainEvidence(model, threads=1) as engine:
        depths = engine.depths
    return [f"gradient-x-activation@{depth}" for depth in [*depths, "+".join(depths[: -SUMMED - 1 : -1])]]


def best_depth(bench: Answers, made: dict[str, Maps], names: Sequence[str], pictures: Sequence[Pixels]) -> str:
    """The one whose kept - removed is largest on pictures of the training half."""
    fitted = [bench.fit(picture) for picture in pictures]
    gaps = {name: -np.subtract(*np.mean([bench.shown(made[name], *one)[::-1] for one in fitted], 0)) for name in names}
    return max(names, key=gaps.__getitem__)


@click.command()
@click.argument("network", type=click.Choice(["demo", "lite0"]))
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Of ImageNet's classes.")
@click.option("--explainer", "explainers", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--pictures", "count", default=100, show_default=True)
@click.option("--methods", default=",".join((*FAMILY, *OTHERS, *CONTROLS)), show_default=True)
@click.option("--cell", default=4, show_default=True, help="Pixels of the cells of every map.")
@click.option("--threads", default=1, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), help="build/decisions-NETWORK-CELL.jsonl unless told.")
@click.option("--write", type=click.Path(path_type=Path), help="build/decisions-NETWORK.json unless told.")
@plainly
def main(
    network: str, photos: Path | None, explainers: tuple[Path, ...], count: int, methods: str, cell: int, threads: int,
    results: Path | None, write: Path | None,
) -> None:  # fmt: skip
    model, shipped, unseen, seen = subject(network, photos)
    bench = Answers(model, cell, threads)
    kept = StoredFigures(results or Path(f"build/decisions-{network}-{cell}.jsonl"), FIGURES)
    made: dict[str, Any] = {file.stem: explainer_maps(file, threads) for file in explainers or (shipped,)}
    ours, depths = list(made), at_depths(model)
    passes: dict[str, Sequence[int]] = dict.fromkeys(ours, (0, 0))
    for name in [*depths, *(name for name in methods.split(",") if name)]:
        method = make_class_method(name, model, model.default_layer.value)
        made[name], passes[name] = method.evidence, method.passes
    best = best_depth(bench, made, depths, seen)
    print(f"gradient x activation, best on {len(seen)} pictures of the training half: {best}", flush=True)
    names = []
    for name, picture in unseen:
        names.append(name)
        missing = [way for way in made if (name, way) not in kept]
        if missing:
            fitted = bench.fit(picture)
            for way in missing:
                kept.add(name, way, bench.shown(made[way], *fitted))
        if len(names) == count:
            break
    figures = {way: np.stack([*kept.of(way, names).values()], axis=1) for way in made}
    result: dict[str, Any] = {
        "command": f"{COMMAND} {network} --pictures {count} --methods {methods} --cell {cell}",
        "pictures": len(names),
        "chosen depth": best,
        "figures": {way: told(values) for way, values in figures.items()},
        "passes for one class (forward, backward)": passes,
        "differences": {
            own: {other: told(figures[own] - figures[other]) for other in figures if other != own} for own in ours
        },
    }
    if network == "demo":
        means = {own: figures[own].mean(axis=0) for own in ours}
        result["bar"] = {own: bool(k >= DEMO_KEPT and r <= DEMO_REMOVED) for own, (k, r) in means.items()}
    else:
        above = [*FAMILY[:3], "rise-class"]
        result["bar"] = {
            own: {m: bool(bootstrap_mean((figures[own] - figures[m])[:, 0]).low > 0) for m in above if m in figures}
            for own in ours
        }
    out = write or Path(f"build/decisions-{network}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for way, row in result["figures"].items():
        apart = {own: rows.get(way) for own, rows in result["differences"].items()}
        print(f"{way:44} {row}  {passes[way]}  {apart}")
    print(f"bar: {json.dumps(result['bar'])}\n{out}")


def told(values: NDArray[np.float64]) -> dict[str, str]:
    """Kept and removed, each with its interval."""
    return {name: shown_interval(bootstrap_mean(column)) for name, column in zip(FIGURES, values.T, strict=True)}


if __name__ == "__main__":
    main()
