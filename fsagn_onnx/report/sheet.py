"""The frame of every report: one self-contained HTML page whose content is JSON, drawn by its own script.

The page loads nothing and runs nothing but that script: a content security policy admits only the hashes of its own
style and script. Names, labels and paths come in as JSON whose `<`, `>` and `&` are escaped, and reach the page as text
nodes; what stands in the frame itself is escaped for HTML.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Final

from .. import __version__
from ..runtime.drawing.typeface import printable
from ..runtime.stream import Failure

TOOL: Final = f"fsagn-onnx {__version__}"
MAX_FAILURES: Final = 200
"""Failures listed in a page."""
RECORD: Final = '<script type="application/json" class="record" data-name="'
"""How the line of a record begins."""
WITH_AREAS: Final = frozenset({"explain", "dissect"})
"""Pages that draw areas in pictures."""
_END: Final = "</script>\n"
_HERE: Final = "<!-- records -->\n"


@dataclass(frozen=True)
class Sheet:
    """What stands around the records of a page.

    Attributes:
        kind: ``explain``, ``dissect``, ``perturb``, ``compare`` or ``evaluate``: which script draws it.
        heading: of the page.
        title: of the browser's tab.
        lead: one paragraph.
        facts: (word, value) pairs under it.
        files: where the same figures are, for readers without JavaScript.
        tool: name and version of this program.
        note: the last line.
        about: figures that are of the whole page, as JSON values.
        failures: images that failed.
        failed: how many.
    """

    kind: str
    heading: str
    title: str
    lead: str
    facts: Mapping[str, str]
    files: str
    tool: str
    note: str
    about: Mapping[str, Any] = field(default_factory=dict)
    failures: Sequence[Failure] = ()
    failed: int = 0


def framed(kind: str, heading: str, of: str, *, note: str = "", **members: Any) -> Sheet:
    """A sheet with what all have in common: the title says of what it is, the last line who made it.

    Args:
        kind: see `Sheet`.
        heading: see `Sheet`.
        of: a layer, two runs, ...
        note: what the last line says besides.
        **members: further fields of `Sheet`.
    """
    title, made = f"{heading} · {of}", f"Made by {TOOL}. {note}".rstrip()
    return Sheet(kind=kind, heading=heading, title=title, tool=TOOL, note=made, **members)


def sheet(frame: Sheet, records: Iterable[str]) -> Iterator[str]:
    """The pieces of a page in order; ``records`` are lines of `record`."""
    head, foot = _resource("page.html").split(_HERE)
    style = _resource("page.css")
    shared = ("page.js", "areas.js") if frame.kind in WITH_AREAS else ("page.js",)
    script = "".join(map(_resource, (*shared, f"{frame.kind}.js")))
    values = {
        "title": text(frame.title),
        "heading": text(frame.heading),
        "lead": text(frame.lead),
        "facts": "".join(f"<li>{text(word)} <b>{text(value)}</b></li>" for word, value in frame.facts.items()),
        "files": text(frame.files),
        "tool": text(frame.tool),
        "note": text(frame.note),
        "failures": _failures(frame),
        "about": json_text(frame.about),
        "style": style,
        "script": script,
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
    }
    yield Template(head).substitute(values)
    yield from records
    yield Template(foot).substitute(values)


def record(name: str, members: Mapping[str, Any]) -> str:
    """One line of the page's data, with its line break.

    Args:
        name: identifies the record, see `record_name`.
        members: JSON values.
    """
    return f'{RECORD}{text(name)}">{json_text(members)}{_END}'


def record_name(line: str) -> str | None:
    """The (escaped) name that a line of `record` carries; None if it is no whole line of one."""
    if not line.startswith(RECORD) or not line.endswith(_END):
        return None
    return line.removeprefix(RECORD).partition('"')[0]


def json_text(members: object) -> str:
    """JSON as it may stand inside a script element: no `<`, `>`, `&`, nothing but ASCII."""
    content = json.dumps(members, allow_nan=False, separators=(",", ":"))
    return content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def text(content: str) -> str:
    """Text as it may stand in HTML and in a quoted attribute."""
    return escape(printable(content), quote=True)


def base64(content: bytes) -> str:
    """Bytes as base64."""
    return b64encode(content).decode("ascii")


def _failures(frame: Sheet) -> str:
    if not frame.failed:
        return ""
    listed = "".join(f"<li>{text(failure.message)}</li>" for failure in frame.failures[:MAX_FAILURES])
    return f"<details open><summary>{frame.failed} inputs failed</summary><ul>{listed}</ul></details>"


def _csp_hash(content: str) -> str:
    return "sha256-" + base64(hashlib.sha256(content.encode("utf-8")).digest())


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
