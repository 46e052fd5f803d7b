"""Pictures, and what Python answers to them; where a tool is missing, a test says which and how to get it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fsagn_onnx.runtime import Explainer
from fsagn_onnx.runtime.explanation import FilterExplanation
from fsagn_onnx.runtime.masks import Mask
from fsagn_onnx.testing.synthetic import SyntheticParts

ROOT = Path(__file__).resolve().parents[2]
EXPLAINER = ROOT / "models" / "demo_explainer.onnx"
AREA = 0.2


def need(tool: str, *folders: Path) -> str:
    """The path of a program; skips, and says what is missing, without it or without the folders."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"no {tool} on this machine: 'make test-deploy' installs what the deployment tests need")
    for folder in folders:
        if not folder.exists():
            pytest.skip(f"no {folder.relative_to(ROOT)}: 'make test-deploy' installs what the deployment tests need")
    return found


def run_json(*words: object) -> dict[str, Any]:
    """Run a program and read the JSON document that it prints."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def decode(mask: dict[str, Any]) -> Mask:
    """COCO's uncompressed run lengths -> bool (H, W)."""
    flat = np.repeat(np.arange(len(mask["counts"])) % 2, mask["counts"]).astype(np.bool_)
    decoded: Mask = flat.reshape(mask["size"][1], mask["size"][0]).T
    return decoded


def same_to_one_cell(ours: Mask, theirs: Mask, cell: int) -> bool:
    """Whether each mask lies within the other, grown by one grid cell to each side."""
    if ours.shape != theirs.shape:
        return False
    grow = np.ones((2 * cell + 1, 2 * cell + 1), np.uint8)
    wide = [cv2.dilate(mask.astype(np.uint8), grow) > 0 for mask in (ours, theirs)]
    return not (ours & ~wide[1]).any() and not (theirs & ~wide[0]).any()


@pytest.fixture(scope="session")
def cpp_program() -> Path:
    """The C++ example, built into build/cpp; skips where the compiler or a library is missing, and says which."""
    cmake, _ = need("cmake"), need("c++")
    folder, collected = ROOT / "build" / "cpp", ROOT / "build" / "onnxruntime"
    words = [cmake, "-S", ROOT / "examples" / "cpp", "-B", folder]
    if (collected / "lib").is_dir():
        words.append(f"-DONNXRUNTIME_ROOT={collected}")
    configured = subprocess.run(words, capture_output=True, text=True)
    if configured.returncode and (missing := re.search(r"missing: .*", configured.stderr)):
        pytest.skip(f"{missing[0]}: 'make test-deploy' installs what the deployment tests need")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run([cmake, "--build", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "warning:" not in built.stderr
    return folder / "explain"


class Expected:
    """What Python answers to one picture."""

    def __init__(self, picture: Path, explainer: Path = EXPLAINER, **asked: Any) -> None:
        self.picture = picture
        with Explainer(explainer, providers="cpu", threads=1) as opened:
            (self.explanation,) = opened.explain(picture, area=AREA, **asked)
            size, grid = opened.metadata.input.size, self.explanation.filters[0].area_rank.shape
        self.cell = size[0] // grid[0]
        self.zoom = float(np.abs(self.explanation.geometry.matrix[:, :2]).max())

    def check(self, ids: list[int], masks: list[Mask], best: int, *, on_picture: bool = False) -> None:
        """Compare a client's answer with ours: the same filters, the same masks to one grid cell, the same class.

        Args:
            ids: of the filters.
            masks: on the model's input, or (``on_picture``) at the picture's size.
            best: the class.
            on_picture: which of both.
        """
        assert ids == [explained.id for explained in self.explanation.filters]
        assert best == self.explanation.predictions[0].index
        for explained, mask in zip(self.explanation.filters, masks, strict=True):
            ours = self.explanation.mask(explained) if on_picture else self.explanation.input_mask(explained)
            assert same_to_one_cell(ours, mask, round(self.cell * (self.zoom if on_picture else 1))), explained.id
            assert mask.sum() == pytest.approx(ours.sum(), rel=0.01 if on_picture else 0)

    def check_document(self, document: dict[str, Any]) -> None:
        """`check` of the JSON document that the command-line examples print."""
        filters = document["filters"]
        best = document["predictions"][0]["index"]
        masks = [decode(entry["mask"]) for entry in filters]
        self.check([entry["id"] for entry in filters], masks, best, on_picture=True)
        for entry, explained in zip(filters, self.explanation.filters, strict=True):
            assert entry["peak"] == pytest.approx(explained.peak, rel=1e-2)
            assert entry["retention"] == pytest.approx(explained.retention_predicted, abs=2e-2)
            self.check_added(entry, explained)
        for entry, found in zip(document["evidence"], self.explanation.evidence, strict=True):
            assert (entry["class"], entry["label"]) == (found.index, found.label)
            assert entry["decision"] == pytest.approx(found.decision, rel=1e-2)
            assert entry["support"] == pytest.approx(found.support, rel=1e-2)
            assert entry["retention"] == pytest.approx(found.retention_predicted, abs=2e-2)
            assert same_to_one_cell(
                self.explanation.mask(found), decode(entry["mask"]), round(self.cell * self.zoom)
            ), found.title

    @staticmethod
    def check_added(entry: dict[str, Any], explained: FilterExplanation) -> None:
        """What a filter adds to the decision."""
        assert entry["contribution"] == pytest.approx(explained.contribution, rel=2e-2, abs=5e-3)
        assert entry["share"] == pytest.approx(explained.share, rel=2e-2, abs=5e-3)


@pytest.fixture(scope="session", params=["rendered", "photograph"])
def expected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """A rendered picture, and a photograph of another size and shape."""
    path = tmp_path_factory.mktemp("picture") / f"{request.param}.png"
    if request.param == "photograph":
        image = pytest.importorskip("skimage.data").coffee()
    else:
        image = SyntheticParts("test", 1)[0].image
    cv2.imwrite(str(path), image[..., ::-1])
    return Expected(path)


__all__ = ["AREA", "EXPLAINER", "ROOT", "Expected", "decode", "need", "run_json", "sys"]
