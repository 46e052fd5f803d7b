"""Does `explain --why` on a plain model read the gradients at a good depth, and under which infills is it chosen well?

    python -m benchmarks.truth.depths MODEL --boards DEEPPCB [--pictures 96] [--first 16]
    python -m benchmarks.truth.depths MODEL --photographs FOLDER [--pictures 96] [--first 16]

Every candidate depth is shown alone and hidden alone on unseen pictures under each infill (kept - removed of the
class's probability, the mean over the areas .03 to .5; more is better). Then each rule (an infill, or the mean of two)
chooses on every disjoint group of the first pictures that a user might give, by all of them (`choose_depth` drops
clearly worse candidates early), and the table says how often it chose which depth, and how good the chosen depths are
on the pictures that it did not see, by infills that the rule did not look at. On boards, where the truth is known, also
pointing, IoU with the defect's box and exchange for the good board, of the evidence that `explain` shows (its own
grid). Writes JSON, prints tables.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.plan import plainly
from benchmarks.truth.boards import FIGURES, fitted, measured, usable
from fsagn_onnx.data.images import list_images, read_image
from fsagn_onnx.evaluation.decision import AnsweringModel
from fsagn_onnx.model import Model, load_model
from fsagn_onnx.models.boards import Pair, board_pairs, read_boards
from fsagn_onnx.runtime.depth_choice import TRIED_INFILLS, DepthTrial, depth_candidates
from fsagn_onnx.runtime.evidence import PlainEvidence, summed_evidence
from fsagn_onnx.runtime.masks import area_rank, from_rank, grid_of, grid_stride

INFILLS = ("blur", "inpaint", "mean", "shuffle")
RULES = (("blur",), ("inpaint",), ("mean",), ("blur", "inpaint"), ("blur", "mean"), ("inpaint", "mean"))

Depths = tuple[str, ...]


def gaps(
    engine: PlainEvidence, pictures: Sequence[NDArray[np.uint8]], classes: Sequence[int], candidates: Sequence[Depths]
) -> NDArray[np.float64]:
    """Kept - removed, (pictures, candidates, infills)."""
    found = np.empty((len(pictures), len(candidates), len(INFILLS)))
    for place, kind in enumerate(INFILLS):
        trial = DepthTrial(engine, [kind])
        for number, (pixels, asked) in enumerate(zip(pictures, classes, strict=True)):
            pairs = trial.shown_and_hidden(pixels, asked, candidates)
            found[number, :, place] = [kept - removed for kept, removed in pairs]
    return found


def chosen(table: NDArray[np.float64], rule: Sequence[str], first: int) -> tuple[Counter[int], dict[str, float]]:
    """How often a rule chose each candidate, and the gap of its choices on the other pictures per infill."""
    columns = [INFILLS.index(kind) for kind in rule]
    counts: Counter[int] = Counter()
    rest = []
    for start in range(0, len(table) - first + 1, first):
        group = slice(start, start + first)
        best = int(table[group][:, :, columns].mean(axis=(0, 2)).argmax())
        counts[best] += 1
        rest.append(np.delete(table, group, axis=0)[:, best].mean(axis=0))
    means = np.mean(rest, axis=0)
    return counts, {kind: float(value) for kind, value in zip(INFILLS, means, strict=True)}


def truth(
    model: Model, engine: PlainEvidence, answers: AnsweringModel, pairs: Sequence[Pair], candidates: Sequence[Depths]
) -> list[dict[str, float]]:
    """Figures of `benchmarks.truth.boards` of every candidate, of the evidence as `explain` shows it."""
    size = model.input_spec.size
    grid = grid_of(size, grid_stride(size))
    found: list[list[list[float]]] = [[] for _ in candidates]
    for pair in pairs:
        batch = np.asarray(model.input_spec.normalise(fitted(model, pair.defect)[None]), dtype=np.float32)
        maps, _ = engine.maps(batch, np.array([pair.box.type + 1], dtype=np.int64))
        for place, depths in enumerate(candidates):
            single = from_rank(area_rank(summed_evidence([maps[value] for value in depths], grid))[0])
            found[place].append(measured(model, answers, pair, single, 0))
    return [dict(zip(FIGURES, np.mean(rows, axis=0).tolist(), strict=True)) for rows in found]


@click.command()
@click.argument("path", metavar="MODEL", type=click.Path(exists=True, path_type=Path))
@click.option("--boards", type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option("--photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pictures", "count", default=96, show_default=True)
@click.option("--first", default=16, show_default=True, help="Pictures on which a depth is chosen.")
@click.option("--seed", default=0, show_default=True)
@click.option("--write", type=click.Path(path_type=Path), default=Path("build/depths.json"), show_default=True)
@plainly
def main(
    path: Path, boards: Path | None, photographs: Path | None, count: int, first: int, seed: int, write: Path
) -> None:
    model = load_model(path)
    spec = model.input_spec
    pairs: list[Pair] = []
    with AnsweringModel(model) as answers, PlainEvidence(model, threads=1) as engine:
        if boards is not None:
            unseen = [pair for board in read_boards(boards, "test") for pair in board_pairs(board, spec.size[0])]
            pairs, _ = usable(model, answers, unseen, count, seed)
            pictures = [fitted(model, pair.defect) for pair in pairs]
            classes = [pair.box.type + 1 for pair in pairs]
        elif photographs is not None:
            files = list(list_images([str(photographs)]))
            drawn = np.random.default_rng(seed).permutation(len(files))[:count]
            pictures = [spec.fit(read_image(files[place]))[0] for place in drawn.tolist()]
            classes = [-1] * len(pictures)
        else:
            raise click.UsageError("name --boards or --photographs")
        candidates = depth_candidates(engine)
        table = gaps(engine, pictures, classes, candidates)
        known = truth(model, engine, answers, pairs, candidates) if pairs else None
    names = [" + ".join(depths) for depths in candidates]
    shown: dict[str, Any] = {}
    for place, name in enumerate(names):
        row = dict(zip(INFILLS, table[:, place].mean(axis=0).round(4).tolist(), strict=True))
        shown[name] = row | ({} if known is None else {k: round(v, 4) for k, v in known[place].items()})
        print(f"{name:60.60}", *(f"{key} {value:.3f}" for key, value in shown[name].items()), sep="  ", flush=True)
    rules: dict[str, Any] = {}
    for rule in RULES:
        counts, others = chosen(table, rule, first)
        marked = " (explain --why)" if rule == TRIED_INFILLS else ""
        rules[" + ".join(rule)] = {"chosen": {names[k]: n for k, n in counts.most_common()}, "gap elsewhere": others}
        often = ", ".join(f"{names[place]} {times}x" for place, times in counts.most_common())
        held = "  ".join(f"{kind} {value:.3f}" for kind, value in others.items() if kind not in rule)
        print(f"{' + '.join(rule) + marked:36} chose {often}; on other pictures {held}", flush=True)
    write.parent.mkdir(parents=True, exist_ok=True)
    result = {"model": path.name, "pictures": len(pictures), "first": first, "depths": shown, "rules": rules}
    write.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(write)


if __name__ == "__main__":
    main()
