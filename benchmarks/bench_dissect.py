"""What `dissect` costs beside just running the explainer over the same pictures, and whether its memory stays flat.

    python benchmarks/bench_dissect.py [--pictures 5000] [--out build/bench_dissect]

The demo CNN's explainer, all of its 96 filters, on rendered pictures with parts. Both sides decode, preprocess and run
the explainer in batches of 8 on one thread; times are CPU seconds of the process, so that other load on the machine
does not count. The first side is checked to give the masks that the second one wrote. `dissect` is counted whole:
permutation tests, untrained networks, groups, tables, report. Prints a table and writes build/bench_dissect.json.
"""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path

import click
import numpy as np

from fsagn_onnx.data.annotations import open_annotations
from fsagn_onnx.data.synthetic import write_folder
from fsagn_onnx.dissect import DissectRun, Request
from fsagn_onnx.dissect.collect import mask_bits
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import FileEngine
from fsagn_onnx.runtime.stream import DECODERS, Prepared, named_images, ordered_map, prepare

MODEL, EXPLAINER, FILTERS = Path("models/demo_cnn.onnx"), Path("models/demo_explainer.onnx"), 96
SESSION = {"providers": "cpu", "threads": 1}


def memory() -> float:
    """Resident memory in MB."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def run_explainer(images: Path) -> tuple[float, np.ndarray]:
    """CPU seconds of the explainer alone, and the packed masks of all pictures."""
    engine = FileEngine(EXPLAINER, **SESSION)
    spec, bits = engine.metadata.input, []
    started = time.process_time()
    prepared = ordered_map(lambda item: prepare(item, spec, preview=False), named_images(images), DECODERS, 8)
    while batch := [item for item in islice(prepared, 8) if isinstance(item, Prepared)]:
        ids = np.tile(np.arange(FILTERS), (len(batch), 1))
        ranks = engine.run(np.stack([item.values for item in batch]), ids).area_rank
        bits.append(np.stack([mask_bits(rank, 0.08) for rank in ranks]))
    seconds = time.process_time() - started
    engine.close()
    return seconds, np.concatenate(bits)


def run_dissect(folder: Path, out: Path) -> tuple[float, float, list[float]]:
    """CPU seconds of the pass and of the statistics, and memory after every tenth of the pictures."""
    request = Request((str(folder / "images"),), session=SESSION)
    started = time.process_time()
    run = DissectRun(
        load_model(MODEL), EXPLAINER, out, request, annotations=open_annotations(folder), overwrite=out.is_dir()
    )
    grown: list[float] = []
    with run:
        total = len(list((folder / "images").iterdir()))
        for number, _ in enumerate(run.images(), start=1):
            if number % (total // 10) == 0:
                grown.append(memory())
        between = time.process_time()
        run.finish()
        grown.append(memory())
    return between - started, time.process_time() - between, grown


@click.command()
@click.option("--pictures", default=500, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench_dissect"), show_default=True)
def main(pictures: int, out: Path) -> None:
    folder = out / f"val-{pictures}"
    if not (folder / "names.json").is_file():
        write_folder(folder, "val", pictures)
    collecting, finishing, grown = run_dissect(folder, out / "run")
    alone, masks = run_explainer(folder / "images")
    written = np.fromfile(out / "run" / "columns" / "masks", np.uint8).reshape(masks.shape)
    assert np.mean(masks != written) < 1e-3
    result = {
        "pictures": pictures,
        "filters": FILTERS,
        "explainer_seconds": round(alone, 2),
        "pass_seconds": round(collecting, 2),
        "statistics_seconds": round(finishing, 2),
        "ratio": round((collecting + finishing) / alone, 3),
        "ratio_of_the_pass": round(collecting / alone, 3),
        "memory_mb_by_tenths_and_after": [round(value) for value in grown],
    }
    Path("build/bench_dissect.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
