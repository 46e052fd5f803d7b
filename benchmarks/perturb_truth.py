"""Does `perturb` find the parts that decide a class?

    python benchmarks/perturb_truth.py [--networks demo,resnet,vgg] [--pictures 300] [--first 5000]

On rendered pictures of `val` with their parts, from number `--first` on: the first hundreds had been looked at while
`perturb` was made. Known by construction: for every part type there are two classes that differ in it alone (`TWINS`):
exchanging that part turns one into the other, so it decides both. A class counts as right where the part ranked first
is one of those that decide it. The demo CNN comes with the repository; the other networks and their explainers are
trained first (about half an hour each on one core). Prints the rankings, the check of the area-matched controls against
each other, and the agreement of disturbing filters' areas with switching them off; writes docs/perturb-truth.json, and
fails where a bound of the issue is missed. A run that was killed goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from fsagn_onnx.data.annotations import open_annotations
from fsagn_onnx.data.synthetic import CLASSES, write_folder
from fsagn_onnx.data.synthetic.objects import TWINS
from fsagn_onnx.dissect.perturb import PerturbRequest, PerturbRun
from fsagn_onnx.model import load_model

sys.path.insert(0, str(Path(__file__).resolve().parent / "datasets"))


def deciding_parts() -> dict[str, set[str]]:
    deciding: dict[str, set[str]] = {name: set() for name in CLASSES}
    for part, pair in TWINS.items():
        for label in pair:
            deciding[CLASSES[label]].add(part)
    return deciding


def disturbed(network: str, folder: Path, out: Path, seed: int) -> dict[str, Any]:
    from subjects import default_subject

    model, explainer = default_subject(network)
    request = PerturbRequest((str(folder / "images"),), seed=seed, session={"providers": "cpu", "threads": 1})
    annotations = open_annotations(folder)
    resume = (out / "manifest.json").exists()
    with PerturbRun(load_model(model), explainer, out, request, annotations=annotations, resume=resume) as run:
        for _ in run.images():
            pass
        result = run.finish()
    deciding = deciding_parts()
    first = {name: result.parts[name][0] for name in CLASSES}
    right = {name: first[name]["region"] in parts for name, parts in deciding.items()}
    print(f"== {network}, accuracy {result.accuracy}")
    for name, parts in deciding.items():
        low, high = first[name]["interval"]
        print(
            f"{name:8} decided by {', '.join(sorted(parts)):12} ranked first: {first[name]['region']:7} "
            f"{first[name]['effect']:+.3f} [{low:+.3f}, {high:+.3f}]  {'right' if right[name] else 'WRONG'}"
        )
    check, agreement = result.summary["control_check"], result.summary["agreement"].get("all")
    share = sum(right.values()) / len(right)
    print(f"classes right: {share:.2f}")
    print(f"control - second control: {check}")
    print(f"agreement with switching filters off: {agreement}", flush=True)
    ranking = {
        name: [[row["region"], row["effect"], *row["interval"]] for row in result.parts[name]] for name in CLASSES
    }
    return {
        "accuracy": result.accuracy,
        "classes_right": share,
        "right": right,
        "decided_by": {name: sorted(parts) for name, parts in deciding.items()},
        "ranking": ranking,
        "control_check": check,
        "agreement": agreement,
    }


@click.command()
@click.option("--networks", default="demo,resnet,vgg", show_default=True)
@click.option("--pictures", "count", default=300, show_default=True)
@click.option("--first", default=5000, show_default=True, help="Number of the first picture of val.")
@click.option("--seed", default=1, show_default=True, help="Of everything that is drawn.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/perturb_truth"), show_default=True)
@click.option("--write", type=click.Path(path_type=Path), default=Path("docs/perturb-truth.json"), show_default=True)
def main(networks: str, count: int, first: int, seed: int, out: Path, write: Path) -> None:
    folder = out / f"val-{first}-{count}"
    if not (folder / "names.json").is_file():
        write_folder(folder, "val", count, first=first)
    command = (
        f"python benchmarks/perturb_truth.py --networks {networks} --pictures {count} --first {first} --seed {seed}"
    )
    found = {
        network: disturbed(network, folder, out / f"{network}-{first}-{count}-{seed}", seed)
        for network in networks.split(",")
    }
    document = {"command": command, "networks": found}
    write.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for figures in found.values():
        assert figures["classes_right"] >= 0.9
        assert figures["control_check"]["difference"][1] <= 0 <= figures["control_check"]["difference"][2]


if __name__ == "__main__":
    main()
