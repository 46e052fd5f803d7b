"""A generator for one network of every family: trains a few steps, exports, agrees in onnxruntime.

    python -m benchmarks.coverage.training [--only TEXT] [--seconds 1500]

Takes the first plain row of every family of the coverage zoo (benchmarks/coverage), and rows of quantised and of half
networks. Export refuses to write a file that onnxruntime and torch disagree about, so a row that is written has passed.
Prints a line per row and writes docs/coverage-train.json; stops starting rows when the time is up, and says so.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import cv2

from benchmarks.coverage.rows import Row, all_rows
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.generator import TrainingOptions, train
from fsagn_onnx.model import load_model
from fsagn_onnx.testing.synthetic import SyntheticParts

OPTIONS = TrainingOptions(pairs=12, images_per_step=2, filters_per_image=2, ramp=())
CHANGED = ("int8-qdq", "int8-qoperator", "fp16")
HAND_MADE = "by hand"


def chosen() -> list[Row]:
    """One plain row per family, then one per kind of change."""
    rows = [row for row in all_rows() if not row.exporter.startswith(HAND_MADE)]
    first: dict[str, Row] = {}
    for row in rows:
        if not row.change and not row.exporter.startswith("dynamo"):
            first.setdefault(row.family, row)
    changed = {row.change: row for row in reversed(rows) if row.change in CHANGED}
    return [*first.values(), *changed.values()]


def trained(row: Row, pictures: Path, folder: Path) -> dict[str, Any]:
    """What became of one row."""
    result: dict[str, Any] = {"row": row.id, "family": row.family}
    started = time.monotonic()
    try:
        row.build(folder / "model.onnx")
    except (RuntimeError, ValueError) as error:
        return {
            **result,
            "status": "refused",
            "error": f"by its exporter: {str(error).splitlines()[0].split('[Caused')[0].strip()}",
            "seconds": 0,
        }
    try:
        model = load_model(folder / "model.onnx")
        result["layer"] = model.default_layer.value
        report = train(model, [pictures], folder / "explainer.onnx", options=OPTIONS, overwrite=True)
        result |= {"status": "passed", "retention": report.retention, "order": report.saliency}
        result["outputs"] = report.outputs
    except FsagnError as error:
        result |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return {**result, "seconds": round(time.monotonic() - started, 1)}


@click.command()
@click.option("--only", default="", help="Rows whose name contains this text; nothing is written.")
@click.option("--seconds", default=1500.0, show_default=True, help="No row is started after so long.")
def main(only: str, seconds: float) -> None:
    started, results, left = time.monotonic(), [], []
    with tempfile.TemporaryDirectory() as base:
        pictures = Path(base) / "pictures"
        pictures.mkdir()
        for index, picture in enumerate(SyntheticParts("train", 8)):
            cv2.imwrite(str(pictures / f"{index}.png"), picture.image[..., ::-1])
        for row in chosen():
            if only not in row.id:
                continue
            if time.monotonic() - started > seconds:
                left.append(row.id)
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = trained(row, pictures, Path(folder))
            results.append(found)
            print(f"{found['status']:8s}{row.family:28s}{row.id:50s}{found['seconds']:7.1f} s", flush=True)
            if "error" in found:
                print(f"        {found['error']}", flush=True)
    passed = sum(found["status"] == "passed" for found in results)
    refused = sum(found["status"] == "refused" for found in results)
    print(
        f"{passed} of {len(results)} rows passed, {refused} refused by their exporter; "
        f"not run for time: {', '.join(left) or 'none'}"
    )
    if not only:
        document = {"rows": results, "not_run": left}
        Path("docs/coverage-train.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
