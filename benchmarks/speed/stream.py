"""A folder run against decoding and inference alone, and whether memory stays flat.

    python -m benchmarks.speed.stream [PHOTOS...] [--images 1000] [--few 100 --many 10000] [--explainer FILE]

PHOTOS: files or folders, scikit-image's photographs unless told; crops of them make the set. Both sides decode in
two threads and run the same batches; wall and CPU time (which other programs on the machine disturb less) are taken
in turns, part by part. "stream" is Explainer.stream with a JSON line per image, "explain" the whole command: masks,
panels, page. Memory is that of a process which meets the same images again and again. Writes build/bench_stream.json.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.networks import DEMO_EXPLAINER, lite0
from benchmarks.photographs import photo_crops
from fsagn_onnx.benchmark import machine
from fsagn_onnx.runtime import Explainer, Failure
from fsagn_onnx.runtime.stream import DECODERS, Prepared, named_images, ordered_map, prepare

BATCH = 8
PART = 50

PEAK = """
import atexit, re, sys
atexit.register(lambda: print(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr))
"""
STREAM = """
from fsagn_onnx.runtime import Explainer
with Explainer(sys.argv[1], providers="cpu", threads=1) as explainer:
    assert sum(1 for _ in explainer.stream(sys.argv[2], "top:5")) == int(sys.argv[3])
"""
EXPLAIN = """
from fsagn_onnx.cli.main import main
main()
"""


def alone(explainer: Explainer, paths: list[Path]) -> int:
    """Decode, preprocess and infer, nothing else: the same threads, the same batches."""
    spec = explainer.metadata.input
    asked = np.full((BATCH, 5), -1, dtype=np.int64)
    done = 0
    named = named_images(paths)
    prepared = ordered_map(lambda item: prepare(item, spec, preview=False), named, DECODERS, BATCH)
    while batch := [item for item in itertools.islice(prepared, BATCH) if isinstance(item, Prepared)]:
        explainer.engine.run(np.stack([item.values for item in batch]), asked[: len(batch)])
        done += len(batch)
    return done


def streamed(explainer: Explainer, paths: list[Path]) -> int:
    done = 0
    with open(os.devnull, "w", encoding="ascii") as lines:
        for result in explainer.stream(paths, "top:5", batch_size=BATCH, previews=False):
            assert not isinstance(result, Failure), result
            lines.write(json.dumps(result.to_dict()) + "\n")
            done += 1
    return done


def explained(explainer: Explainer, paths: list[Path]) -> int:
    from fsagn_onnx.explanations.job import ExplainRequest, explain_into, open_folder
    from fsagn_onnx.explanations.subject import Opened

    with tempfile.TemporaryDirectory() as out:
        opened = Opened(explainer, None, "generator", {}, None)
        request = ExplainRequest(images=(), batch_size=BATCH)
        with open_folder(opened, Path("x"), Path(out), request, resume=False, overwrite=False) as folder:
            return sum(1 for _ in explain_into(folder, opened, paths, request))


def clocked(
    job: Callable[[Explainer, list[Path]], int], explainer: Explainer, paths: list[Path]
) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    assert job(explainer, paths) == len(paths)
    return time.perf_counter() - wall, time.process_time() - cpu


def speed(explainer: Path, paths: list[Path]) -> dict[str, object]:
    jobs = {"alone": alone, "stream": streamed, "explain": explained}
    parts = [paths[start : start + PART] for start in range(0, len(paths), PART)]
    times = {name: np.empty((len(parts), 2)) for name in jobs}
    with Explainer(explainer, providers="cpu") as opened:
        alone(opened, parts[0])
        for number, part in enumerate(parts):
            order = list(jobs)[number % 3 :] + list(jobs)[: number % 3]
            for name in order:
                times[name][number] = np.array(clocked(jobs[name], opened, part)) / len(part)
    result: dict[str, object] = {"images": len(paths)}
    for name, taken in times.items():
        ratio = taken / times["alone"]
        result[name] = {
            "wall_ms_per_image": round(1e3 * float(np.median(taken[:, 0])), 2),
            "cpu_ms_per_image": round(1e3 * float(np.median(taken[:, 1])), 2),
            "wall_ratio": round(float(np.median(ratio[:, 0])), 3),
            "cpu_ratio": round(float(np.median(ratio[:, 1])), 3),
        }
    return result


def peak_mib(code: str, *words: object) -> float:
    """Peak resident memory of a Python process; the parent's own, which `getrusage` counts in, left out."""
    command = [sys.executable, "-c", PEAK + code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(int(done.stderr.split()[-1]) / 1024, 1)


def memory(explainer: Path, paths: list[Path], many: int, folder: Path, *, whole: bool) -> dict[str, float]:
    """Peak memory with these images, and with ``many``: links to them. ``whole``: the command, not the stream."""
    peaks = {}
    for count in (len(paths), many):
        images, out = folder / "images", folder / "out"
        images.mkdir()
        for number, path in zip(range(count), itertools.cycle(paths), strict=False):
            os.link(path, images / f"{number:06}.jpg")
        if whole:
            peak = peak_mib(EXPLAIN, "explain", explainer, images, "--out", out, "--providers", "cpu", "--threads", 1)
        else:
            peak = peak_mib(STREAM, explainer, images, count)
        peaks[f"peak_mib_{count}"] = peak
        shutil.rmtree(images)
        shutil.rmtree(out, ignore_errors=True)
    return {**peaks, "ratio": round(peaks[f"peak_mib_{many}"] / peaks[f"peak_mib_{len(paths)}"], 4)}


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--images", default=1000, show_default=True)
@click.option("--few", default=100, show_default=True)
@click.option("--many", default=10_000, show_default=True, help="Images of a stream.")
@click.option("--many-explained", default=1000, show_default=True, help="Images of a whole `explain`.")
@click.option(
    "--explainer", type=click.Path(path_type=Path), help="EfficientNet-Lite0's, built into build/, unless told."
)
def main(
    photos: tuple[str, ...], images: int, few: int, many: int, many_explained: int, explainer: Path | None
) -> None:
    if explainer is None:
        _, explainer = lite0()
    Path("build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="build") as temporary:
        folder = Path(temporary)
        (folder / "photos").mkdir()
        paths = photo_crops(photos, max(images, few), folder / "photos")
        result = {
            "machine": machine(),
            "speed": speed(explainer, paths[:images]),
            "stream_memory": memory(DEMO_EXPLAINER, paths[:few], many, folder, whole=False),
            "explain_memory": memory(DEMO_EXPLAINER, paths[:few], many_explained, folder, whole=True),
        }
    Path("build/bench_stream.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    for name in ("stream", "explain"):
        ratio = result["speed"][name]  # type: ignore[index]
        print(f"{name} / (decode + inference alone): {ratio['wall_ratio']} wall, {ratio['cpu_ratio']} CPU (bar 1.10)")
    for name, count in (("stream", many), ("explain", many_explained)):
        ratio = result[f"{name}_memory"]["ratio"]  # type: ignore[index]
        print(f"{name}: peak memory at {count} images / at {few}: {ratio} (bar 1.05)")


if __name__ == "__main__":
    main()
