"""The logic of benchmarks/speed/gpu.py that needs no card: installing, verdict, and one round on the CPU."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "speed" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_installs_from_an_index_or_from_a_folder_alone(gpu: ModuleType) -> None:
    assert "--no-index" not in gpu.install_words(None)
    words = gpu.install_words(Path("wheels"))
    assert words[words.index("--find-links") + 1] == "wheels"
    assert "--no-index" in words


def row(**changes: Any) -> dict[str, Any]:
    given = {"precision": "fp16", "batch": 32, "images_per_s": 6000.0, "ratio": 1.1, "cuda_graph": True}
    return {**given, "model_ms": 1.0, "explainer_ms": 1.1, **changes}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row()], "met"),
        ([row(ratio=1.2)], "not met"),
        ([row(images_per_s=100.0), row(images_per_s=7000.0)], "met"),
        ([row(batch=1)], "not measured"),
    ],
)
def test_verdict(gpu: ModuleType, rows: list[dict[str, Any]], expected: str) -> None:
    assert gpu.verdict(rows).endswith(expected)
    assert "images/s" in gpu.line(rows[0])


def test_without_a_card_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has nvidia-smi")
    assert gpu.main(["--here"]) == 1
    assert "no NVIDIA card" in capsys.readouterr().err


def test_one_round_on_the_cpu(gpu: ModuleType) -> None:
    both = (ROOT / "models" / "demo_cnn.onnx", ROOT / "models" / "demo_explainer.onnx")
    rows = gpu.measure(dict.fromkeys(("fp32", "tf32", "fp16"), both), "cpu", [1, 2], 1, 1)
    assert [(entry["precision"], entry["batch"]) for entry in rows] == [
        (precision, batch) for precision in ("fp32", "tf32", "fp16") for batch in (1, 2)
    ]
    assert all(entry["agreement"] == 1 and entry["provider"] == "CPUExecutionProvider" for entry in rows)
