"""Does `dissect` name the right parts, and none where there is nothing to name?

    python benchmarks/dissect_truth.py [--pictures 400] [--out build/dissect_truth]

Four networks on held-out rendered pictures: the demo CNN with its trained explainer, a second network (the demo CNN's
fifth block, another depth, stride and number of filters, explained without training), the demo CNN with weights drawn
anew, and the planted CNN with its patterns as parts. Truth of the first two: the part whose removal from the picture
changes the filter's feature map most, where it does so 1.25 times as much as the second. Prints one line each, writes
build/dissect_truth.json, and fails where a bound of the issue is missed.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import cv2
import numpy as np
import onnx

from fsagn_onnx.data.planted import FILTERS, planted_picture, write_planted
from fsagn_onnx.data.planted_explainer import write_planted_explainer
from fsagn_onnx.data.synthetic import write_folder
from fsagn_onnx.dissect import Dissection, dissect
from fsagn_onnx.dissect.scores import ACTIVE_SHARE
from fsagn_onnx.dissect.truth import intervention_truth
from fsagn_onnx.dissect.untrained import reinitialised
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import load_model

MODEL, EXPLAINER = Path("models/demo_cnn.onnx"), Path("models/demo_explainer.onnx")
SESSION = {"providers": "cpu", "threads": 1}


def pictures(folder: Path, count: int) -> Path:
    if not (folder / "names.json").is_file():
        write_folder(folder, "val", count)
    return folder


def against_truth(dissection: Dissection, folder: Path, model_path: Path, count: int) -> dict[str, float]:
    model = load_model(model_path)
    seeds = [item["seed"] for item in json.loads((folder / "names.json").read_text())["images"]][:count]
    peaks = np.fromfile(dissection.folder / "columns" / "peaks", np.float32).reshape(dissection.images, -1)[:count]
    limits = np.array([row.threshold or np.inf for row in dissection.filters])
    ids = [row.filter for row in dissection.filters]
    truth = intervention_truth(model, dissection.layer, ids, seeds, peaks >= limits, **SESSION)
    clear = np.flatnonzero(truth.clear)
    named = [k for k in clear if dissection.filters[k].part is not None]
    right = [dissection.filters[k].part == truth.name(k) for k in named]
    best = [dissection.filters[k].best == truth.name(k) for k in clear]
    return {
        "filters": len(ids),
        "named": sum(row.part is not None for row in dissection.filters),
        "clear": len(clear),
        "right of clear and named": float(np.mean(right)),
        "right of clear": float(np.mean(best)),
        "instability mask - peak": dissection.summary["instability"]["difference"],
    }


def untrained(folder: Path, out: Path, seeds: int) -> list[float]:
    """Share of filters that are given a part, for demo CNNs with new weights, as torch draws them and as He's rule."""
    shares = []
    for seed in range(seeds):
        proto = reinitialised(onnx.load(MODEL), 1_000 + seed)
        assert proto is not None
        path = out / f"untrained-{seed}.onnx"
        onnx.save(proto, path)
        model = load_model(path)
        engine = engine_for(model, "block6", "activation", **SESSION)
        found = dissect(
            model, engine, folder / "images", out / f"untrained-{seed}", parts=folder, overwrite=True, session=SESSION
        )
        shares.append(found.summary["named"] / len(found.filters))
    return shares


def planted(out: Path, count: int, *, shuffled: bool) -> tuple[float, float]:
    """Share of the planted CNN's filters that are given their own pattern, and another one.

    ``shuffled``: the masks of one picture's patterns are given to another picture, so that nothing can be named.
    """
    folder = out / ("planted-shuffled" if shuffled else "planted")
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        picture = planted_picture(seed)
        truth = planted_picture(count + seed) if shuffled else picture
        numbers = np.zeros(picture.image.shape[:2], dtype=np.uint8)
        for k in truth.boxes:
            numbers[truth.box_mask(k)] = k + 1
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), picture.image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{seed}.png"), numbers)
    (folder / "names.json").write_text(json.dumps({str(k + 1): f"pattern {k}" for k in range(FILTERS)}))
    model, explainer = write_planted(out / "planted.onnx"), write_planted_explainer(out / "planted-explainer.onnx")
    run = folder.with_name(folder.name + "-run")
    found = dissect(model, explainer, folder / "images", run, parts=folder, overwrite=True, session=SESSION)
    own = [row.part == f"pattern {row.filter}" for row in found.filters]
    other = [row.part is not None and row.part != f"pattern {row.filter}" for row in found.filters]
    return float(np.mean(own)), float(np.mean(other))


@click.command()
@click.option("--pictures", "count", default=400, show_default=True)
@click.option("--networks", default=5, show_default=True, help="Untrained networks.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/dissect_truth"), show_default=True)
def main(count: int, networks: int, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    folder = pictures(out / f"val-{count}", count)
    common = {"parts": folder, "overwrite": True, "session": SESSION}
    demo = dissect(MODEL, EXPLAINER, folder / "images", out / "demo", **common)
    model = load_model(MODEL)
    engine = engine_for(model, "block4", "activation", **SESSION)
    second = dissect(model, engine, folder / "images", out / "block4", **common)
    own, other = planted(out, 200, shuffled=False)
    wrong_own, wrong_other = planted(out, 200, shuffled=True)
    result = {
        "demo CNN, block6, trained explainer": against_truth(demo, folder, MODEL, count),
        "demo CNN, block4, activation": against_truth(second, folder, MODEL, count),
        "untrained: share given a part": untrained(folder, out, networks),
        "planted: own pattern, another": [own, other],
        "planted, masks of other pictures: any pattern": wrong_own + wrong_other,
        "settings": {"pictures": count, "active": ACTIVE_SHARE, "split": "val"},
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    Path("build/dissect_truth.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    first = result["demo CNN, block6, trained explainer"]
    assert first["right of clear and named"] >= 0.9
    assert np.mean(result["untrained: share given a part"]) <= 0.05
    assert (own, other) == (1.0, 0.0)


if __name__ == "__main__":
    main()
