"""fp16 and int8 beside float32: latency in pairs, measured retention, file sizes (EfficientNet-Lite0).

    python benchmarks/bench_variants.py [PHOTOS...] [--pairs 60] [--images 16] [--threads 2] [--calibrate IMAGES]

Retention is measured by the float32 model on pictures masked at five areas, blur and inpaint as infills, the same five
filters of each picture for all files; int8 is calibrated on other pictures than it is measured on, where there are
enough. Writes build/bench_variants.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from photo_crops import given_photographs

from fsagn_onnx.bench import Benchmark, machine, run_benchmark
from fsagn_onnx.data.images import read_image
from fsagn_onnx.generator.export import export_explainer
from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import GENERATOR, LAYER, build_lite0
from fsagn_onnx.runtime import FileEngine, Verifier
from fsagn_onnx.runtime.masks import pixel_mask
from fsagn_onnx.runtime.variant import PRECISIONS, Variant

AREAS = (0.05, 0.1, 0.2, 0.3, 0.5)
INFILLS = ("blur", "inpaint")


def retention_auc(plain: Path, files: dict[str, Path], paths: list[Path], threads: int) -> dict[str, dict[str, float]]:
    model = load_model(plain)
    spec = model.input_spec
    fitted = [spec.fit(read_image(path))[0] for path in paths]
    batch = np.stack([spec.normalise(pixels) for pixels in fitted])
    ranks, ids = {}, np.full((len(batch), 5), -1, dtype=np.int64)
    for name, file in files.items():
        engine = FileEngine(file, "cpu", threads)
        computed = engine.run(batch, ids)
        ids = computed.filter_ids  # those of the first file, float32, for all
        ranks[name] = computed.area_rank
        engine.close()
    found: dict[str, dict[str, float]] = {name: {} for name in files}
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
            found[name][kind] = round(float(np.nanmean(kept)), 4)
        verifier.close()
    return found


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--pairs", default=60, show_default=True)
@click.option("--images", default=16, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--calibrate", multiple=True, help="Calibration images; every other photograph unless told.")
def main(photos: tuple[str, ...], pairs: int, images: int, threads: int, calibrate: tuple[str, ...]) -> None:
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    plain = build_lite0(folder / "lite0.onnx")
    paths = given_photographs(photos)
    apart = len(paths) >= 8
    measured = paths[1::2] if apart and not calibrate else paths
    given = calibrate or [str(path) for path in (paths[::2] if apart else paths)]
    files, losses = {}, {}
    for name in PRECISIONS:
        files[name] = folder / f"lite0-explainer-{name}.onnx"
        losses[name] = dict(
            export_explainer(plain, GENERATOR, files[name], variant=Variant(name), calibrate=given).loss
        )
    auc = retention_auc(plain, files, measured[:images], threads)
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
        "retention_auc": auc,
        "loss": losses,
        "bytes": {"model": model_bytes, **{name: path.stat().st_size for name, path in files.items()}},
        "added_share_fp32": round(files["fp32"].stat().st_size / model_bytes - 1, 4),
    }
    (folder / "bench_variants.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    gap = max(abs(auc["int8"][kind] - auc["fp32"][kind]) for kind in INFILLS)
    print(f"int8 / fp32 latency {result['int8_over_fp32']} (bar .7); retention AUC differs by {gap:.4f} (bar .02)")
    added = files["fp32"].stat().st_size - model_bytes
    print(f"added to the model: {added / 2**20:.2f} MiB, {added / model_bytes:.1%} (bar 2 MB or 10 %)")


def paired_files(first: Path, second: Path, threads: int, pairs: int) -> float:
    from fsagn_onnx.bench import paired

    engines = [FileEngine(path, "cpu", threads) for path in (first, second)]
    spec = engines[0].metadata.input
    batch = spec.preprocess(np.random.default_rng(0).integers(0, 256, (*spec.size, 3), dtype=np.uint8))[0][None]
    asked = np.full((1, 5), -1, dtype=np.int64)
    ratio = paired(lambda: engines[0].run(batch, asked), lambda: engines[1].run(batch, asked), pairs)[2]
    for engine in engines:
        engine.close()
    return ratio.median


if __name__ == "__main__":
    main()
