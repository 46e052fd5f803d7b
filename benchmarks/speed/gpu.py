"""EfficientNet-Lite0 and its explainer on a CUDA machine: fp32, tf32 and fp16, batch 1 to 128, CUDA graphs.

    python3 benchmarks/speed/gpu.py [--wheels DIR] [--out FILE]

Runs unattended from a bare Python 3.11 or newer: it makes build/gpu-venv, installs this package with its extras
(`train`, `demo`) and onnxruntime's CUDA libraries into it (from DIR alone, without an index, where given), and goes on
inside. Model and explainer are both held on the device (IO binding); every answer is compared with the CPU's before it
is timed; model and explainer take turns. Writes one JSON file with the card's name.

    python3 benchmarks/speed/gpu.py --here --provider cpu --batches 1,2 --rounds 3     # the same here, without a card
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BATCHES = "1,2,4,8,16,32,64,128"
PRECISIONS = ("fp32", "tf32", "fp16")
FILTERS = 5
BAR = {"precision": "fp16", "batch": 32, "images_per_s": 5000.0, "ratio": 1.15}


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="install from this folder of wheels, without an index")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu.json")
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--provider", default="cuda")
    parser.add_argument("--here", action="store_true", help="measure in this environment, install nothing")
    return parser.parse_args(words)


def install_words(wheels: Path | None) -> list[str]:
    """What pip is asked for."""
    source = ["--no-index", "--find-links", str(wheels)] if wheels else []
    return ["install", "--quiet", *source, f"{ROOT}[train,demo]", "onnxruntime-gpu[cuda,cudnn]"]


def in_own_environment(asked: argparse.Namespace, words: list[str]) -> int:
    folder = ROOT / "build" / "gpu-venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", *install_words(asked.wheels)], check=True)
    return subprocess.run([python, __file__, "--here", *words], check=False).returncode


def card() -> dict[str, str]:
    """Name, memory and driver of the first card; empty without one."""
    query = "name,memory.total,driver_version"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(query.split(","), (part.strip() for part in done.stdout.splitlines()[0].split(",")), strict=True))


def prepare(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Model and explainer per precision; tf32 runs the float32 files."""
    import onnx

    from fsagn_onnx.generator.export import export_explainer
    from fsagn_onnx.generator.variants import half_precision
    from fsagn_onnx.models.lite0 import GENERATOR, build_lite0
    from fsagn_onnx.runtime.variant import Variant

    plain = build_lite0(folder / "lite0.onnx")
    files = {}
    for precision in ("fp32", "fp16"):
        model, explainer = folder / f"lite0-{precision}.onnx", folder / f"lite0-explainer-{precision}.onnx"
        proto = onnx.load(plain)
        onnx.save(half_precision(proto) if precision == "fp16" else proto, model)
        export_explainer(plain, GENERATOR, explainer, variant=Variant(precision))
        files[precision] = (model, explainer)
    return {**files, "tf32": files["fp32"]}


def agreement(session: Any, feeds: dict[str, Any], got: dict[str, Any]) -> float:
    """Mean overlap (IoU at a fifth of the grid) with the CPU's areas where both explain the same filter."""
    expected = session.run(None, feeds)
    same = expected["filter_ids"] == got["filter_ids"]
    a, b = expected["area_rank"] <= 0.2, got["area_rank"] <= 0.2
    overlap = (a & b).sum(axis=(-2, -1)) / (a | b).sum(axis=(-2, -1))
    return float(overlap[same].mean()) if same.any() else 0.0


def measure(
    files: dict[str, tuple[Path, Path]], provider: str, batches: list[int], rounds: int, threads: int | None = None
) -> list[dict[str, Any]]:
    import numpy as np

    from fsagn_onnx.benchmark import paired
    from fsagn_onnx.runtime import Binding, Session, Tuning

    rows = []
    rng = np.random.default_rng(0)
    for precision in PRECISIONS:
        for graphs in (False, True) if provider == "cuda" else (False,):
            for batch in batches:
                tuning = Tuning(tf32=precision == "tf32", cuda_graph=graphs)
                model, explainer = (Session(path, provider, threads, tuning) for path in files[precision])
                reference = Session(files["fp32"][1], "cpu", threads)
                height = int(model.inputs[0].shape[2] or 224)
                coarse = rng.standard_normal((batch, 3, height // 8, height // 8)).astype(np.float32)
                image = {model.inputs[0].name: coarse.repeat(8, axis=2).repeat(8, axis=3)}
                feeds = {**image, "filters": np.full((batch, FILTERS), -1, dtype=np.int64)}
                if "classes" in {value.name for value in explainer.inputs}:
                    feeds["classes"] = np.full((batch, 1), -1, dtype=np.int64)
                plain, explaining = Binding(model, image), Binding(explainer, feeds)
                explaining.run()
                agreed = agreement(reference, feeds, explaining.fetch())
                if agreed < 0.8:
                    raise SystemExit(
                        f"error: {precision}, batch {batch}: areas agree with the CPU's by {agreed:.2f} only"
                    )
                plain_ms, explainer_ms, ratio = paired(plain.run, explaining.run, rounds)
                rows.append(
                    {
                        "precision": precision,
                        "cuda_graph": graphs,
                        "batch": batch,
                        "filters": FILTERS,
                        "provider": explainer.provider,
                        "model_ms": plain_ms.median,
                        "explainer_ms": explainer_ms.median,
                        "ratio": ratio.median,
                        "ratio_quartiles": [ratio.low, ratio.high],
                        "images_per_s": 1e3 * batch / explainer_ms.median,
                        "agreement": agreed,
                    }
                )
                print(line(rows[-1]), flush=True)
                for session in (model, explainer, reference):
                    session.close()
    return rows


def line(row: dict[str, Any]) -> str:
    graph = "graph" if row["cuda_graph"] else "     "
    return (
        f"{row['precision']} {graph} batch {row['batch']:4d}  model {row['model_ms']:8.3f} ms  explainer "
        f"{row['explainer_ms']:8.3f} ms  ratio {row['ratio']:.3f}  {row['images_per_s']:9.1f} images/s"
    )


def verdict(rows: list[dict[str, Any]]) -> str:
    """The bar, and the best row that it is about."""
    meant = [row for row in rows if row["precision"] == BAR["precision"] and row["batch"] == BAR["batch"]]
    if not meant:
        return "the bar's row was not measured"
    best = max(meant, key=lambda row: row["images_per_s"])
    met = best["images_per_s"] >= BAR["images_per_s"] and best["ratio"] <= BAR["ratio"]
    return (
        f"fp16, batch 32, K = 5: {best['images_per_s']:.0f} images/s (bar 5000), {best['ratio']:.3f}x the model "
        f"(bar 1.15): {'met' if met else 'not met'}"
    )


def main(words: list[str]) -> int:
    asked = arguments(words)
    if not asked.here:
        return in_own_environment(asked, words)
    from fsagn_onnx.benchmark import machine

    found = card()
    if asked.provider == "cuda" and not found:
        print(
            "error: no NVIDIA card: nvidia-smi does not answer; --provider cpu runs the same without one",
            file=sys.stderr,
        )
        return 1
    folder = ROOT / "build" / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    batches = [int(part) for part in asked.batches.split(",")]
    rows = measure(prepare(folder), asked.provider, batches, asked.rounds)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"card": found, "machine": machine(), "rows": rows}
    part = asked.out.with_name(f".{asked.out.name}.part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(part, asked.out)
    print(verdict(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
