"""Does `dissect` name the right parts, and none where there is nothing to name?

    python -m benchmarks.truth.dissection [--networks demo,resnet,vgg] [--pictures 400] [--first 10000]

On held-out rendered pictures (`val` from number `--first` on: the first hundreds were looked at while it was made): the
demo CNN with its explainer; a ResNet-like and a VGG-like network, each with an explainer trained by the defaults of
`train` (made first, about half an hour each on one core); the demo CNN's fifth block, another depth, stride and number
of filters, explained without training; the demo CNN with weights drawn anew; the planted CNN with its patterns as
parts. Truth of the trained networks: the part whose removal from the picture changes the filter's feature map most,
where it does so 1.25 times as much as the second (the bound is on these); the same is shown for 1.5 times, and for 2
times, which is what `evaluate` calls dominant. One of the untrained networks gets an explainer of its own too
(`--untrained-pairs`). Prints one line each, writes docs/dissect-truth.json, and fails where a bound of the issue is
missed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from benchmarks.networks import DEMO_MODEL
from fsagn_onnx.dissection import Dissection, dissect
from fsagn_onnx.dissection.scores import ACTIVE_SHARE
from fsagn_onnx.dissection.untrained import reinitialised
from fsagn_onnx.evaluation.metrics.intervention import DOMINANCE
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import load_model
from fsagn_onnx.runs.reader import FinishedRun
from fsagn_onnx.testing.planted import write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer
from fsagn_onnx.testing.planted_set import write_planted_set
from fsagn_onnx.testing.synthetic import write_folder
from fsagn_onnx.testing.truth import CLEAR, intervention_truth

FIRST_UNTRAINED = 1_000
"""Seed of the first network with weights drawn anew."""

COMMAND = "python -m benchmarks.truth.dissection"
SESSION = {"providers": "cpu", "threads": 1}


def pictures(out: Path, count: int, first: int) -> Path:
    folder = out / f"val-{first}-{count}"
    if not (folder / "names.json").is_file():
        write_folder(folder, "val", count, first=first)
    return folder


def against_truth(dissection: Dissection, folder: Path, model_path: Path, count: int) -> dict[str, Any]:
    model = load_model(model_path)
    seeds = [item["seed"] for item in json.loads((folder / "names.json").read_text())["images"]][:count]
    peaks = FinishedRun(dissection.folder).column("peaks", ("f4", (len(dissection.filters),)))[:count]
    limits = np.array([row.threshold or np.inf for row in dissection.filters])
    ids = [row.filter for row in dissection.filters]
    truth = intervention_truth(model, dissection.layer, ids, seeds, peaks >= limits, **SESSION)
    ranked = np.sort(truth.change, axis=1)
    given, best = ([getattr(row, of) for row in dissection.filters] for of in ("part", "best"))
    figures: dict[str, Any] = {"filters": len(ids), "named": sum(part is not None for part in given)}
    for times in (CLEAR, 1.5, DOMINANCE):
        clear = np.flatnonzero((ranked[:, -1] > 0) & (ranked[:, -1] >= times * ranked[:, -2])).tolist()
        right = [given[k] == truth.name(k) for k in clear]
        named = [is_right for k, is_right in zip(clear, right, strict=True) if given[k] is not None]
        figures[f"clear by {times}"] = {
            "clear": len(clear),
            "named": len(named),
            "right of named": float(np.mean(named)) if named else None,
            "best part right": float(np.mean([best[k] == truth.name(k) for k in clear])),
            "named and right": float(np.mean(right)),
        }
    return {**figures, "instability mask - peak": dissection.summary["instability"]["difference"]}


def untrained_explained(folder: Path, out: Path, pairs: int) -> float:
    """The same share for the first of these networks, with an explainer trained for it."""
    from benchmarks.plan import Plan, trained
    from benchmarks.trained_networks import TRAINING_PICTURES

    pictures = Path("build/datasets/synthetic/train")
    if not (pictures / "names.json").exists():
        write_folder(pictures, "train", TRAINING_PICTURES)
    path = out / f"untrained-{FIRST_UNTRAINED}.onnx"
    explainer = trained(path, [pictures / "images"], Plan(out, None, pairs, 0, "", "", 0, 1), layer="block6")
    run = out / "untrained-explained"
    found = dissect(path, explainer, folder / "images", run, parts=folder, overwrite=True, session=SESSION)
    return found.summary["named"] / len(found.filters)


def untrained(folder: Path, out: Path, seeds: int) -> list[float]:
    """Share of filters that are given a part, for demo CNNs with new weights, as torch draws them and as He's rule."""
    shares = []
    for seed in range(seeds):
        proto = reinitialised(onnx.load(DEMO_MODEL), FIRST_UNTRAINED + seed)
        assert proto is not None
        path = out / f"untrained-{FIRST_UNTRAINED + seed}.onnx"
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
    write_planted_set(folder, count, masks_from=count if shuffled else 0)
    model, explainer = write_planted(out / "planted.onnx"), write_planted_explainer(out / "planted-explainer.onnx")
    run = folder.with_name(folder.name + "-run")
    found = dissect(model, explainer, folder / "images", run, parts=folder, overwrite=True, session=SESSION)
    own = [row.part == f"pattern {row.filter}" for row in found.filters]
    other = [row.part is not None and row.part != f"pattern {row.filter}" for row in found.filters]
    return float(np.mean(own)), float(np.mean(other))


