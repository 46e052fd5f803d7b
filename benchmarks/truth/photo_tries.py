"""Could the evidence on photographs keep the decision better? Other maps out of the same explainer, beside it.

    python -m benchmarks.truth.photo_tries --photos FOLDER [--pictures 60] [--only smoothed]

As `board_tries.py`, with EfficientNet-Lite0 on photographs of its training half: what is chosen here is to be measured
on unseen ones by `decisions.py`.

    sideways        the mean of the evidence of the picture and of its mirror image, two passes
    smoothed        the evidence after one more Gaussian of 8 pixels, and of 16
    + filters       the evidence and the 20 most contributing filters' areas, mixed half and half
    + cam           the evidence and the class activation map, mixed half and half
    + gradient      the evidence and gradient x activation at the deepest three depths, mixed half and half
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import lite0
from benchmarks.plan import plainly
from benchmarks.truth.board_tries import Way, Ways, compare, only_of
from benchmarks.truth.decisions import at_depths
from fsagn_onnx.data.images import list_images, read_image
from fsagn_onnx.evaluation.decision import AnsweringModel
from fsagn_onnx.model import load_model
from fsagn_onnx.models.train_lite0 import split

SEEN = 16
"""Training pictures on which `decisions.py` chooses the depth: left out here."""


@click.command()
@click.option("--photos", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pictures", "count", default=60, show_default=True)
@click.option("--only", help="Names of maps, joined by commas.")
@plainly
def main(photos: Path, count: int, only: str | None) -> None:
    file, explainer = lite0()
    model = load_model(file)
    answers = AnsweringModel(model, threads=1)
    made = Ways(model, explainer)
    cam, summed = made.method("grad-cam"), made.method(at_depths(model)[-1])
    ways: dict[str, Way] = {
        "evidence": made.evidence, "grad-cam": cam, "gradient": summed, "sideways": made.sideways,
        "smoothed 8": made.smoothed(2.0), "smoothed 16": made.smoothed(4.0),
        "+ filters": made.mixed(made.evidence, made.filters), "+ cam": made.mixed(made.evidence, cam),
        "+ gradient": made.mixed(made.evidence, summed),
        "+ gradient, sideways": made.mixed(made.sideways, summed),
    }  # fmt: skip

    def pictures() -> Iterator[tuple[NDArray[np.uint8], int]]:
        training, _ = split(list(list_images([photos])))
        order = np.random.default_rng(0).permutation(np.arange(SEEN, len(training)))
        for place in order[:count].tolist():
            pixels = model.input_spec.fit(read_image(training[place]))[0]
            yield pixels, int(answers.winners(pixels[None])[0])

    compare(model, answers, only_of(ways, only), pictures())


if __name__ == "__main__":
    main()
