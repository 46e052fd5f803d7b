"""What an explanation costs: explainer beside plain model, batch 1, in pairs in one run.

    python benchmarks/bench_cost.py [MODEL EXPLAINER] [--filters 5] [--pairs 60]

Without arguments it builds EfficientNet-Lite0 and its explainer into build/. Prints medians and writes
build/bench_cost.json. The model's outputs of both files are compared before anything is timed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np
import onnxruntime


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.argument("explainer", required=False, type=click.Path(path_type=Path))
@click.option("--filters", default=5, show_default=True)
@click.option("--pairs", default=60, show_default=True)
def main(model: Path | None, explainer: Path | None, filters: int, pairs: int) -> None:
    if model is None or explainer is None:
        from fsagn_onnx.models.lite0 import build_lite0, build_lite0_explainer

        model, explainer = Path("build/lite0.onnx"), Path("build/lite0-explainer.onnx")
        build_lite0(model)
        build_lite0_explainer(explainer, model=model)
    plain, explaining = session(model), session(explainer)
    port = plain.get_inputs()[0]
    shape = [extent if isinstance(extent, int) else 1 for extent in port.shape]
    batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    asked = np.full((1, filters), -1, dtype=np.int64)
    feeds, both = {port.name: batch}, {port.name: batch, "filters": asked}
    outputs = [output.name for output in plain.get_outputs()]
    for expected, got in zip(plain.run(outputs, feeds), explaining.run(outputs, both), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    times = np.empty((pairs, 2))
    for index in range(-10, pairs):
        for column, run in enumerate((lambda: plain.run(None, feeds), lambda: explaining.run(None, both))):
            started = time.perf_counter()
            run()
            if index >= 0:
                times[index, column] = time.perf_counter() - started
    ratios = times[:, 1] / times[:, 0]
    result = {
        "model_ms": 1e3 * float(np.median(times[:, 0])),
        "explainer_ms": 1e3 * float(np.median(times[:, 1])),
        "ratio_median": float(np.median(ratios)),
        "ratio_quartiles": [float(value) for value in np.quantile(ratios, [0.25, 0.75])],
        "filters": filters,
        "pairs": pairs,
    }
    Path("build").mkdir(exist_ok=True)
    Path("build/bench_cost.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
