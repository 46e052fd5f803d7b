"""A missing, broken or doubled onnxruntime is one line that says what to remove and what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsagn_onnx import installation
from fsagn_onnx.errors import UsageError
from fsagn_onnx.runtime import providers
from fsagn_onnx.runtime.tuning import first_line

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["empty", "without its library", "absent"])
@pytest.mark.parametrize("command", ["inspect", "explain"])
def test_a_broken_onnxruntime_is_one_line(kind: str, command: str, tmp_path: Path) -> None:
    package = tmp_path / "onnxruntime"
    (package / "capi").mkdir(parents=True)
    (package / "__init__.py").touch()
    if kind == "without its library":
        (package / "capi" / "__init__.py").touch()
        (package / "__init__.py").write_text("from onnxruntime.capi._pybind_state import InferenceSession")
    if kind == "absent":
        (package / "__init__.py").write_text('raise ModuleNotFoundError("No module", name="onnxruntime")')
    words = [command, str(ROOT / "models" / "demo_explainer.onnx")]
    words += ["x.png", "--out", str(tmp_path / "o")] if command == "explain" else []
    code = "from fsagn_onnx.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: onnxruntime")
    assert done.stderr.count("\n") == 1
    assert "pip uninstall -y onnxruntime" in done.stderr
    assert "pip install --force-reinstall onnxruntime" in done.stderr


def test_two_onnxruntimes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("onnxruntime", "onnxruntime-gpu")
    for module in (installation, providers):
        monkeypatch.setattr(module, "installed_kinds", lambda: both)
    monkeypatch.setattr(providers.onnxruntime, "get_available_providers", lambda: [providers.CPU])
    expected = (
        "onnxruntime and onnxruntime-gpu are installed together and overwrite each other's files.*: "
        "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install --force-reinstall onnxruntime-gpu"
    )
    with pytest.raises(UsageError, match=expected):
        providers.wanted_providers("cuda")
    line = installation.broken_runtime(ImportError("no library", name="onnxruntime.capi"))
    assert line is not None
    assert line.startswith("onnxruntime and onnxruntime-gpu are installed together")
    assert installation.broken_runtime(ImportError("no", name="torch")) is None
    assert installation.broken_runtime(AttributeError("no", name="x", obj=object())) is None


def test_the_cause_of_onnxruntime_is_not_cut_off() -> None:
    place = (
        "[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc"
        ":256 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, const onnxruntime::IOnnx"
        "RuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, std::function<void (int)>) const "
    )
    cause = "Unsupported model IR version: 99, max supported IR version: 13"
    assert first_line(RuntimeError(place + cause)) == (
        f"[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed: {cause}"
    )
    nested = f"Exception: {place}{place}[with T = float] {cause}\nmore"
    assert first_line(RuntimeError(nested)).endswith(cause)
    assert len(first_line(RuntimeError("a" * 5000 + "end"))) == 300
    assert first_line(RuntimeError("a" * 5000 + "end")).endswith("end")
    assert first_line(RuntimeError("plain (words) here.cc:1")) == "plain (words) here.cc:1"
    assert first_line(MemoryError()) == "MemoryError"
