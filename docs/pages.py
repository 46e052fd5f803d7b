"""Hooks of mkdocs.yml: what the documentation site shows that no page says by hand.

- the executed notebook as a page, its pictures as files;
- a table of options in each command's page, out of the command line (`<!-- options explain -->`);
- the public names of the package, for mkdocstrings (`<!-- python -->`);
- all of docs/design in the navigation;
- files of the repository that pages link to, each as a page of its own, so that a link leads somewhere both in a
  checkout and on the site.
"""

from __future__ import annotations

import json
import posixpath
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

import fsagn_onnx
from fsagn_onnx import errors
from fsagn_onnx.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "tutorial" / "tutorial.ipynb"
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "LICENSE": "project/license.md",
    "NOTICE": "project/notice.md",
}
"""File of the repository -> its page; others that are linked become source/PATH. The home page is README, longer."""
TITLES = {"changelog": "News", "contributing": "Contributing", "benchmarks": "Benchmarks"}
LINK = re.compile(r"(?<=\]\()(?!https?://|#|mailto:)([^)\s#]*)(#[^)\s]*)?(?=\))")
MARKER = re.compile(r"^<!-- (options|python|errors|commands|decisions)(?: (\S+))? -->$", re.MULTILINE)
SENTENCE = 40
"""Characters of a cell from which a table is one of text."""
FENCED = re.compile(r"^(```.*?^```)$", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the sections of the navigation that hang on what there is."""
    commands: list[Any] = ["reference/commands/index.md"]
    commands += [{name: f"reference/commands/{name}.md"} for name in COMMANDS]
    decisions: list[Any] = ["design/index.md"]
    decisions += [{title(path): f"design/{path.name}"} for path in decided()]
    project = [
        {TITLES.get(Path(page).stem, Path(page).stem.capitalize()): page}
        for path, page in OUTSIDE.items()
        if (ROOT / path).is_file() and page != "index.md"
    ]
    fill(config.nav, {"Commands": commands, "Decisions": decisions, "Project": project})
    return config


def fill(items: Any, sections: dict[str, list[Any]]) -> None:
    """Put each section's pages where the navigation names it."""
    for item in items:
        if isinstance(item, dict):
            for name, content in item.items():
                if name in sections:
                    item[name] = sections[name]
                elif isinstance(content, list):
                    fill(content, sections)


def decided() -> list[Path]:
    """The pages of docs/design, numbered ones first."""
    return sorted(path for path in (DOCS / "design").glob("*.md") if path.name != "index.md")


def title(path: Path) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else path.stem


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebook's page and the pages of linked files outside of docs."""
    for name, content in notebook():
        files.append(File.generated(config, f"tutorial/{name}", content=content))
    waiting = [path for path in OUTSIDE if (ROOT / path).is_file()]
    made = {"README.md"}
    for file in list(files.documentation_pages()):
        if file.src_uri.startswith("tutorial/"):
            continue
        waiting += linked(Path("docs") / file.src_uri, file.content_string)
    while waiting:
        path = waiting.pop()
        if path in made:
            continue
        made.add(path)
        content = source_page(path)
        if path.endswith(".md"):
            waiting += linked(Path(path), content)
        inclusion = InclusionLevel.INCLUDED if path in OUTSIDE else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, page_of(path), content=content, inclusion=inclusion))
    return files


def notebook() -> Iterator[tuple[str, str | bytes]]:
    """The executed notebook: pictures, then the page that shows them."""
    text: list[str] = []
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        text.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/jpeg" in data:
                yield f"{cell['id']}.jpg", b64decode(data["image/jpeg"])
                text.append(f"![What the cell above shows]({cell['id']}.jpg)")
            elif "text/html" in data:
                text.append("".join(data["text/html"]))
            else:
                said = "".join(output.get("text", data.get("text/plain", [])))
                text.append(f"```text\n{said.rstrip()}\n```")
    yield "tutorial.md", "\n\n".join(text) + "\n"


def linked(path: Path, text: str) -> Iterator[str]:
    """The files of the repository outside of docs that a page links to; `path` is the page's, in the repository."""
    for target in LINK.findall(text):
        where = posixpath.normpath(posixpath.join(path.parent.as_posix(), target[0]))
        if target[0] and not where.startswith(("docs/", "..")) and (ROOT / where).exists():
            yield readme(where)


def readme(path: str) -> str:
    """A folder stands for its README, where it has one."""
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def page_of(path: str) -> str:
    """The page, under docs, of a file or folder of the repository."""
    return OUTSIDE.get(path) or f"source/{path.removesuffix('.md')}.md"


