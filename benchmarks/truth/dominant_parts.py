"""Why masks and dominant parts disagree: pairs whose filter falls without the part against pairs whose filter rises.

    python -m benchmarks.truth.dominant_parts [--explainer FILE] [--images 200] [--methods generator,gradient]

The part metrics of `evaluate` ask for the part whose removal changes F_k most. This splits their pairs by what removal
does to ||F_k||, and adds the retention (inpaint) of each mask cut at the part's own area, beside that of the part
itself at the common granularity: what a mask that covers just the part would keep. Writes FOLDER/dominant_parts.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.networks import DEMO_EXPLAINER, DEMO_MODEL
from fsagn_onnx.data.images import list_images, read_image
from fsagn_onnx.evaluation import Options
from fsagn_onnx.evaluation.image_masks import ImageMasks
from fsagn_onnx.evaluation.metrics.intervention import InterventionAgreement
from fsagn_onnx.evaluation.metrics.parts import PartMetrics
from fsagn_onnx.evaluation.metrics.per_image import PerImage
from fsagn_onnx.evaluation.run import Run
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime.feature_maps import draw_filters, retained
from fsagn_onnx.runtime.masks import area_rank, pixel_mask, to_common_granularity
from fsagn_onnx.statistics.bootstrap import bootstrap_ratio
from fsagn_onnx.testing.synthetic import write_folder

FIGURES = ("agreement", "pointing game", "part IoU", "retention")
PART = "the part itself"
INFILL = "inpaint"


def views(run: Run, paths: list[Path]) -> Iterator[ImageMasks]:
    """Every picture as `evaluate` sees it, with the filters that it draws."""
    assert run.parts is not None
    for index, path in enumerate(paths):
        image = read_image(path)
        pixels = run.spec.fit(image)[0]
        whole = run.probe.features(pixels[None])
        ids = draw_filters(whole[0], run.options.filters, np.random.default_rng([run.options.seed, index]))
        maps = run.contenders.maps(run.spec.normalise(pixels)[None], whole, ids[None])
        annotation = run.parts.of(path, image, run.spec)
        yield ImageMasks(run.probe, path, pixels, ids, whole[0, ids], maps.saliency, (INFILL,), annotation=annotation)


def pairs(view: ImageMasks) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """``falls`` or ``rises``, and by method the figures of every pair with a dominant part."""
    found, covered = PartMetrics().measure(view), InterventionAgreement().measure(view)
    annotation = view.annotation
    assert annotation is not None
    for k, target in enumerate(found["targets"]):
        if target is None:
            continue
        name, filter = found["parts"][target], view.ids[k : k + 1]
        part, whole = annotation.parts[name], view.whole[k]
        without = view.probe.features(annotation.removed[name][None], filter)[0, 0]
        masks = {method: view.mask(method, k, float(part.mean())) for method in view.saliency}
        rank = area_rank(to_common_granularity(part.astype(np.float32)[None], view.size))[0]
        masks[PART] = pixel_mask(rank, float(part.mean()), view.size)
        kept = view.probe.masked(view.pixels, list(masks.values()), INFILL, filter)
        row = {
            method: {"retention": float(r)} for method, r in zip(masks, retained(kept, whole[None])[:, 0], strict=True)
        }
        for method in view.saliency:
            both, either = found["methods"][method]["overlap"][k][target]
            row[method]["agreement"] = float(np.argmax(covered["coverage"][method][k]) == target)
            row[method]["pointing game"] = float(found["methods"][method]["hit"][k])
            row[method]["part IoU"] = both / either
        yield "falls" if np.linalg.norm(without) < np.linalg.norm(whole) else "rises", row


@click.command()
@click.option("--model", type=click.Path(path_type=Path), default=DEMO_MODEL)
@click.option("--explainer", type=click.Path(path_type=Path), default=DEMO_EXPLAINER)
@click.option("--images", default=200, show_default=True, help="Held-out pictures.")
@click.option("--methods", default="generator,gradient,activation", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/dominant_parts"), show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(model: Path, explainer: Path, images: int, methods: str, folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    test = folder / f"test{images}"
    if not (test / "names.json").exists():
        write_folder(test, "test", images)
    options = Options(methods.split(","), (INFILL,), parts=test / "names.json", threads=threads)
    run = Run(load_model(model), {"generator": explainer}, options)
    groups = {group: PerImage() for group in ("all", "falls", "rises")}
    for view in views(run, list(list_images([test / "images"]))):
        rows = list(pairs(view))
        for group, values in groups.items():
            values.start()
            chosen = [row for kind, row in rows if group in ("all", kind)]
            for method in (*view.saliency, PART):
                for figure in FIGURES:
                    values.add(method, figure, sum(row[method].get(figure, np.nan) for row in chosen))
                values.add(method, "pairs", len(chosen))
    result: dict[str, Any] = {}
    for group, values in groups.items():
        count = int(values.of(PART, "pairs").sum())
        print(f"\n{group}: {count} pairs\n\n| method | {' | '.join(FIGURES)} |\n|---{'|---' * len(FIGURES)}|")
        result[group] = {"pairs": count}
        for method in (*run.contenders.names, PART):
            over = values.of(method, "pairs")
            told = {
                figure: bootstrap_ratio(values.of(method, figure), over)
                for figure in FIGURES
                if method != PART or figure == "retention"
            }
            print(f"| {method} | {' | '.join(str(told.get(figure, '')) for figure in FIGURES)} |")
            result[group][method] = {figure: vars(value) for figure, value in told.items()}
    (folder / "dominant_parts.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
