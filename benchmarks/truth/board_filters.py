"""Do the filters that decide about a defect stand for that defect?

    python -m benchmarks.truth.board_filters --data DEEPPCB [--explainer FILE] [--pictures 400] [--per-class 5]

`dissect` looks at crops of DeepPCB's test split, the defects' boxes as parts. A filter is decisive for a defect type
when it is among the `--per-class` with the largest mean share of the support of that type's decision, over the crops of
the type that the network gets right. Figure: the share of decisive (type, filter) pairs to which `dissect` gives that
type, as the best part or a further one, at q <= .05; and, of the same network with weights drawn anew, the share of
filters that are given any part at all. The names that ship were written by
`--split trainval --pictures 300 --names models/boards_filters.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from benchmarks.plan import plainly
from benchmarks.truth.boards import MODEL, fitted
from fsagn_onnx.data.images import list_images
from fsagn_onnx.dissection import dissect
from fsagn_onnx.dissection.untrained import reinitialised
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import load_model
from fsagn_onnx.models.boards import TYPES, Pair, board_pairs, read_boards, write_pairs
from fsagn_onnx.runtime.file_engine import FileEngine

EXPLAINER = MODEL.with_name("boards_explainer.onnx")
SESSION: dict[str, Any] = {"providers": "cpu", "threads": 1}
LEVEL = 0.05


def decisive(pairs: list[Pair], explainer: Path, per_class: int) -> dict[str, list[int]]:
    """By type the filters with the largest mean share of the support."""
    model, engine = load_model(MODEL), FileEngine(explainer, **SESSION)
    filters = np.arange(engine.metadata.filters)
    shares: dict[str, list[np.ndarray]] = {kind: [] for kind in TYPES}
    for pair in pairs:
        batch = model.input_spec.normalise(fitted(model, pair.defect))[None].astype(np.float32)
        found = engine.decide(batch, filters[None], np.array([[-1]]))
        if found.decisions is not None and int(found.decisions.class_ids[0, 0]) == pair.box.type + 1:
            shares[pair.type].append(found.decisions.contributions[0, 0] / found.decisions.support[0, 0, 0])
    engine.close()
    return {
        kind: np.argsort(-np.mean(rows, axis=0), kind="stable")[:per_class].tolist()
        for kind, rows in shares.items()
        if rows
    }


def given(row: Any) -> set[str]:
    """The parts that a filter is given at q <= .05, the best one and further ones."""
    if row.part is None or row.q is None or row.q > LEVEL:
        return set()
    return {row.part, *(getattr(other, "part", other) for other in row.also)}


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="DeepPCB.")
@click.option(
    "--explainer", default=EXPLAINER, show_default="models/boards_explainer.onnx", type=click.Path(path_type=Path)
)
@click.option("--pictures", default=400, show_default=True)
@click.option("--split", default="test", show_default=True, type=click.Choice(["test", "trainval"]))
@click.option("--names", type=click.Path(path_type=Path), help="Write what the filters stand for: JSON.")
@click.option("--per-class", default=5, show_default=True)
@click.option("--out", default=Path("build/board_filters"), show_default=True, type=click.Path(path_type=Path))
@click.option("--write", type=click.Path(path_type=Path), default=Path("build/board-filters.json"), show_default=True)
@plainly
def main(
    data: Path, explainer: Path, pictures: int, split: str, names: Path | None, per_class: int, out: Path, write: Path
) -> None:
    pairs = [pair for board in read_boards(data, split) for pair in board_pairs(board)]
    pairs = [pairs[index] for index in sorted(np.random.default_rng(0).permutation(len(pairs))[:pictures].tolist())]
    folder = out / "crops"
    if not (folder / "parts.json").is_file():
        write_pairs(pairs, folder)
    images = [path for kind in TYPES for path in list_images([folder / kind])]
    parts = folder / "parts.json"
    found = dissect(MODEL, explainer, images, out / "trained", parts=parts, overwrite=True, session=SESSION)
    rows = {row.filter: row for row in found.filters}
    if names is not None:
        called = {str(number): ", ".join(sorted(given(row))) for number, row in rows.items() if given(row)}
        names.write_text(json.dumps(called, indent=1) + "\n", encoding="utf-8")
    chosen = decisive(pairs, explainer, per_class)
    table = {
        kind: {number: {"part": rows[number].part, "also": sorted(given(rows[number]) - {rows[number].part}),
                        "q": rows[number].q, "right": kind in given(rows[number])} for number in numbers}
        for kind, numbers in chosen.items()
    }  # fmt: skip
    right = [entry["right"] for row in table.values() for entry in row.values()]
    proto = reinitialised(onnx.load(MODEL), 1_000)
    assert proto is not None
    untrained = out / "untrained.onnx"
    onnx.save(proto, untrained)
    model = load_model(untrained)
    engine = engine_for(model, found.layer, "activation", **SESSION)
    drawn = dissect(model, engine, images, out / "untrained", parts=parts, overwrite=True, session=SESSION)
    result = {
        "command": f"python -m benchmarks.truth.board_filters --split {split} --pictures {pictures} "
        f"--per-class {per_class}",
        "decisive filters given their type": float(np.mean(right)),
        "pairs of type and filter": len(right),
        "filters named": sum(row.part is not None for row in found.filters) / len(found.filters),
        "untrained: filters given a part": sum(row.part is not None for row in drawn.filters) / len(drawn.filters),
        "table": table,
    }
    write.parent.mkdir(parents=True, exist_ok=True)
    write.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
