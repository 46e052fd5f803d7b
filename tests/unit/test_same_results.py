"""The comparison of what two versions wrote sees what differs, and not versions, times and paths of hashes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx

from benchmarks.robustness.differences import KINDS
from fsagn_onnx.testing.planted_explainer import planted_explainer


def both(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"a-{name}", folder / f"b-{name}"


def found(a: Path, b: Path) -> list[str]:
    return list(KINDS[a.suffix](a, b))


def test_documents_differ_in_members_but_not_in_times(tmp_path: Path) -> None:
    a, b = both(tmp_path, "manifest.json")
    a.write_text(json.dumps({"versions": {"numpy": "1"}, "seconds": 3, "images": 4, "rows": [1, 2]}))
    b.write_text(json.dumps({"versions": {"numpy": "2"}, "seconds": 5, "images": 4, "rows": [1, 2]}))
    assert found(a, b) == []
    b.write_text(json.dumps({"images": 5, "rows": [1], "more": None}))
    assert found(a, b) == [".images: '4' and '5'", ".rows: 2 items and 1", ".more only in B: null"]


def test_arrays_are_the_same_to_the_bit(tmp_path: Path) -> None:
    a, b = both(tmp_path, "masks.npz")
    ranks = np.linspace(0, 1, 6, dtype=np.float32)
    np.savez(a, ranks=ranks, ids=np.array([1, 2]))
    np.savez(b, ranks=np.nextafter(ranks, 2, dtype=np.float32), ids=np.array([1, 2], np.int32))
    assert found(a, a) == []
    assert found(a, b) == ["ids: int64 (2,) and int32 (2,)", "ranks: 6 of 6 values differ"]


def test_pictures_tables_and_lines(tmp_path: Path) -> None:
    a, b = both(tmp_path, "overlay.png")
    picture = np.zeros((4, 5, 3), np.uint8)
    cv2.imwrite(str(a), picture)
    picture[1, 2] = 9
    cv2.imwrite(str(b), picture, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert found(a, b) == ["pixels: 3 of 60 values differ"]
    a, b = both(tmp_path, "filters.csv")
    a.write_text("filter,part\n1,wheel\n")
    b.write_text("part,filter\nwing,1\n")
    assert found(a, b) == ["[0].part: 'wheel' and 'wing'"]
    a, b = both(tmp_path, "explain.out")
    a.write_text("explained 4 images in 1.3 s by fsagn-onnx 0.1.0\n")
    b.write_text("explained 4 images in 2 s by fsagn-onnx 0.2.0\n")
    assert found(a, b) == []
    b.write_text("explained 5 images in 2 s\n")
    assert len(found(a, b)) == 2


def test_networks_differ_in_graph_or_metadata(tmp_path: Path) -> None:
    a, b = both(tmp_path, "explainer.onnx")
    onnx.save(planted_explainer(), a)
    onnx.save(planted_explainer({"training": {"pairs": 0, "seconds": 4.0}}), b)
    assert found(a, b) == []
    other = planted_explainer({"objective": "fsagn"})
    other.graph.node[0].name = "other"
    onnx.save(other, b)
    assert found(a, b) == ["metadata.fsagn.objective: 'budget' and 'fsagn'", "the graph differs"]
