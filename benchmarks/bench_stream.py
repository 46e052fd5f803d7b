"""A folder run against decoding and inference alone, and whether memory stays flat.

    python benchmarks/bench_stream.py [PHOTOS...] [--images 1000] [--few 100 --many 10000] [--explainer FILE]

PHOTOS: files or folders, repeated until there are enough; scikit-image's photographs unless told. Both sides decode
in two threads and run the same batches; wall and CPU time (which other programs on the machine disturb less) are
taken in turns, part by part. "stream" is Explainer.stream with a JSON line per image, "explain" the whole command:
masks, panels, page. Writes build/bench_stream.json.
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
import cv2
import numpy as np

from fsagn_onnx.bench import machine
from fsagn_onnx.data.images import list_images
from fsagn_onnx.data.synthetic import SyntheticParts
from fsagn_onnx.runtime import Explainer, Failure
from fsagn_onnx.runtime.stream import DECODERS, Prepared, named_images, ordered_map, prepare

BATCH = 8
PART = 50

PEAK = """
import resource, sys
from fsagn_onnx.runtime import Explainer
with Explainer(sys.argv[1], providers="cpu", threads=1) as explainer:
    count = sum(1 for _ in explainer.stream(sys.argv[2], "top:5"))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def photographs(sources: tuple[str, ...], folder: Path) -> list[Path]:
    if sources:
        return list(list_images(sources))
    from skimage import data

    paths = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        paths.append(folder / f"{name}.jpg")
        cv2.imwrite(str(paths[-1]), getattr(data, name)()[..., ::-1])
    return paths


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
    from fsagn_onnx.report.explaining import Request, explain_into, open_folder
    from fsagn_onnx.report.opening import Opened

    with tempfile.TemporaryDirectory() as out:
        opened = Opened(explainer, None, "generator", {}, None)
        request = Request(images=(), batch_size=BATCH)
        with open_folder(opened, Path("x"), Path(out), request, resume=False, overwrite=False) as folder:
            return sum(1 for _ in explain_into(folder, opened, paths, request))


def clocked(
    job: Callable[[Explainer, list[Path]], int], explainer: Explainer, paths: list[Path]
) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    assert job(explainer, paths) == len(paths)
    return time.perf_counter() - wall, time.process_time() - cpu


def speed(explainer: Path, paths: list[Path], images: int) -> dict[str, object]:
    jobs = {"alone": alone, "stream": streamed, "explain": explained}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    with Explainer(explainer, providers="cpu") as opened:
        all_paths = list(itertools.islice(itertools.cycle(paths), images))
        alone(opened, all_paths[:BATCH])
        for start in range(0, images, PART):
            for name, job in jobs.items():
                if name == "explain" and start >= images // 4:
                    continue  # the slow one on a quarter, against the same quarter of the others
                names = (
                    list(dict.fromkeys(all_paths[start : start + PART]))
                    if name == "explain"
                    else all_paths[start : start + PART]
                )
                wall, cpu = clocked(job, opened, names)
                times[name].append((wall / len(names), cpu / len(names)))
    result: dict[str, object] = {"images": images}
    for name, pairs in times.items():
        both = np.array(pairs)
        base = np.array(times["alone"])[: len(both)]
        result[name] = {
            "wall_ms_per_image": round(1e3 * float(np.median(both[:, 0])), 2),
            "cpu_ms_per_image": round(1e3 * float(np.median(both[:, 1])), 2),
            "wall_ratio": round(float(np.median(both[:, 0] / base[:, 0])), 3),
            "cpu_ratio": round(float(np.median(both[:, 1] / base[:, 1])), 3),
        }
    return result


def memory(explainer: Path, few: int, many: int, folder: Path) -> dict[str, float]:
    """Peak resident memory of a process that streams few images, and of one that streams many."""
    (folder / "source").mkdir()
    for number, sample in enumerate(SyntheticParts("test", 16)):
        cv2.imwrite(str(folder / "source" / f"{number}.png"), sample.image[..., ::-1])
    peaks = {}
    for count in (few, many):
        images = folder / str(count)
        images.mkdir()
        for number in range(count):
            os.link(folder / "source" / f"{number % 16}.png", images / f"{number:06}.png")
        done = subprocess.run(
            [sys.executable, "-c", PEAK, explainer, images], capture_output=True, text=True, check=True
        ).stdout.split()
        assert int(done[0]) == count
        peaks[f"peak_mib_{count}"] = round(int(done[1]) / 1024, 1)
        shutil.rmtree(images)
    return {**peaks, "ratio": round(peaks[f"peak_mib_{many}"] / peaks[f"peak_mib_{few}"], 4)}


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--images", default=1000, show_default=True)
@click.option("--few", default=100, show_default=True)
@click.option("--many", default=10_000, show_default=True)
@click.option(
    "--explainer", type=click.Path(path_type=Path), help="EfficientNet-Lite0's, built into build/, unless told."
)
def main(photos: tuple[str, ...], images: int, few: int, many: int, explainer: Path | None) -> None:
    if explainer is None:
        from fsagn_onnx.models.lite0 import build_lite0_explainer

        explainer = Path("build/lite0-explainer.onnx")
        if not explainer.exists():
            build_lite0_explainer(explainer)
    demo = Path(__file__).resolve().parent.parent / "models" / "demo_explainer.onnx"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        result = {
            "machine": machine(),
            "speed": speed(explainer, photographs(photos, folder), images),
            "memory": memory(demo, few, many, folder),
        }
    Path("build").mkdir(exist_ok=True)
    Path("build/bench_stream.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    ratio = result["speed"]["stream"]  # type: ignore[index]
    print(f"folder run / (decode + inference alone): {ratio['wall_ratio']} wall, {ratio['cpu_ratio']} CPU (bar 1.10)")
    print(f"peak memory at {many} images / at {few}: {result['memory']['ratio']} (bar 1.05)")  # type: ignore[index]


if __name__ == "__main__":
    main()
