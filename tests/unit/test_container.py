"""The Dockerfile builds the package out of what is there, and its last stage is a runtime that is not root."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """Instructions of each stage, and what stands behind them; before the first FROM a stage of its own."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: list[list[tuple[str, str]]] = [[]]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, " ".join(rest.split())))
    return found


def values(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


def test_what_is_copied_is_there_and_is_all_that_the_package_is_made_of(stages: list[list[tuple[str, str]]]) -> None:
    copied = {source for rest in values(stages[1], "COPY") for source in rest.split()[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    assert folders <= copied
    assert {"pyproject.toml", "constraints.txt", project["project"]["readme"]} <= copied
    assert set(project["project"]["license-files"]) <= copied
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{source}" for source in copied} <= set(ignored)


def test_the_install_is_held_by_the_constraints_and_brings_no_torch(stages: list[list[tuple[str, str]]]) -> None:
    (install,) = [rest for rest in values(stages[1], "RUN") if " install " in rest]
    assert "--constraint constraints.txt" in install
    (extras,) = values(stages[1], "ARG")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    name, _, chosen = extras.partition("=")
    assert name == "EXTRAS"
    for extra in chosen.split(","):
        assert not [text for text in project["project"]["optional-dependencies"][extra] if text.startswith("torch")]


def test_the_last_stage_is_a_runtime_that_is_not_root(stages: list[list[tuple[str, str]]]) -> None:
    last = stages[-1]
    assert values(last, "FROM")[0] == values(stages[1], "FROM")[0].removesuffix(" AS build")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", values(last, "USER")[-1])
    assert not re.search(r"\b(pip|apt-get|apt|gcc|g\+\+|make|curl|git)\b", " ".join(values(last, "RUN")))
    assert [rest.split()[0] for rest in values(last, "COPY")] == ["--from=build"]
    entry, default = (json.loads(values(last, name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert (entry, default) == (["fsagn-onnx"], ["--help"])
    (check,) = values(last, "HEALTHCHECK")
    words = json.loads(check.partition("CMD ")[2])
    compile(words[-1], "HEALTHCHECK", "exec")
    (port,) = values(last, "EXPOSE")
    assert f":{port}/v2/health/ready" in words[-1]
    assert shlex.join(words).count("\n") == 0
