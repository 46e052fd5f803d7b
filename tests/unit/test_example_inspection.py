"""The pieces of examples/inspection that need no download."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from fsagn_onnx.model import load_model
from fsagn_onnx.models.lite0 import build_lite0

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "inspection"


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("cells"), importlib.import_module("defects")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("cells", "defects"):
            sys.modules.pop(name)


def test_cells_are_split_once_and_for_all(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    cells, _ = modules
    data = tmp_path / "package" / "elpv_dataset" / "data"
    (data / "images").mkdir(parents=True)
    lines = []
    for number in range(10):
        cv2.imwrite(str(data / "images" / f"cell{number}.png"), np.full((8, 8), number, np.uint8))
        lines.append(f"images/cell{number}.png  {number / 9:.3f}  mono")
    (data / "labels.csv").write_text("\n".join(lines) + "\n")
    train, unseen = cells.split(tmp_path)
    assert (len(train.files), len(unseen.files)) == (8, 2)
    assert not {file.name for file in train.files} & {file.name for file in unseen.files}
    for part in (train, unseen):
        for file, bad in zip(part.files, part.defective, strict=True):
            assert file.is_file()
            assert bad == (int(file.stem.removeprefix("cell")) / 9 > 0.5)
    again = cells.split(tmp_path)
    assert again[1].files == unseen.files


def test_auc_by_hand(modules: tuple[ModuleType, ModuleType]) -> None:
    _, defects = modules
    scores, bad = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    assert defects.auc(scores, bad) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_the_head_is_inside_the_file(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    _, defects = modules
    plain = defects.at_size(build_lite0(tmp_path / "lite0.onnx"), tmp_path / "lite0_160.onnx")
    files = []
    for number in range(12):
        shade = np.full((40, 40), 200 if number % 2 else 40, np.uint8)
        files.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(files[-1]), shade + np.random.default_rng(number).integers(0, 20, (40, 40), np.uint8))
    bright = np.arange(12) % 2 == 1
    features = defects.features(plain, files, 1)
    weight, bias = defects.fit(features, bright)
    assert defects.auc(features @ weight + bias, bright) == 1.0
    defects.export(plain, weight, bias, tmp_path / "cells.onnx")
    model = load_model(tmp_path / "cells.onnx")
    assert model.labels == ("intact", "defective")
    assert model.input_spec.size == (160, 160)
    session = onnxruntime.InferenceSession(str(tmp_path / "cells.onnx"), providers=["CPUExecutionProvider"])
    image = cv2.cvtColor(cv2.imread(str(files[1])), cv2.COLOR_BGR2RGB).astype(np.uint8)
    (made,) = session.run(None, {"image": model.input_spec.preprocess(image)[0][None]})
    assert made[0, 1] == pytest.approx(1 / (1 + np.exp(-(features[1] @ weight + bias))), abs=1e-5)
    assert made.sum() == pytest.approx(1)
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "cells.onnx").metadata_props}
    assert json.loads(about["fsagn_model"])["input"]["resize"] == "stretch"
