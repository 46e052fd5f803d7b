"""What tests of the command line share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

_CODE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx2torch", "safetensors"):
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Blocker())
from fsagn_onnx.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="session")
def without_torch() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in an interpreter in which the packages of the extra `train` cannot be found."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-X", "faulthandler", "-c", _CODE, *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, timeout=1800)

    return run
