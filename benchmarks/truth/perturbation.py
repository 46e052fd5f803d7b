"""Does `perturb` find the parts that decide a class?

    python -m benchmarks.truth.perturbation [--networks demo,resnet,vgg] [--pictures 300] [--first 5000]

On rendered pictures of `val` with their parts, from number `--first` on: the first hundreds had been looked at while
`perturb` was made, and 20,000 to 20,200 served to choose how parts are ranked. A part decides a class where exchanging
it changes the class. Two readings, both printed:

- by the set's words: for every part type there are two classes that differ in it alone (`TWINS`), so exchanging it
  turns one into the other;
- by the network's answer: the scene is rendered with one part exchanged for each of its other variants, and the
  network's decision leaves the class in at least half of the pictures (also shown: in 90 %) for one of them. Most such
  scenes are words of no class; the network must choose all the same, and where a part's exchange changes its choice,
  that part decides.

A class counts as right where the part ranked first is one of those that decide it; beside it stands what a random
ranking would reach. The demo CNN comes with the repository; the other networks and their explainers are trained first
(about half an hour each on one core). Prints the rankings, the check of the area-matched controls against each other,
and the agreement of disturbing filters' areas with switching them off; puts the networks' figures into
docs/perturb-truth.json, and fails where a bound of the issue is missed (by the network's answer). A run that was
killed goes on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import spearmanr

from benchmarks.networks import DEMO_MODEL
from fsagn_onnx.data.annotations import open_annotations
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.perturbation.run import PerturbRequest, PerturbRun
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.runtime.engine import Engine
from fsagn_onnx.runtime.session import Session
from fsagn_onnx.testing.synthetic import CLASSES, PARTS, render, variants_of, write_folder
from fsagn_onnx.testing.synthetic.objects import TWINS
from fsagn_onnx.testing.synthetic.shapes import VARIANTS

MOST, NEARLY_ALL = 0.5, 0.9
"""Share of a class's pictures from which an exchange counts as changing the class; the first is the bound's."""


def deciding_parts() -> dict[str, set[str]]:
    deciding: dict[str, set[str]] = {name: set() for name in CLASSES}
    for part, pair in TWINS.items():
        for label in pair:
            deciding[CLASSES[label]].add(part)
    return deciding


def exchanged(model: Model, seeds: list[int]) -> dict[str, dict[str, float]]:
    """Class -> part -> share of its pictures whose decision leaves it, for the variant that does so most often."""
    left: dict[tuple[int, str, str], list[bool]] = {}
    classes = classes_of(model)
    with Session(model.proto, providers="cpu", threads=1) as network:
        for seed in seeds:
            label = seed % len(CLASSES)
            own = variants_of(label)
            swaps = [(part, other) for part in PARTS for other in VARIANTS[part] if other != own[part]]
            pictures = [render(seed, exchange={part: other}).image for part, other in swaps]
            batch = model.input_spec.normalise(np.stack(pictures))
            decided = classes.winners(network.run(None, {model.input_spec.name: batch}))
            assert decided is not None
            for (part, other), decision in zip(swaps, decided.tolist(), strict=True):
                left.setdefault((label, part, other), []).append(decision != label)
    shares: dict[str, dict[str, float]] = {name: dict.fromkeys(PARTS, 0.0) for name in CLASSES}
    for (label, part, _), found in left.items():
        row = shares[CLASSES[label]]
        row[part] = max(row[part], float(np.mean(found)))
    return shares


def judged(first: dict[str, str], deciding: dict[str, set[str]]) -> dict[str, Any]:
    right = {name: first[name] in parts for name, parts in deciding.items()}
    return {
        "classes_right": sum(right.values()) / len(right),
        "random_ranking": sum(len(parts) for parts in deciding.values()) / len(PARTS) / len(deciding),
        "right": right,
        "decided_by": {name: sorted(parts) for name, parts in deciding.items()},
    }


def subject(network: str, *, trained: bool) -> tuple[Model, Path | Engine]:
    from benchmarks.trained_networks import default_subject, trained_network

    if trained:
        path, explainer = default_subject(network)
        return load_model(path), explainer
    kept = Path("build/datasets/synthetic") / f"{network}.onnx"
    model = load_model(DEMO_MODEL if network == "demo" else trained_network(network, kept, 1))
    return model, engine_for(model, None, "activation", providers="cpu", threads=1)


def disturbed(network: str, folder: Path, out: Path, seed: int, exchanges: int, *, trained: bool) -> dict[str, Any]:
    model, explainer = subject(network, trained=trained)
    request = PerturbRequest((str(folder / "images"),), seed=seed, session={"providers": "cpu", "threads": 1})
    annotations = open_annotations(folder)
    resume = (out / "manifest.json").exists()
    with PerturbRun(model, explainer, out, request, annotations=annotations, resume=resume) as run:
        for _ in run.images():
            pass
        result = run.finish()
    seeds = [item["seed"] for item in json.loads((folder / "names.json").read_text())["images"]][:exchanges]
    shares = exchanged(model, seeds)
    first = {name: result.parts[name][0]["region"] for name in CLASSES}
    words = judged(first, deciding_parts())
    answers, strict = (
        judged(first, {c: {p for p, share in row.items() if share >= least} for c, row in shares.items()})
        for least in (MOST, NEARLY_ALL)
    )
    print(f"== {network}, accuracy {result.accuracy}")
    for name in CLASSES:
        top = result.parts[name][0]
        changes = ", ".join(f"{part} {share:.2f}" for part, share in shares[name].items() if share >= 0.2)
        print(
            f"{name:8} ranked first: {first[name]:7} {top['effect']:+.3f} [{top['interval'][0]:+.3f}, "
            f"{top['interval'][1]:+.3f}]  twin in {', '.join(words['decided_by'][name])}: {words['right'][name]}; "
            f"exchanges that change the class: {changes}: {answers['right'][name]}"
        )
    check, agreement = result.summary["control_check"], result.summary["agreement"].get("all")
    pairs = [(row["effect"], shares[name][row["region"]]) for name in CLASSES for row in result.parts[name]]
    follows = spearmanr(*zip(*pairs, strict=True))
    for reading, found in (("words", words), ("answers", answers), (f"answers in {NEARLY_ALL:.0%}", strict)):
        print(
            f"classes right by {reading}: {found['classes_right']:.2f} (random ranking {found['random_ranking']:.2f})"
        )
    print(
        f"effect of disturbing a part against its exchange, {len(pairs)} class x part: Spearman {follows.statistic:.2f}"
    )
    print(f"control - second control: {check}")
    print(f"agreement with switching filters off: {agreement}", flush=True)
    ranking = {
        name: [[row["region"], row["effect"], *row["interval"]] for row in result.parts[name]] for name in CLASSES
    }
    return {
        "accuracy": result.accuracy,
        "by_words": words,
        "by_answers": answers,
        "by_answers_in_nearly_all_pictures": strict,
        "exchange_changes_class": shares,
        "effect_against_exchange": float(follows.statistic),
        "ranking": ranking,
        "control_check": check,
        "agreement": agreement,
    }


@click.command()
@click.option("--networks", default="demo,resnet,vgg", show_default=True)
@click.option("--pictures", "count", default=300, show_default=True)
@click.option("--first", default=5000, show_default=True, help="Number of the first picture of val.")
@click.option("--activation", default="", help="Networks whose filters' areas are feature maps: nothing is trained.")
@click.option("--exchanges", default=200, show_default=True, help="Pictures whose parts are exchanged.")
@click.option("--seed", default=1, show_default=True, help="Of everything that is drawn.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/perturb_truth"), show_default=True)
@click.option("--write", type=click.Path(path_type=Path), default=Path("docs/perturb-truth.json"), show_default=True)
def main(
    networks: str, activation: str, count: int, first: int, exchanges: int, seed: int, out: Path, write: Path
) -> None:
    folder = out / f"val-{first}-{count}"
    if not (folder / "names.json").is_file():
        write_folder(folder, "val", count, first=first)
    found: dict[str, Any] = json.loads(write.read_text(encoding="utf-8")) if write.exists() else {}
    for network in networks.split(","):
        run = out / f"{network}-{first}-{count}-{seed}"
        trained = network not in activation.split(",")
        command = f"python -m benchmarks.truth.perturbation --networks {network} --pictures {count} --first {first}"
        command += f" --seed {seed} --exchanges {exchanges}" + ("" if trained else f" --activation {network}")
        found[network] = {"command": command, **disturbed(network, folder, run, seed, exchanges, trained=trained)}
    write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for figures in found.values():
        assert figures["by_answers"]["classes_right"] >= 0.9
        assert figures["control_check"]["difference"][1] <= 0 <= figures["control_check"]["difference"][2]


if __name__ == "__main__":
    main()
