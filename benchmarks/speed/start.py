"""From `import` to the first explanation, and what the runtime install weighs.

    python -m benchmarks.speed.start [EXPLAINER PHOTO] [--rounds 7] [--cache]

EfficientNet-Lite0's explainer, built into build/, unless told. A fresh interpreter each time, warm disk; wall and CPU
time. Then the bytes of every package that `pip install fsagn-onnx` brings, by the installed files.
Writes build/bench_start.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import click
import cv2
import numpy as np
from packaging.requirements import Requirement

from benchmarks.networks import ROOT, lite0
from fsagn_onnx.benchmark import machine

FIRST = """
import sys, time
wall, cpu = time.perf_counter(), time.process_time()
from fsagn_onnx.runtime import Explainer, Tuning
imported = time.perf_counter()
tuning = Tuning(cache=sys.argv[3]) if len(sys.argv) > 3 else Tuning()
if tuning.cache:
    import pathlib
    tuning = Tuning(cache=pathlib.Path(tuning.cache))
with Explainer(sys.argv[1], providers="cpu", tuning=tuning) as explainer:
    opened = time.perf_counter()
    assert explainer.explain(sys.argv[2], "top:5")[0].filters
print(time.perf_counter() - wall, time.process_time() - cpu, imported - wall, opened - imported)
"""
GIVEN = ("numpy", "onnx", "onnxruntime-gpu", "opencv-python-headless")


def brought(name: str, seen: set[str]) -> set[str]:
    """A package and everything that it asks for without extras."""
    if name in seen:
        return seen
    seen.add(name)
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            brought(requirement.name.lower(), seen)
    return seen


def weight(name: str) -> int:
    files = importlib.metadata.files(name) or []
    return sum(path.locate().stat().st_size for path in files if path.suffix != ".pyc" and path.locate().is_file())


@click.command()
@click.argument("explainer", required=False, type=click.Path(path_type=Path))
@click.argument("photo", required=False, type=click.Path(path_type=Path))
@click.option("--rounds", default=7, show_default=True)
@click.option("--cache", is_flag=True, help="With a cache of optimised graphs.")
def main(explainer: Path | None, photo: Path | None, rounds: int, cache: bool) -> None:
    folder = Path("build")
    folder.mkdir(exist_ok=True)
    if explainer is None or photo is None:
        from skimage import data

        (_, explainer), photo = lite0(folder), folder / "chelsea.png"
        cv2.imwrite(str(photo), data.chelsea()[..., ::-1])
    words = [sys.executable, "-c", FIRST, explainer, photo, *([folder / "cache"] if cache else [])]
    rows = [
        [float(part) for part in subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()]
        for _ in range(rounds + 1)
    ][1:]
    wall, cpu, imported, opened = np.median(rows, axis=0).tolist()
    package = ROOT / "fsagn_onnx"
    own = sum(path.stat().st_size for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")
    sizes = {name: weight(name) for name in sorted(brought("fsagn-onnx", set())) if name != "fsagn-onnx"}
    sizes["fsagn-onnx"] = own
    beyond = sum(size for name, size in sizes.items() if name not in GIVEN)
    result = {
        "machine": machine(),
        "first_explanation_s": {
            "wall": wall,
            "cpu": cpu,
            "fastest_wall": min(row[0] for row in rows),
            "import": imported,
            "open": opened,
        },
        "install_bytes": sizes,
        "install_beyond_mb": round(beyond / 1e6, 1),
        "install_whole_mb": round(sum(sizes.values()) / 1e6, 1),
    }
    (folder / "bench_start.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    fastest = min(row[0] for row in rows)
    print(f"import to first explanation: {wall:.2f} s wall (fastest {fastest:.2f}), {cpu:.2f} s CPU; bar 1.0")
    print(f"  of it import {imported:.2f} s, opening the file {opened:.2f} s")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        print(f"  {size / 1e6:8.1f} MB  {name}")
    print(f"runtime install beyond {', '.join(GIVEN)}: {beyond / 1e6:.1f} MB (bar 40)")
    print(f"the whole: {sum(sizes.values()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