def source_page(path: str) -> str:
    """A file as Markdown: as it is, or its text in a block; a folder as a list."""
    where = ROOT / path
    if where.is_dir():
        listed = sorted(name.name for name in where.iterdir() if not name.name.startswith((".", "__")))
        return f"# {path}\n\n" + "\n".join(f"- `{name}`" for name in listed) + "\n"
    text = where.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"# {path}\n\n````{where.suffix.removeprefix('.') or 'text'}\n{text}````\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to pages of the site, and put what is generated in the place of its marker."""
    here = page.file.src_uri
    if here.startswith("source/"):
        page.meta["search"] = {"exclude": True}
    elif here in ("index.md", "tutorial/tutorial.md"):
        page.meta["hide"] = ["navigation"]
    outside = {made: path for path, made in OUTSIDE.items() if path != "README.md"}
    base = posixpath.dirname(outside.get(here) or (here if here.startswith("source/") else f"docs/{here}"))
    base = base.removeprefix("source/").removeprefix("source")

    def follow(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if not target:
            return found[0]
        where = posixpath.normpath(posixpath.join(base, target))
        if where == "docs/design":
            where = "docs/design/index.md"
        if where == "docs/tutorial/tutorial.ipynb":
            where = "docs/tutorial/tutorial.md"
        made = where.removeprefix("docs/") if where.startswith("docs/") else page_of(readme(where))
        return posixpath.relpath(made, posixpath.dirname(here)) + anchor

    pieces = FENCED.split(MARKER.sub(generated, markdown))
    return "".join(piece if place % 2 else LINK.sub(follow, piece) for place, piece in enumerate(pieces))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tables of text, not of figures, are read cell by cell where the screen is narrow."""
    return re.sub(r"<table>.*?</table>", stacked, html, flags=re.DOTALL)


def stacked(found: re.Match[str]) -> str:
    """A table whose cells know their column's name, if one of them holds a sentence."""
    table = found[0]
    names = [re.sub(r"<[^>]+>", "", name).strip() for name in re.findall(r"<th[^>]*>(.*?)</th>", table, re.DOTALL)]
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", table, re.DOTALL)]
    if not names or len(names) > 5 or max(map(len, cells), default=0) < SENTENCE:
        return table
    place = -1

    def label(cell: re.Match[str]) -> str:
        nonlocal place
        place += 1
        name = names[place % len(names)]
        return f'<td data-label="{name}: "' if name and len(names) > 2 and place % len(names) else "<td"

    return re.sub(r"<td\b", label, table).replace("<table>", "<table data-stacked>")


def generated(marker: re.Match[str]) -> str:
    """What stands in the place of a marker."""
    kind, name = marker[1], marker[2]
    if kind == "options":
        return options(name)
    if kind == "python":
        return "\n".join(
            f"::: fsagn_onnx.{name}\n" for name in fsagn_onnx.__all__ if name not in ("__version__", *errors.__all__)
        )
    if kind == "errors":
        listed = [f"| `{name}` | {(getattr(errors, name).__doc__ or '').splitlines()[0]} |" for name in errors.__all__]
        return "\n".join(["| error | |", "|---|---|", *listed])
    if kind == "commands":
        return "\n".join(f"- [`fsagn-onnx {name}`]({name}.md): {line}" for name, line in COMMANDS.items())
    return "\n".join(f"- [{title(path)}]({path.name})" for path in decided())


def options(name: str) -> str:
    """A command's usage and its options, out of the command line."""
    command = cli.get_command(click.Context(cli), name)
    if command is None:
        raise ValueError(f"no command {name!r}")
    context = click.Context(command, info_name=f"fsagn-onnx {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    rows = []
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            words, line = parameter.get_help_record(context) or ("", "")
            parts = [part.strip() for part in re.split(r"\s*/\s*(?=--)|,\s+(?=-)", words)]
            shown = ", ".join(f"`{part}`" for part in parts)
            rows.append(
                f"| {shown} | {line} |".replace("[default:", "\\[default:").replace("[required]", "\\[required]")
            )
    text = ["```text", f"fsagn-onnx {name} {usage}", "```", "", "| option | |", "|---|---|"]
    return "\n".join([*text, *(escaped(row) for row in rows)]) if rows else "\n".join(text[:3])


def escaped(row: str) -> str:
    """Bars inside of a cell are no borders of cells."""
    start, *inner, end = re.split(r"(?<=[^ ])\|(?=[^ ])", row) if re.search(r"[^ ]\|[^ ]", row) else (row, "")
    return "\\|".join([start, *inner, end]) if end else row
