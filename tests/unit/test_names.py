"""A name means one thing: no two public classes or functions of the package share theirs."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = {
    "area_rank": "the same number of a saliency map, of an array in the runtime and of a tensor in training",
    "command": "what `cli/NAME.py` holds, by which `cli/main.py` finds it",
}
"""Names that several modules may define, and why."""
FOLDERS = ("fsagn_onnx", "cli", "models")
LIMIT = 350
"""Lines of a file."""


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_two_public_things_share_a_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sources("fsagn_onnx", "cli"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    twins = {name: places for name, places in found.items() if len(places) > 1}
    wrong = [f"{name}: {', '.join(places)}" for name, places in sorted(twins.items()) if name not in SHARED]
    assert not wrong, "one name, several things:\n" + "\n".join(wrong)
    assert set(SHARED) <= set(twins), f"no longer shared: {set(SHARED) - set(twins)}"


def test_no_file_is_long() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*FOLDERS)}
    assert not {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > LIMIT}
