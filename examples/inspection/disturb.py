"""How much of the defect score hangs on the evidence for it, and on the areas of a few filters, in defective cells.

    python examples/inspection/disturb.py [--folder build/inspection] [--cells 100] [--areas evidence]

Uses what run.py made in the folder (cells, defect model, explainer) where it is there, else makes it. In every unseen
defective cell an area is disturbed (blur, noise, brightness, occlusion, shift, each at three strengths), then
area-matched random regions of the same form, then the whole cell. The share explained is the drop of the probability of
"defective" inside over the drop when the whole cell is disturbed, both summed over the cells; intervals are over cells.
The areas: the evidence for "defective" (a tenth of the cell), those of the five filters with the highest peaks, and
those of the five that add most to the defect score (the head is linear: weight times mean). Beside the disturbances,
areas and controls are hidden by inpainting, which no training sees. Writes FOLDER/disturbed.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from cells import split
from defects import build
from onnx import numpy_helper
from run import train_explainer

from fsagn_onnx.data.files import write_file
from fsagn_onnx.data.images import read_image
from fsagn_onnx.evaluation.decision import moved_away
from fsagn_onnx.model import load_model
from fsagn_onnx.perturbation.disturbances import KINDS, LEVELS, disturbed
from fsagn_onnx.runs.tapped_explainer import TappedExplainer
from fsagn_onnx.runtime.contract import DECISIVE
from fsagn_onnx.runtime.file_engine import FileEngine
from fsagn_onnx.runtime.filter_request import FilterRequest
from fsagn_onnx.runtime.infill import HELD_OUT, infill
from fsagn_onnx.runtime.masks import pixel_mask
from fsagn_onnx.runtime.session import Session
from fsagn_onnx.runtime.variant import FILL
from fsagn_onnx.statistics.bootstrap import bootstrap_ratio

TOP = 5
AREA = 0.08
"""Share of the picture in each filter's mask, as in `perturb`."""
EVIDENCE_AREA = 0.1
LOOKS = ("evidence", "highest peaks", "adding most to the score")
DEFECTIVE = 1
"""Number of the class."""
DISTURBANCES = ("blur", "noise", "brightness", "occlusion", "shift")
"""All but hue, which gray pictures do not have."""
HIDDEN = 3
"""Random places of the same area that are hidden, for each area that is."""
WHOLE = 3
"""Place of the whole cell in the drops, after the filters' areas and two controls."""


def scores(session: Session, spec: Any, pictures: np.ndarray) -> np.ndarray:
    """Probability of "defective" of pictures (n, H, W, c)."""
    parts = [pictures[start : start + 16] for start in range(0, len(pictures), 16)]
    found = [session.run(["probabilities"], {spec.name: spec.normalise(part)})["probabilities"] for part in parts]
    return np.concatenate(found)[:, 1].astype(np.float64)


def drops(session: Session, spec: Any, pixels: np.ndarray, masks: list[np.ndarray], seed: int) -> np.ndarray:
    """(masks, disturbances, strengths, 4): drop of the score inside, in two controls, and in the whole cell."""
    rng = np.random.default_rng(seed)
    whole = [KINDS[kind](pixels, level, rng) for kind in DISTURBANCES for level in range(LEVELS)]
    pictures = [pixels, *whole]
    for mask in masks:
        pictures += list(disturbed(pixels, mask, DISTURBANCES, rng)[:, :, :3].reshape(-1, *pixels.shape))
    found = scores(session, spec, np.stack(pictures))
    lost = found[0] - found[1:]
    everywhere, regions = lost[: len(whole)].reshape(1, len(DISTURBANCES), LEVELS, 1), lost[len(whole) :]
    regions = regions.reshape(len(masks), len(DISTURBANCES), LEVELS, 3)
    return np.concatenate([regions, np.broadcast_to(everywhere, (*regions.shape[:3], 1))], axis=3)


def explained(lost: np.ndarray) -> dict[str, Any]:
    """Shares of (cells, disturbances, strengths, 4) drops, of all disturbances and of each alone."""
    rows: dict[str, Any] = {}
    for place, name in enumerate(("all", *DISTURBANCES)):
        each = lost.mean(axis=(1, 2)) if name == "all" else lost[:, place - 1].mean(axis=1)  # (cells, 4)
        inside, control, whole = each[:, 0], each[:, 1:WHOLE].mean(axis=1), each[:, WHOLE]
        sides = {"areas": inside, "control": control, "areas - control": inside - control}
        rows[name] = {
            "drop of the whole cell": round(float(whole.mean()), 4),
            **{side: vars(bootstrap_ratio(values, whole)) for side, values in sides.items()},
        }
    return rows


def hidden(session: Session, spec: Any, pixels: np.ndarray, masks: list[np.ndarray], seed: int) -> np.ndarray:
    """(masks, 2): drop of the score with the area hidden, and with as much hidden elsewhere."""
    rng = np.random.default_rng(seed)
    pictures = [pixels]
    for mask in masks:
        pictures.append(infill(HELD_OUT, pixels, ~mask, rng))
        pictures += [infill(HELD_OUT, pixels, ~moved_away(mask, rng), rng) for _ in range(HIDDEN)]
    found = scores(session, spec, np.stack(pictures))
    lost = (found[0] - found[1:]).reshape(len(masks), 1 + HIDDEN)
    return np.stack([lost[:, 0], lost[:, 1:].mean(axis=1)], axis=1)


