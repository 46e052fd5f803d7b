"""fp16 and int8 beside float32: latency in pairs, measured retention, file sizes (EfficientNet-Lite0).

    python -m benchmarks.speed.variants [PHOTOS...] [--pairs 60] [--images 60] [--threads 2] [--calibrate IMAGES]

Retention is measured by the float32 model on crops of photographs (scikit-image's unless told) masked at five areas,
blur and inpaint as infills, the same five filters of each crop for all files. int8 is calibrated on crops of every
other photograph, and measured on crops of the rest. The loss is the mean over crops, with its 95 % bootstrap interval.
Writes build/bench_variants.json.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.photographs import given_photographs, photo_crops
from fsagn_onnx.benchmark import Benchmark, machine, paired, run_benchmark
from fsagn_onnx.data.images import read_image
from fsagn_onnx.generator.export import export_explainer
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import GENERATOR, LAYER, build_lite0
from fsagn_onnx.runtime import FileEngine, Verifier
from fsagn_onnx.runtime.masks import pixel_mask
from fsagn_onnx.runtime.variant import PRECISIONS, Variant

Array = NDArray[np.float64]
AREAS = (0.05, 0.1, 0.2, 0.3, 0.5)
INFILLS = ("blur", "inpaint")


def retention_auc(plain: Path, files: dict[str, Path], paths: list[Path], threads: int) -> dict[str, dict[str, Array]]:
    """Retention AUC of every image, by file and infill: (images,)."""
    model = load_model(plain)
    spec = model.input_spec
    fitted = [spec.fit(read_image(path))[0] for path in paths]
    batch = np.stack([spec.normalise(pixels) for pixels in fitted])
    ranks, ids = {}, np.full((len(batch), 5), -1, dtype=np.int64)
    for name, file in files.items():
        engine = FileEngine(file, "cpu", threads)
        passes = [engine.run(batch[start : start + 8], ids[start : start + 8]) for start in range(0, len(batch), 8)]
        ids = np.concatenate([computed.filter_ids for computed in passes])  # those of the first file, for all
        ranks[name] = np.concatenate([computed.area_rank for computed in passes])
        engine.close()
    found: dict[str, dict[str, Array]] = {name: {} for name in files}
    for kind in INFILLS:
        verifier = Verifier(model.proto, LAYER, spec, infill_kind=kind, providers="cpu", threads=threads)
        for name in files:
            kept = [
                verifier.measure(
                    pixels,
                    [pixel_mask(ranks[name][n, k], a, spec.size) for k in range(5) for a in AREAS],
                    ids[n].repeat(5).tolist(),
                )
                for n, pixels in enumerate(fitted)
            ]
            found[name][kind] = np.nanmean(kept, axis=1)
        verifier.close()
    return found


def loss(auc: dict[str, dict[str, Array]], name: str) -> dict[str, dict[str, float]]:
    """What a file's masks lose against float32's, by infill: mean over images and 95 % bootstrap interval."""
    random, losses = np.random.default_rng(0), {}
    for kind in INFILLS:
        lost = auc["fp32"][kind] - auc[name][kind]
        means = lost[random.integers(len(lost), size=(2000, len(lost)))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        figures = {"fp32": auc["fp32"][kind].mean(), name: auc[name][kind].mean(), "loss": lost.mean()}
        losses[kind] = {key: round(float(value), 4) for key, value in {**figures, "low": low, "high": high}.items()}
    return losses


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--pairs", default=60, show_default=True)
@click.option("--images", default=60, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--calibrate", multiple=True, help="Calibration images; crops of every other photograph unless told.")
def main(photos: tuple[str, ...], pairs: int, images: int, threads: int, calibrate: tuple[str, ...]) -> None:
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    plain = build_lite0(folder / "lite0.onnx")
    paths = [str(path) for path in given_photographs(photos)]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        kinds = {"calibrate": paths[::2], "measure": paths[1::2] or paths}
        crops = {}
        for kind, sources in kinds.items():
            (Path(temporary) / kind).mkdir()
            crops[kind] = photo_crops(sources, images, Path(temporary) / kind)
        report(plain, crops["measure"], calibrate or [str(path) for path in crops["calibrate"]], threads, pairs)


def report(plain: Path, measured: list[Path], given: Sequence[str], threads: int, pairs: int) -> None:
    folder = plain.parent
    files, losses = {}, {}
    for name in PRECISIONS:
        files[name] = folder / f"lite0-explainer-{name}.onnx"
        losses[name] = dict(
            export_explainer(plain, GENERATOR, files[name], variant=Variant(name), calibrate=given).loss
        )
    auc = retention_auc(plain, files, measured, threads)
    cost = {}
    for name in ("int8", "fp16"):  # one beside the other: float32 explainer / variant in pairs
        benchmark = Benchmark(
            load_model(plain), [files["fp32"], files[name]], threads=[threads], providers=["cpu"], pairs=pairs
        )
        cost[name] = [row.ratio.median for row in run_benchmark(benchmark)]
    model_bytes = plain.stat().st_size
    result = {
        "machine": machine(),
        "threads": threads,
        "latency_over_model": {"fp32": cost["int8"][0], "int8": cost["int8"][1], "fp16": cost["fp16"][1]},
        "int8_over_fp32": round(paired_files(files["fp32"], files["int8"], threads, pairs), 3),
        "fp16_over_fp32": round(paired_files(files["fp32"], files["fp16"], threads, pairs), 3),
        "images": len(measured),
        "retention_auc": {name: loss(auc, name) for name in ("int8", "fp16")},
        "areas": losses,
        "bytes": {"model": model_bytes, **{name: path.stat().st_size for name, path in files.items()}},
        "added_share_fp32": round(files["fp32"].stat().st_size / model_bytes - 1, 4),
    }
    (folder / "bench_variants.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    print(f"int8 / fp32 latency {result['int8_over_fp32']} (bar .7)")
    for kind, found in loss(auc, "int8").items():
        print(
            f"int8 loses {found['loss']:.4f} [{found['low']:.4f}, {found['high']:.4f}] of retention AUC "
            f"{found['fp32']:.4f} with {kind}, {len(measured)} crops (bar .02)"
        )
    added = files["fp32"].stat().st_size - model_bytes
    print(f"added to the model: {added / 2**20:.2f} MiB, {added / model_bytes:.1%} (bar 2 MB or 10 %)")


def paired_files(first: Path, second: Path, threads: int, pairs: int) -> float:
    """Time of the second file over the first's, in turns of ten passes each."""
    engines = [FileEngine(path, "cpu", threads) for path in (first, second)]
    spec = engines[0].metadata.input
    batch = spec.preprocess(np.random.default_rng(0).integers(0, 256, (*spec.size, 3), dtype=np.uint8))[0][None]
    asked = np.full((1, 5), -1, dtype=np.int64)
    turns = [lambda engine=engine: [engine.run(batch, asked) for _ in range(10)] for engine in engines]
    ratio = paired(*turns, max(pairs // 3, 5))[2]
    for engine in engines:
        engine.close()
    return ratio.median


if __name__ == "__main__":
    main()
