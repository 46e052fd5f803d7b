"""How large should the area of a decision be, and does it hold the defect? By prediction, and measured.

    python -m benchmarks.truth.evidence_areas --data DEEPPCB [--per-type 10] [--split trainval]

Of defects on boards that the network was trained on, since a rule is chosen here: per rule, how many decisions get an
area, how large it is, how much of the defect's box it covers, its IoU with the box, and how often the answer is no
longer the defect's when the good board's pixels are put there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from fsagn_onnx.model import load_model
from fsagn_onnx.models.boards import Pair, board_pairs, read_boards, sample
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.area import LARGEST, LEAST_LEAD, NO_AREA, smallest_reaching, sufficient_area
from fsagn_onnx.runtime.classes import classes_of
from fsagn_onnx.runtime.explained_area import Evidence
from fsagn_onnx.runtime.intervention import DecisionMeter
from fsagn_onnx.runtime.masks import pixel_mask

ROOT = Path(__file__).resolve().parents[2]
MODEL, EXPLAINER = (ROOT / "models" / f"boards_{part}.onnx" for part in ("cnn", "explainer"))

Rule = Callable[[Sequence[float], Sequence[float], Evidence], float]


def leads_of(areas: Sequence[float], curve: Sequence[float]) -> list[float]:
    """What areas up to half of the picture keep above their own share."""
    return [kept - area for area, kept in zip(areas, curve, strict=True) if area <= LARGEST]


def topped(areas: Sequence[float], curve: Sequence[float], measured: Evidence) -> float:
    """The rule, but none where the lead still grows at half of the picture."""
    leads = leads_of(areas, curve)
    return NO_AREA if leads and leads[-1] == max(leads) else sufficient_area(areas, curve)


def steepest(areas: Sequence[float], curve: Sequence[float], measured: Evidence) -> float:
    """Up to where the curve is steepest: the end of the step that gains most per area."""
    leads = leads_of(areas, curve)
    if max(leads) < LEAST_LEAD:
        return NO_AREA
    slopes = np.diff([0.0, *curve[: len(leads)]]) / np.diff([0.0, *areas[: len(leads)]])
    return float(areas[int(slopes.argmax())])


def most_per_area(areas: Sequence[float], curve: Sequence[float], measured: Evidence) -> float:
    """The area that keeps most for its size."""
    leads = leads_of(areas, curve)
    shares = np.divide(curve[: len(leads)], areas[: len(leads)])
    return NO_AREA if max(leads) < LEAST_LEAD else float(areas[int(shares.argmax())])


def share_of_lead(share: float) -> Rule:
    """The rule with another share of the largest lead."""

    def rule(areas: Sequence[float], curve: Sequence[float], measured: Evidence) -> float:
        leads = leads_of(areas, curve)
        most = max(leads)
        return NO_AREA if most < LEAST_LEAD else smallest_reaching(share * most, areas[: len(leads)], leads)

    return rule


RULES: dict[str, Rule] = {
    **{f"predicted, {share} of the largest lead": share_of_lead(share) for share in (0.8, 0.6, 0.5, 0.4, 0.3)},
    "predicted, none where it still grows": topped,
    "predicted, up to the steepest step": steepest,
    "predicted, what keeps most for its size": most_per_area,
    "measured": lambda areas, curve, measured: measured.area,
}


def rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option("--split", default="trainval", show_default=True, type=click.Choice(["trainval", "test"]))
@click.option("--per-type", default=10, show_default=True, type=click.IntRange(1))
@click.option("--explainer", default=EXPLAINER, show_default=True, type=click.Path(path_type=Path))
def main(data: Path, split: str, per_type: int, explainer: Path) -> None:
    """Print a table of rules."""
    cv2.setNumThreads(1)
    pairs = sample((pair for board in read_boards(data, split) for pair in board_pairs(board)), per_type)
    model = load_model(MODEL)
    classes, size = classes_of(model), model.input_spec.size
    with DecisionMeter(model.proto, classes, model.input_spec, providers="cpu", threads=1) as meter:
        found: list[tuple[Pair, Evidence, Evidence]] = []
        with Explainer(explainer, providers="cpu", threads=1) as opened:
            for pair in pairs:
                asked = {"filters": "decisive:1", "classes": pair.type}
                both = [opened.explain(rgb(pair.defect), measure=how, **asked)[0] for how in (False, True)]
                if both[0].predictions[0].label == pair.type:
                    found.append((pair, *(one.evidence[0] for one in both)))
        print(f"{len(found)} of {len(pairs)} defects that the network gets right\n")
        print(
            "| area | a number | median | over .3 | of the box covered | IoU with the box | exchanged: another answer |"
        )
        print("|---|---|---|---|---|---|---|")
        for name, rule in RULES.items():
            sizes, covered, over, fallen = [], [], [], []
            for pair, predicted, measured in found:
                area = rule(*zip(*predicted.curve, strict=True), measured)
                if area == NO_AREA:
                    continue
                mask = pixel_mask(predicted.area_rank, area, size)
                both_in = (mask & pair.mask).sum()
                sizes.append(area)
                covered.append(both_in / pair.mask.sum())
                over.append(both_in / (mask | pair.mask).sum())
                answer = meter.answers([rgb(np.where(mask, pair.good, pair.defect))])
                fallen.append(answer.winners[0] != predicted.index)
            figures = (len(sizes) / len(found), np.median(sizes), np.mean(np.array(sizes) > 0.3))
            more = (np.mean(covered), np.mean(over), np.mean(fallen))
            print(f"| {name} | {' | '.join(f'{value:.3f}' for value in (*figures, *more))} |", flush=True)
        share = np.median([pair.mask.mean() for pair, _, _ in found])
        print(f"\nmedian share of the picture that the box takes: {share:.3f}")
        for kind in sorted({pair.type for pair, _, _ in found}):
            rows = [(one, other) for pair, one, other in found if pair.type == kind]
            print(kind, *(f"{np.median([row[which].area for row in rows]):.3f}" for which in (0, 1)))


if __name__ == "__main__":
    main()
