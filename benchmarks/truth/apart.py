"""The truth before a better generator: how far apart can the masks of one picture's filters be?

    python -m benchmarks.truth.apart [--networks demo,vgg,resnet] [--pictures 100] [--device cuda] [--sanity 7]
    python -m benchmarks.truth.apart --networks lite0 --photographs FOLDER
    python -m benchmarks.truth.apart --networks boards --photographs DEEPPCB

For the generator, the feature map, the gradient, per-image optimisation (the oracle of what masks can be) and
optimisation with a term against the picture's other filters: retention AUC, specificity, the same retention at areas
.03 and .05 alone, rank correlation and overlap between the masks of two filters of a picture, and where parts are known
agreement, pointing game and IoU at the part's own size (pairs whose filter falls without the part). `--sanity N` draws
N conv layers anew, trains a generator for that network too, and tells how each method's masks correlate before and
after. Unseen pictures, an unseen infill (inpaint), common granularity. Optimised maps are kept in the folder `--out`,
one file a picture, so that a run that was stopped goes on. Writes docs/apart.json, and its tables as docs/apart.md.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.networks import ROOT
from benchmarks.truth.apart_page import write_page
from benchmarks.truth.filters_apart import Maps, Scene, TorchProbe, measure, table
from fsagn_onnx.data.images import list_images
from fsagn_onnx.evaluation.sanity import rank_correlation, reinitialise
from fsagn_onnx.generator import train
from fsagn_onnx.generator.objective import Objective
from fsagn_onnx.methods import make_method
from fsagn_onnx.methods.optimise import Optimise
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.models.train_demo_explainer import IMAGES, OPTIONS
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.masks import area_rank, from_rank, to_common_granularity
from fsagn_onnx.statistics.bootstrap import bootstrap_mean
from fsagn_onnx.testing.synthetic import write_folder

CONTRAST = Objective(contrast=1.0)
"""Of the optimisation against other filters."""

HOLD_OUT_EVERY = 5


@dataclass(frozen=True)
class Subject:
    """A network, its explainer, and pictures that neither has seen."""

    model: Model
    explainer: Path | None
    pictures: tuple[Path, ...]
    parts: Path | None = None


def subject(name: str, count: int, out: Path, photographs: Path | None, explainer: Path | None) -> Subject:
    if name == "lite0":
        from benchmarks.networks import lite0

        model, shipped = lite0()
        if photographs is None:
            raise click.UsageError("photographs are needed for lite0: --photographs FOLDER")
        held_out = sorted(list_images([photographs]), key=lambda path: path.name)[::HOLD_OUT_EVERY]
        return Subject(load_model(model), explainer or shipped, tuple(held_out[:count]))
    if name == "boards":
        return boards(count, out, photographs, explainer)
    from benchmarks.trained_networks import default_subject

    model, explainer = default_subject(name, explainer)
    folder = out / f"test-{count}"
    if not (folder / "names.json").exists():
        write_folder(folder, "test", count)
    return Subject(load_model(model), explainer, tuple(list_images([folder / "images"])), folder / "names.json")


def boards(count: int, out: Path, data: Path | None, explainer: Path | None) -> Subject:
    """The boards' network and drawn crops of DeepPCB's test split, each with one defect."""
    from fsagn_onnx.models.boards import board_pairs, read_boards, write_pairs

    if data is None:
        raise click.UsageError("boards are needed: --photographs DEEPPCB")
    folder, models = out / f"boards-{count}", ROOT / "models"
    if not (folder / "parts.json").exists():
        pairs = [pair for board in read_boards(data, "test") for pair in board_pairs(board)]
        write_pairs([pairs[index] for index in np.random.default_rng(0).permutation(len(pairs))[:count]], folder)
    names = json.loads((folder / "parts.json").read_text())["images"]
    pictures = tuple(folder / row["file_name"] for row in names if not row["file_name"].startswith("good/"))
    return Subject(load_model(models / "boards_cnn.onnx"), explainer or models / "boards_explainer.onnx", pictures)


def remembered(make: Maps, folder: Path) -> Maps:
    """The same maps, one file a picture, so that what takes minutes is made once."""

    def kept(batch: NDArray[np.float32], features: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        folder.mkdir(parents=True, exist_ok=True)
        made = []
        for row in range(len(batch)):
            one = slice(row, row + 1)
            name = hashlib.sha256(batch[one].tobytes() + features[one].tobytes() + ids[one].tobytes()).hexdigest()[:20]
            path = folder / f"{name}.npy"
            if not path.exists():
                unfinished = path.with_suffix(".part.npy")
                np.save(unfinished, make(batch[one], features[one], ids[one]))
                unfinished.replace(path)
            made.append(np.load(path))
        return np.concatenate(made)

    return kept


def explained(engine: FileEngine) -> Maps:
    def make(batch: NDArray[np.float32], features: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return from_rank(engine.run(batch, ids).area_rank)

    return make


def methods(
    model: Model, layer: str, explainer: Path | None, device: str, steps: int, against: bool, out: Path
) -> dict[str, Maps]:
    """The compared methods; the generator first. ``against``: optimisation against other filters too."""
    made: dict[str, Maps] = {}
    if explainer is not None:
        made["generator"] = explained(FileEngine(explainer, "cpu"))
    for name in ("activation", "gradient", "random"):
        made[name] = make_method(name, model, layer).saliency
    if steps:
        for name, objective in (("optimise", Objective(contrast=0.0)), ("optimise apart", CONTRAST))[: 1 + against]:
            found = Optimise(model, layer, steps=steps, objective=objective, device=device).saliency
            made[name] = remembered(found, out / "maps" / f"{model.path.stem}-{name.replace(' ', '-')}-{steps}")
    return made


def sanity(
    found: Subject, layer: str, before: Scene, maps: dict[str, NDArray[np.float32]], after: Path, of: dict[str, Maps]
) -> dict[str, Any]:
    """Rank correlation of each method's masks before and after layers were drawn anew, same pictures and filters."""
    size, correlated = found.model.input_spec.size, {}
    probe = TorchProbe(load_model(after), layer, "cpu")
    features = probe.features(before.pixels)
    for name, make in of.items():
        if name == "random" or name not in maps:
            continue
        scene = Scene(before.paths, before.pixels, before.batch, features, before.filters, before.annotations)
        one, two = (area_rank(to_common_granularity(single, size)) for single in (maps[name], scene.maps(make)))
        alive = np.take_along_axis(features.max(axis=(2, 3)), before.filters, axis=1) > 0
        values = np.where(alive, rank_correlation(one, two), np.nan)
        known = values[alive.any(axis=1)]
        correlated[name] = vars(bootstrap_mean(np.nanmean(known, axis=1)))
    return correlated


