"""README.md says what the program does: its options are the commands' options, and its examples run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fsagn_onnx.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def section(command: str) -> str:
    found = re.search(rf"^### `fsagn-onnx {command}\b.*?(?=^##)", README, re.DOTALL | re.MULTILINE)
    assert found is not None, f"README.md has no section '### `fsagn-onnx {command} ...`'"
    return found.group()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_in_its_table(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = {
        option for p in command.params if isinstance(p, click.Option) for option in p.opts if option.startswith("--")
    }
    listed = set(re.findall(r"^\| `(--[a-z-]+)", section(name), re.MULTILINE))
    assert listed == options


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n", 1)[0])
def test_python_examples_run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_road_from_a_model_to_explanations(tmp_path: Path) -> None:
    """The three commands in order, on the demo CNN and synthetic pictures, with a short training."""
    import cv2

    from fsagn_onnx.model import load_model
    from fsagn_onnx.testing.synthetic import SyntheticParts

    default = load_model(ROOT / "models" / "demo_cnn.onnx").default_layer
    assert default is not None
    (tmp_path / "model.onnx").symlink_to(ROOT / "models" / "demo_cnn.onnx")
    for folder, split in (("photos", "train"), ("images", "test")):
        (tmp_path / folder).mkdir()
        for number, sample in enumerate(SyntheticParts(split, 4)):
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), sample.image[..., ::-1])
    (road,) = [block for block in blocks("") if block.startswith("fsagn-onnx inspect model.onnx")]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in road.splitlines():
        words = [default.value if word == "VALUE" else word for word in shlex.split(line)]
        if words[1] == "train":
            words += ["--pairs", "16"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "explained" / "report.html").is_file()


def test_what_converts_is_what_was_measured() -> None:
    from benchmarks.coverage.table import readme_row

    document = json.loads((ROOT / "docs" / "coverage.json").read_text(encoding="utf-8"))
    assert readme_row(document) in README
