"""benchmarks/README.md names every benchmark, by a command that there is, and `make bench` runs what it says."""

from __future__ import annotations

import re
from pathlib import Path

FOLDERS = ("speed", "truth", "quality", "robustness", "coverage")


def commands(repository: Path) -> set[Path]:
    """The files that are commands: those that end by calling what they define."""
    folder = repository / "benchmarks"
    found = {path for name in FOLDERS for path in (folder / name).glob("*.py")}
    return {path for path in found if '__name__ == "__main__"' in path.read_text(encoding="utf-8")}


def named(text: str, repository: Path) -> set[Path]:
    modules = re.findall(r"python -m (benchmarks(?:\.\w+)+)", text)
    files = re.findall(r"python3 (benchmarks/[\w/]+\.py)", text)
    paths = {repository / (name.replace(".", "/") + ".py") for name in modules}
    return {*paths, *(repository / name for name in files)}


def test_the_page_names_every_benchmark(repository: Path) -> None:
    text = (repository / "benchmarks" / "README.md").read_text(encoding="utf-8")
    listed = named(text, repository)
    assert {path.name for path in listed if not path.is_file()} == set()
    unlisted = commands(repository) - listed - {repository / "benchmarks" / "coverage" / "__main__.py"}
    assert {path.name for path in unlisted} == set()  # the zoo itself is `make coverage`


def test_every_command_in_the_pages_is_there(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").rglob("*.md"), *(repository / "examples").rglob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages if "node_modules" not in page.parts]
    packages = {repository / "benchmarks" / f"{name}.py" for name in FOLDERS}  # python -m benchmarks.coverage
    lost = {path for text in texts for path in named(text, repository) if not path.is_file()} - packages
    assert lost == set()


def test_make_bench_runs_what_the_page_says(repository: Path) -> None:
    words = re.search(r"^BENCHES := (.*)$", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert words is not None
    speed = {path.stem for path in (repository / "benchmarks" / "speed").glob("*.py")}
    assert speed - set(words[1].split()) == {"nodes", "libraries", "gpu"}
    assert set(words[1].split()) <= speed