def areas_of(tapped: TappedExplainer, engine: FileEngine, values: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
    """The masks of `LOOKS` in one cell."""
    found = engine.decide(values, np.array([[DECISIVE]]), np.array([[DEFECTIVE]])).decisions
    if found is None:
        raise click.ClickException("the explainer cannot be asked about classes; train it anew")
    strongest = tapped.run(values, FilterRequest((FILL,) * TOP))
    added = weight * strongest.feature_map[0].mean(axis=(1, 2))
    adding = tapped.run(values, FilterRequest(tuple(np.argsort(-added, kind="stable")[:TOP].tolist())))
    size = tapped.spec.size
    masks = [pixel_mask(found.evidence_rank[0, 0], EVIDENCE_AREA, size)]
    for look in (strongest, adding):
        masks.append(np.any([pixel_mask(rank, AREA, size) for rank in look.area_rank[0]], axis=0))
    return masks


def measure(
    model_file: Path, explainer: Path, files: list[Path], threads: int, looks: tuple[str, ...]
) -> dict[str, Any]:
    """Disturb every cell; the shares for the evidence, for the highest peaks and for those that add most."""
    model, session = load_model(model_file), {"providers": "cpu", "threads": threads}
    weights = {tensor.name: tensor for tensor in onnx.load(model_file).graph.initializer}["defect.weight"]
    weight = numpy_helper.to_array(weights)[DEFECTIVE]
    tapped, answers = TappedExplainer(model, explainer, **session), Session(model.proto, **session)
    engine, chosen = FileEngine(explainer, **session), [LOOKS.index(name) for name in looks]
    lost, without, areas, base = [], [], [], []
    for number, file in enumerate(files):
        pixels = tapped.spec.fit(read_image(file))[0]
        values = tapped.spec.normalise(pixels[None])
        masks = [areas_of(tapped, engine, values, weight)[place] for place in chosen]
        areas.append([mask.mean() for mask in masks])
        base.append(scores(answers, tapped.spec, pixels[None])[0])
        lost.append(drops(answers, tapped.spec, pixels, masks, number))
        without.append(hidden(answers, tapped.spec, pixels, masks, number))
        if sys.stderr.isatty():
            click.echo(f"\r{number + 1} of {len(files)} cells", err=True, nl=number + 1 == len(files))
    for opened in (tapped, answers, engine):
        opened.close()
    every, gone, rows = np.stack(lost), np.stack(without), {}
    for place, name in enumerate(looks):
        inside, elsewhere = gone[:, place].T
        sides = {"area": inside, "elsewhere": elsewhere, "area - elsewhere": inside - elsewhere}
        share = {
            "score": round(float(np.mean(base)), 3),
            **{side: vars(bootstrap_ratio(drop, np.array(base))) for side, drop in sides.items()},
        }
        row = {"area": round(float(np.mean(areas, axis=0)[place]), 3), **explained(every[:, place])}
        rows[name] = {**row, "hidden, share of the score": share}
    return {"cells": len(files), "mean score": round(float(np.mean(base)), 3), **rows}


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/inspection"), show_default=True)
@click.option("--cells", "count", default=100, show_default=True, help="Defective unseen cells.")
@click.option("--pairs", type=int, help="Training pairs of the explainer, where it is not there yet.")
@click.option("--areas", default=",".join(LOOKS), show_default=True, help="Whose areas are disturbed.")
@click.option("--threads", default=2, show_default=True, help="Threads of onnxruntime and torch.")
def main(folder: Path, count: int, pairs: int | None, areas: str, threads: int) -> None:
    """Fetch, train and export what is not there; then disturb."""
    import torch

    torch.set_num_threads(threads)
    training, unseen = split(folder)
    model, area = build(folder, training, unseen, threads)
    explainer = folder / "explainer.onnx"
    train_explainer(model, training, explainer, pairs)
    bad = sorted(file for file, defective in zip(unseen.files, unseen.defective, strict=True) if defective)
    result = {
        "command": f"python examples/inspection/disturb.py --cells {count}" + (f" --pairs {pairs}" if pairs else ""),
        "auc of the head": round(area, 3),
        **measure(model, explainer, bad[:count], threads, tuple(areas.split(","))),
    }
    write_file(folder / "disturbed.json", [(json.dumps(result, indent=1) + "\n").encode()])
    for name in areas.split(","):
        row = result[name]
        print(f"{name}: areas of {row['area']:.2f} of the cell")
        gone = row["hidden, share of the score"]
        told = ", ".join(
            f"{side} {gone[side]['mean']:.3f} [{gone[side]['low']:.3f}, {gone[side]['high']:.3f}]"
            for side in ("area", "elsewhere", "area - elsewhere")
        )
        print(f"  hidden     share of the score {told}")
        for kind in ("all", *DISTURBANCES):
            shares = ", ".join(
                f"{side} {row[kind][side]['mean']:.3f} [{row[kind][side]['low']:.3f}, {row[kind][side]['high']:.3f}]"
                for side in ("areas", "control", "areas - control")
            )
            print(f"  {kind:10} whole {row[kind]['drop of the whole cell']:+.3f}; share {shares}")


if __name__ == "__main__":
    main()
