"""How far apart the masks of one picture's filters are: what `apart.py` and the sweeps of options measure.

Runs the network in torch, so that a device can be named; masks are cut and filled by the host, as `evaluate` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.truth.dominant_parts import pairs
from fsagn_onnx.conversion import TappedModule, convert
from fsagn_onnx.data.images import read_image
from fsagn_onnx.evaluation.image_masks import ImageMasks
from fsagn_onnx.evaluation.metrics.per_image import PerImage, mean_of_known
from fsagn_onnx.evaluation.metrics.specificity import specificity
from fsagn_onnx.evaluation.part_masks import PartMasks
from fsagn_onnx.evaluation.sanity import overlap, rank_correlation
from fsagn_onnx.model import Model
from fsagn_onnx.runtime.feature_maps import draw_filters
from fsagn_onnx.runtime.infill import Pixels, masked_images
from fsagn_onnx.runtime.masks import Mask
from fsagn_onnx.statistics.bootstrap import Interval, bootstrap_mean, bootstrap_ratio

AREAS = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Areas at which masks are cut; the AUC and specificity are over all but the first, as in `evaluate`."""

INFILL = "inpaint"
PER_IMAGE = ("AUC", "specificity", "at .03", "at .05", "correlation", "overlap at .1")
PARTS = ("agreement", "pointing game", "part IoU")
"""Of the pairs whose filter falls without its dominant part, masks cut at the part's own size."""

Maps = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]
"""A batch (N, ...), feature maps (N, C, h, w), filters (N, K) -> saliency (N, K, h', w'); see `Method`."""


class TorchProbe:
    """What `Probe` is, with the converted network on a device."""

    def __init__(self, model: Model, layer: str, device: str, batch_size: int = 256) -> None:
        self.module: TappedModule = convert(model, [layer]).to(device)
        self.layer, self.spec, self.device, self.batch_size = layer, model.input_spec, device, batch_size

    def features(self, pixels: Pixels, filters: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        made = []
        for first in range(0, len(pixels), self.batch_size):
            part = torch.from_numpy(self.spec.normalise(pixels[first : first + self.batch_size])).to(self.device)
            with torch.no_grad():
                maps = self.module(part)[self.layer]
            made.append((maps if filters is None else maps[:, torch.from_numpy(filters).to(self.device)]).cpu().numpy())
        return np.concatenate(made)

    def masked(
        self, pixels: Pixels, masks: Sequence[Mask], infill: str | Pixels, filters: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        return self.features(masked_images(pixels, masks, infill), filters)


@dataclass(frozen=True, eq=False)
class Scene:
    """Pictures with the filters that are asked of each: those that live, drawn among the 60 strongest."""

    paths: tuple[Path, ...]
    pixels: NDArray[np.uint8]
    batch: NDArray[np.float32]
    features: NDArray[np.float32]
    filters: NDArray[np.int64]
    annotations: tuple[Any, ...]

    @staticmethod
    def of(
        probe: TorchProbe,
        paths: Sequence[Path],
        filters: int,
        parts: Path | None = None,
        alive: NDArray[np.bool_] | None = None,
    ) -> Scene:
        """Fit and look at pictures; those with fewer living filters than asked for are left out.

        ``alive``: ``(N, C)``, further filters that may be drawn (those that live in another network too).
        """
        masks = PartMasks(parts) if parts is not None else None
        images = [read_image(path) for path in paths]
        pixels = np.stack([probe.spec.fit(image)[0] for image in images])
        features = probe.features(pixels)
        drawn = features if alive is None else np.where(alive[:, :, None, None], features, 0)
        rows, ids, annotations = [], [], []
        for index, image in enumerate(images):
            found = draw_filters(drawn[index], filters, np.random.default_rng([0, index]))
            if len(found) == filters:
                rows.append(index)
                ids.append(found)
                annotations.append(masks.of(paths[index], image, probe.spec) if masks is not None else None)
        kept = np.array(rows)
        return Scene(
            tuple(paths[row] for row in rows),
            pixels[kept],
            probe.spec.normalise(pixels[kept]),
            features[kept],
            np.stack(ids),
            tuple(annotations),
        )

    def maps(self, make: Maps, at_once: int = 16) -> NDArray[np.float32]:
        """The maps of a method for all of it: ``(N, K, h, w)``."""
        cut = [slice(first, first + at_once) for first in range(0, len(self.batch), at_once)]
        return np.concatenate([make(self.batch[part], self.features[part], self.filters[part]) for part in cut])


def measure(probe: TorchProbe, scene: Scene, maps: Mapping[str, NDArray[np.float32]]) -> dict[str, dict[str, Interval]]:
    """All figures of every method, with their intervals over pictures.

    Args:
        probe: the network.
        scene: pictures and filters.
        maps: by method ``(N, K, h, w)``.
    """
    values, falls = PerImage(), PerImage()
    for index, path in enumerate(scene.paths):
        ids, annotation = scene.filters[index], scene.annotations[index]
        saliency = {name: single[index] for name, single in maps.items()}
        whole = scene.features[index, ids]
        view = ImageMasks(probe, path, scene.pixels[index], ids, whole, saliency, (INFILL,), AREAS, None, annotation)  # type: ignore[arg-type]
        values.start()
        for name in maps:
            for figure, value in apart(view, name).items():
                values.add(name, figure, value)
        if annotation is not None:
            falls.start()
            chosen = [row for kind, row in pairs(view) if kind == "falls"]
            for name in maps:
                falls.add(name, "pairs", len(chosen))
                for figure in PARTS:
                    falls.add(name, figure, sum(row[name][figure] for row in chosen))
    made = {name: {figure: bootstrap_mean(values.of(name, figure)) for figure in PER_IMAGE} for name in maps}
    if falls.images:
        for name, row in made.items():
            row |= {figure: bootstrap_ratio(falls.of(name, figure), falls.of(name, "pairs")) for figure in PARTS}
    if "activation" in maps:
        base = values.of("activation", "AUC")
        for name, row in made.items():
            row["AUC - activation"] = bootstrap_mean(values.of(name, "AUC") - base)
    return made


def apart(view: ImageMasks, method: str) -> dict[str, float]:
    """The figures of one picture: means over its filters, or over pairs of them."""
    retention = view.sweep(method, INFILL).retention  # (A, K, K)
    own, ranks = np.einsum("aii->ia", retention), view.rank(method)
    two = ~np.eye(len(view.ids), dtype=np.bool_)
    return {
        "AUC": mean_of_known(own[:, 1:].mean(axis=1)),
        "specificity": mean_of_known(specificity(retention)[:, 1:]),
        "at .03": mean_of_known(own[:, 0]),
        "at .05": mean_of_known(own[:, 1]),
        "correlation": mean_of_known(rank_correlation(ranks[:, None], ranks[None])[two]),
        "overlap at .1": mean_of_known(overlap(ranks[:, None], ranks[None])[two]),
    }


def table(figures: Mapping[str, Mapping[str, Interval]]) -> str:
    """One row per method, in Markdown."""
    names = list(next(iter(figures.values())))
    lines = [f"| method | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
    lines += [f"| {name} | {' | '.join(str(row[figure]) for figure in names)} |" for name, row in figures.items()]
    return "\n".join(lines)