def redrawn(found: Subject, layer: str, layers: int, out: Path, pairs: int, device: str) -> tuple[Path, Path]:
    """The network with so many conv layers drawn anew, and a generator trained for it as the demo CNN's was."""
    path = out / f"{found.model.path.stem}-redrawn{layers}.onnx"
    onnx.save(reinitialise(onnx.load(found.model.path), layers), path)
    explainer = path.with_name(f"{path.stem}-{pairs}-explainer.onnx")
    if not explainer.exists():
        folder = out / "train"
        if not (folder / "names.json").exists():
            write_folder(folder, "train", IMAGES)
        options = replace(OPTIONS, pairs=pairs)
        train(path, [folder / "images"], explainer, layer=layer, options=options, overwrite=True, device=device)
    return path, explainer


@click.command()
@click.option("--networks", default="demo,vgg,resnet", show_default=True, help="Of demo, vgg, resnet, boards, lite0.")
@click.option("--pictures", "count", default=100, show_default=True, help="Held-out pictures.")
@click.option("--filters", default=5, show_default=True, help="Of each picture.")
@click.option("--steps", default=80, show_default=True, help="Of optimisation; 0: none.")
@click.option("--against/--alone", default=True, show_default=True, help="Optimise against other filters too.")
@click.option("--photographs", type=click.Path(path_type=Path), help="Folder of photographs, or of DeepPCB.")
@click.option("--explainer", type=click.Path(path_type=Path), help="Of the one network that is named.")
@click.option("--sanity", "layers", default=0, show_default=True, help="Conv layers to draw anew; 0: none.")
@click.option("--pairs", default=32_000, show_default=True, help="That a redrawn network's generator sees.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/apart"), show_default=True)
@click.option("--write", type=click.Path(path_type=Path), default=Path("docs/apart.json"), show_default=True)
def main(
    networks: str,
    count: int,
    filters: int,
    steps: int,
    against: bool,
    photographs: Path | None,
    explainer: Path | None,
    layers: int,
    pairs: int,
    device: str,
    out: Path,
    write: Path,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = json.loads(write.read_text()) if write.exists() else {}
    for name in networks.split(","):
        started = time.monotonic()
        found = subject(name, count, out, photographs, explainer)
        layer = found.model.layer(FileEngine(found.explainer, "cpu").metadata.layer if found.explainer else None).value
        probe = TorchProbe(found.model, layer, device)
        scene = Scene.of(probe, found.pictures, filters, found.parts)
        of = methods(found.model, layer, found.explainer, device, steps, against, out)
        maps = {method: scene.maps(make) for method, make in of.items()}
        figures = measure(probe, scene, maps)
        print(f"\n{name}, {layer}: {len(scene.paths)} pictures x {filters} filters\n\n{table(figures)}", flush=True)
        result[name] = {
            "command": f"python -m benchmarks.truth.apart --networks {name} --pictures {count} --steps {steps}"
            + ("" if photographs is None else " --photographs FOLDER")
            + ("" if explainer is None else " --explainer FILE")
            + ("" if against else " --alone")
            + (f" --sanity {layers} --pairs {pairs}" if layers else ""),
            "pictures": len(scene.paths),
            "filters": filters,
            "figures": {
                method: {figure: vars(value) for figure, value in row.items()} for method, row in figures.items()
            },
        }
        if layers:
            path, retrained = redrawn(found, layer, layers, out, pairs, device)
            after_methods = methods(load_model(path), layer, retrained, device, steps, against, out)
            after = sanity(found, layer, scene, maps, path, after_methods)
            result[name]["sanity"] = {"layers": layers, "pairs": pairs, "correlation": after}
            for method, value in after.items():
                print(f"  redrawn, {method}: {value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")
        print(f"{time.monotonic() - started:.0f} s", flush=True)
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        write_page(result, write.with_suffix(".md"))


if __name__ == "__main__":
    main()
