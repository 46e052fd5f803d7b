"""A named pipe or an endless device where a file is expected is refused at once, whatever reads it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fsagn_onnx.errors import FsagnError
from fsagn_onnx.generator.checkpoint import load_checkpoint
from fsagn_onnx.generator.quality import read_quality
from fsagn_onnx.model import load_model
from fsagn_onnx.model.class_names import read_class_names
from fsagn_onnx.runs.filter_names import read_filter_names
from fsagn_onnx.runs.manifest import read_manifest
from fsagn_onnx.scale.pictures import units_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="named pipes and /dev/zero")

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo_cnn.onnx"


def pictures_of(path: Path) -> object:
    return [list(unit.contents()) for unit in units_of([str(path)])]


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "model": ("x.onnx", load_model),
    "preprocess": ("x.json", lambda path: load_model(DEMO, preprocess=path)),
    "feed": ("x.npy", lambda path: load_model(DEMO, feeds=[f"more={path}"])),
    "class names": ("x.txt", read_class_names),
    "filter names": ("x.csv", lambda path: read_filter_names(path, path.parent)),
    "checkpoint": ("x.safetensors", load_checkpoint),
    "quality": ("evaluation.json", read_quality),
    "manifest": ("manifest.json", lambda path: read_manifest(path.parent)),
    "shard": ("x.tar", pictures_of),
    "parquet": ("x.parquet", pictures_of),
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_refused_in_a_line(reader: str, kind: str, tmp_path: Path) -> None:
    if reader == "parquet":
        pytest.importorskip("pyarrow")
    name, read = READERS[reader]
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(FsagnError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
