"""What `dissect` costs beside just running the explainer over the same pictures, and whether its memory stays flat.

    python -m benchmarks.speed.dissection [--pictures 5000] [--model FILE --explainer FILE] [--out build/bench_dissect]

An explainer (the demo CNN's unless told), all of its filters, on rendered pictures with parts. Both sides decode,
preprocess and run the explainer in batches of 8 on one thread, in turns, so that other load disturbs both alike; times
are CPU seconds of the process. The first side is checked to give the masks that the second one wrote.
`dissect` is counted whole: permutation tests, untrained networks, groups, tables, report. Prints a table and writes
build/bench_dissect.json.
"""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path

import click
import numpy as np

from benchmarks.networks import DEMO_EXPLAINER, DEMO_MODEL
from fsagn_onnx.data.annotations import open_annotations
from fsagn_onnx.dissection import DissectRequest, DissectRun
from fsagn_onnx.dissection.observations import mask_bits
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import FileEngine
from fsagn_onnx.runtime.stream import DECODERS, Prepared, named_images, ordered_map, prepare
from fsagn_onnx.testing.synthetic import write_folder

BATCH, TURNS = 8, 20
SESSION = {"providers": "cpu", "threads": 1}


def memory() -> float:
    """Resident memory in MB."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


class Alone:
    """The explainer alone over the same pictures; ``seconds`` and the packed masks so far."""

    def __init__(self, explainer: Path, images: Path) -> None:
        self.seconds, self.bits = 0.0, []
        self._engine = FileEngine(explainer, **SESSION)
        self.filters = self._engine.metadata.filters
        spec = self._engine.metadata.input
        self._prepared = ordered_map(
            lambda item: prepare(item, spec, preview=False), named_images(images), DECODERS, BATCH
        )

    def step(self, batches: int) -> None:
        started = time.process_time()
        for _ in range(batches):
            batch = [item for item in islice(self._prepared, BATCH) if isinstance(item, Prepared)]
            if batch:
                ids = np.tile(np.arange(self.filters), (len(batch), 1))
                ranks = self._engine.run(np.stack([item.values for item in batch]), ids).area_rank
                self.bits.append(np.stack([mask_bits(rank, 0.08) for rank in ranks]))
        self.seconds += time.process_time() - started


def run_both(model: Path, explainer: Path, folder: Path, out: Path) -> tuple[Alone, float, float, list[float]]:
    """The explainer alone, CPU seconds of the pass and of the statistics, and memory after every tenth."""
    request = DissectRequest((str(folder / "images"),), batch_size=BATCH, session=SESSION)
    alone = Alone(explainer, folder / "images")
    started = time.process_time()
    run = DissectRun(
        load_model(model), explainer, out, request, annotations=open_annotations(folder), overwrite=out.is_dir()
    )
    grown: list[float] = []
    with run:
        total = len(list((folder / "images").iterdir()))
        looked, collecting = run.images(), time.process_time() - started
        for number in range(TURNS):
            started = time.process_time()
            for _ in islice(looked, total // TURNS):
                pass
            collecting += time.process_time() - started
            alone.step(total // TURNS // BATCH)
            if (number + 1) % (TURNS // 10) == 0:
                grown.append(memory())
        started = time.process_time()
        for _ in looked:
            pass
        collecting += time.process_time() - started
        alone.step(TURNS)
        started = time.process_time()
        run.finish()
        grown.append(memory())
    return alone, collecting, time.process_time() - started, grown


@click.command()
@click.option("--pictures", default=500, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench_dissect"), show_default=True)
@click.option("--model", type=click.Path(path_type=Path), default=DEMO_MODEL, show_default=True)
@click.option("--explainer", type=click.Path(path_type=Path), default=DEMO_EXPLAINER, show_default=True)
def main(pictures: int, out: Path, model: Path, explainer: Path) -> None:
    folder = out / f"val-{pictures}"
    if not (folder / "names.json").is_file():
        write_folder(folder, "val", pictures)
    beside, collecting, finishing, grown = run_both(model, explainer, folder, out / f"run-{model.stem}")
    alone, masks = beside.seconds, np.concatenate(beside.bits)
    written = np.fromfile(out / f"run-{model.stem}" / "columns" / "masks", np.uint8).reshape(masks.shape)
    assert np.mean(masks != written) < 1e-3
    result = {
        "pictures": pictures,
        "model": model.stem,
        "filters": beside.filters,
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
