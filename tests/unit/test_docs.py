"""Every command line and Python block of README and docs is run here, or says why not; the site has no dead link.

A block under `<!-- not run: reason -->` is not run. One under `<!-- parsed: reason -->` holds command lines of which
only the words are checked: command, options, choices, numbers. All others run, page by page, in a folder of their own
with a tiny world: the demo CNN as model.onnx, its explainer, and four pictures. `train` gets `--pairs 16` there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from fsagn_onnx.cli.main import COMMANDS, cli, run
from fsagn_onnx.testing.synthetic import write_folder

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "cells.md"),  # test_tutorial.py has those
]
FENCE = re.compile(
    r"(?:^<!-- (not run|parsed): ([^\n]+) -->\n)?^( *)(```+)([^\n]*)\n(.*?)^\3\4$", re.DOTALL | re.MULTILINE
)
COMMAND = re.compile(r"^(fsagn-onnx|python3?|pip|make|node|npm|cmake) ", re.MULTILINE)
SHOWN = {"", "text", "json"}
"""Languages of blocks that nobody runs."""
STATUSES = {"compare": {0, 4}}


@dataclass(frozen=True)
class Block:
    page: Path
    mark: str
    language: str
    code: str


def blocks(page: Path) -> Iterator[Block]:
    for mark, _, _, _, language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        yield Block(page, mark, language.strip(), code)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def lines(code: str) -> list[list[str]]:
    """The command lines of a block, as words."""
    joined = code.replace("\\\n", " ").splitlines()
    return [words for line in joined if (words := shlex.split(line, comments=True))]


def parse(words: list[str]) -> None:
    """Check a command's options and values without running it."""
    assert words[0] == "fsagn-onnx", words
    command = cli.get_command(click.Context(cli), words[1])
    assert command is not None, words
    context = click.Context(command, info_name=words[1])
    values, _, _ = command.make_parser(context).parse_args(list(words[2:]))
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if isinstance(value, str) and not isinstance(parameter.type, click.Path):
            parameter.type.convert(value, parameter, context)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder / "parts", "val", 4)
    (folder / "kinds").mkdir()
    for number, picture in enumerate(sorted((folder / "parts" / "images").iterdir())):
        kind = folder / "kinds" / ("argo", "bumble")[number % 2]
        kind.mkdir(exist_ok=True)
        shutil.copy(picture, kind)
    return folder


@pytest.fixture
def world(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "models").symlink_to(ROOT / "models")
    shutil.copy(ROOT / "models" / "demo_cnn.onnx", tmp_path / "model.onnx")
    shutil.copy(ROOT / "models" / "demo_explainer.onnx", tmp_path / "explainer.onnx")
    (tmp_path / "parts").symlink_to(pictures / "parts")
    (tmp_path / "photos").symlink_to(pictures / "parts" / "images")
    (tmp_path / "images").symlink_to(pictures / "kinds")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def execute(words: list[str], world: Path) -> None:
    if words[0] == "echo":  # a file for the next command
        assert words[2] == ">"
        (world / words[3]).write_text(words[1], encoding="utf-8")
        return
    assert words[0] == "fsagn-onnx", f"{words}: mark the block as not run, or as parsed"
    if words[1] == "train":
        words = [*words, "--pairs", "16", "--overwrite"]
        if (out := Path(words[words.index("--out") + 1])).exists():
            out.unlink()
    status = run(words[1:])
    assert status in STATUSES.get(words[1], {0}), words


def code_pages(language: str) -> list[Path]:
    return [page for page in PAGES if any(b.language == language and b.mark != "not run" for b in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"bash", "python", *SHOWN}, block.code
        assert block.language != "" or not COMMAND.search(block.code), block.code
    assert page.read_text(encoding="utf-8").count("```") == 2 * sum(1 for _ in blocks(page))


@pytest.mark.parametrize("page", code_pages("bash"), ids=name)
def test_command_lines(page: Path, world: Path) -> None:
    for block in blocks(page):
        if block.language == "bash" and block.mark != "not run":
            for words in lines(block.code):
                if words[0] == "fsagn-onnx":
                    parse(words)
                if not block.mark:
                    execute(words, world)


@pytest.mark.parametrize("page", code_pages("python"), ids=name)
def test_python_blocks(page: Path, world: Path) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python" and not block.mark:
            exec(compile(block.code, name(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_the_text_exist(page: Path) -> None:
    """`fsagn-onnx NAME --option`, `python FILE` and `make TARGET` between back quotes."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for quoted in re.findall(r"`([^`]+)`", text):
        words = quoted.split()
        if words[0] == "fsagn-onnx" and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
            command = cli.get_command(click.Context(cli), words[1])
            assert command is not None, quoted
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            assert {word for word in words if word.startswith("--")} <= known | {"--help"}, quoted
        elif words[0] in ("python", "python3") and len(words) > 1 and "/" in words[1]:
            assert (ROOT / words[1]).exists(), quoted
        elif (
            words[:2] == ["python", "-m"]
            and len(words) > 2
            and words[2].startswith(("benchmarks.", "fsagn_onnx.models."))
        ):
            module = ROOT / words[2].removeprefix("fsagn_onnx.").replace(".", "/")
            assert module.with_suffix(".py").exists() or module.is_dir(), quoted
        elif words[0] == "make" and len(words) > 1:
            assert words[1] in targets, quoted


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page_with_its_options(command: str) -> None:
    page = (ROOT / "docs" / "reference" / "commands" / f"{command}.md").read_text(encoding="utf-8")
    assert f"<!-- options {command} -->" in page
    parameters = getattr(cli.get_command(click.Context(cli), command), "params", [])
    known = {option for parameter in parameters for option in parameter.opts}
    notes = page.split(f"<!-- options {command} -->")[1]
    assert set(re.findall(r"^- `(--[a-z-]+)", notes, re.MULTILINE)) <= known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere_in_a_checkout(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "design").glob("*.md")), ids=name)
def test_a_design_page_begins_with_what_was_decided(page: Path) -> None:
    if page.name != "index.md":
        top = page.read_text(encoding="utf-8").split("\n## ")[0]
        assert all(word in top for word in ("Decided", "Because", "Instead of"))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (
        "index.html",
        "tutorial/tutorial.html",
        "reference/commands/explain.html",
        "design/0003-generator.html",
    ):
        assert (tmp_path / "site" / page).is_file(), page
    assert "--measure" in (tmp_path / "site" / "reference" / "commands" / "explain.html").read_text(encoding="utf-8")
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?://[^\" >]+)", page.read_text("utf-8"))
        assert not [url for url in loaded if 'rel="canonical"' not in url], page