def measured(network: str, folder: Path, out: Path, count: int) -> dict[str, Any]:
    """A network with its trained explainer against intervention truth."""
    from benchmarks.trained_networks import default_subject

    model, explainer = default_subject(network)
    found = dissect(model, explainer, folder / "images", out / network, parts=folder, overwrite=True, session=SESSION)
    return {"layer": found.layer, **against_truth(found, folder, model, count)}


@click.command()
@click.option("--networks", default="demo,resnet,vgg", show_default=True, help="With trained explainers.")
@click.option("--pictures", "count", default=400, show_default=True)
@click.option("--first", default=10_000, show_default=True, help="Number of the first picture of val.")
@click.option("--untrained", "drawn", default=5, show_default=True, help="Untrained networks.")
@click.option("--untrained-pairs", "pairs", default=9_600, show_default=True, help="That its explainer is trained on.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/dissect_truth"), show_default=True)
@click.option("--write", type=click.Path(path_type=Path), default=Path("docs/dissect-truth.json"), show_default=True)
def main(networks: str, count: int, first: int, drawn: int, pairs: int, out: Path, write: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    folder = pictures(out, count, first)
    trained = {network: measured(network, folder, out, count) for network in networks.split(",")}
    model = load_model(DEMO_MODEL)
    engine = engine_for(model, "block4", "activation", **SESSION)
    block4 = dissect(model, engine, folder / "images", out / "block4", parts=folder, overwrite=True, session=SESSION)
    own, other = planted(out, 200, shuffled=False)
    wrong_own, wrong_other = planted(out, 200, shuffled=True)
    result = {
        "command": f"{COMMAND} --networks {networks} --pictures {count} --first {first} --untrained {drawn}"
        f" --untrained-pairs {pairs}",
        **{f"{network}, trained explainer": figures for network, figures in trained.items()},
        "demo, block4, feature maps": against_truth(block4, folder, DEMO_MODEL, count),
        "untrained: share given a part": untrained(folder, out, drawn),
        "untrained, with a trained explainer: share given a part": untrained_explained(folder, out, pairs),
        "planted: own pattern, another": [own, other],
        "planted, masks of other pictures: any pattern": wrong_own + wrong_other,
        "settings": {"pictures": count, "active": ACTIVE_SHARE, "clear": CLEAR, "split": "val"},
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    write.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    assert all(figures[f"clear by {CLEAR}"]["right of named"] >= 0.9 for figures in trained.values())
    assert np.mean(result["untrained: share given a part"]) <= 0.05
    assert result["untrained, with a trained explainer: share given a part"] <= 0.05
    assert (own, other) == (1.0, 0.0)


if __name__ == "__main__":
    main()
