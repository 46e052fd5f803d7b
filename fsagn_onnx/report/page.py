"""The report: one self-contained HTML page, written image by image.

The page loads nothing and runs nothing but its own script: a content security policy admits only the two hashes of its
style and script, and every name, label and path is escaped. Each image is one line of the file, so that a
killed run can
go on with the whole lines that it left.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

import cv2
import numpy as np

from ..runtime.explanation import Explanation, FilterExplanation
from ..runtime.masks import FloatMap
from ..runtime.overlay import percent
from ..runtime.stream import Failure, reduced
from ..runtime.typeface import printable

MAX_IMAGES: Final = 200
"""Images shown in one page; more make it slow and large."""
MAX_FILTERS: Final = 24
"""Filters shown per image."""
MAX_FAILURES: Final = 200
"""Failures listed."""
THUMBNAIL_EDGE: Final = 400
"""Longest side of the embedded pictures in pixels."""
JPEG_QUALITY: Final = 82
MAX_GRID: Final = 64
"""Finer grids of ranks are averaged down to this many cells each way."""

ARTICLE: Final = "<article "
"""How the line of an image begins."""

_IMAGES_HERE = "<!-- images -->\n"


@dataclass(frozen=True)
class Facts:
    """What the head and the foot of a page say.

    Attributes:
        source: file name of the explainer or model.
        layer: the explained layer.
        tool: name and version of this program.
        facts: further (word, value) pairs, in order.
        explained: number of explained images.
        shown: how many of these the page shows.
        failures: the images that failed (the first `MAX_FAILURES` are listed).
        failed: number of images that failed.
    """

    source: str
    layer: str
    tool: str
    facts: Mapping[str, str]
    explained: int
    shown: int
    failures: Sequence[Failure]
    failed: int


def page(facts: Facts, articles: Iterator[str]) -> Iterator[str]:
    """The pieces of a page in order; ``articles`` are lines of `article`."""
    head, foot = _template().split(_IMAGES_HERE)
    values = _values(facts)
    yield Template(head).substitute(values)
    yield from articles
    yield Template(foot).substitute(values)


def article(explanation: Explanation, name: str) -> str:
    """The line of one image, with its line break.

    Args:
        explanation: of the image.
        name: the stem of the image's files in ``masks`` and ``overlays``.
    """
    shown = explanation.filters[:MAX_FILTERS]
    geometry = explanation.geometry
    (scale_x, _, shift_x), (_, scale_y, shift_y) = geometry.matrix.tolist()
    thumbnail = reduced(explanation.preview, THUMBNAIL_EDGE)
    picture = cv2.imencode(".jpg", thumbnail[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    tiny = " tiny" if max(explanation.size) < 64 else ""
    height, width = explanation.size
    pieces = [
        f'{ARTICLE}class="image{tiny}" data-name="{_text(name)}" data-original="{height},{width}" '
        f'data-input="{geometry.size[0]},{geometry.size[1]}" '
        f'data-affine="{scale_x:.8g},{shift_x:.8g},{scale_y:.8g},{shift_y:.8g}">',
        f"<h2>{_text(explanation.name)}</h2>",
        f'<p class="quiet">{width} × {height} pixels{_left_out(explanation, shown, name)}</p>',
        f'<div class="cards"><figure><img alt="{_text(explanation.name)}" width="{thumbnail.shape[1]}" '
        f'height="{thumbnail.shape[0]}" src="data:image/jpeg;base64,{_base64(picture.tobytes())}">',
        f"<figcaption><h3>image</h3>{_answers(explanation)}</figcaption></figure>",
        *(_card(explained, thumbnail.shape[:2]) for explained in shown),
        "</div></article>\n",
    ]
    return "".join(pieces)


def article_name(line: str) -> str | None:
    """The (escaped) name that a line of `article` carries; None if it is no whole line of one."""
    if not line.startswith(ARTICLE) or not line.endswith("</article>\n"):
        return None
    return line.partition('data-name="')[2].partition('"')[0]


def escaped_name(name: str) -> str:
    """A name as `article_name` gives it."""
    return _text(name)


def _card(explained: FilterExplanation, shape: tuple[int, int]) -> str:
    rank = _coarse(explained.area_rank)
    packed = _base64(np.clip(np.rint(rank * 65535), 0, 65535).astype("<u2").tobytes())
    curve = " ".join(f"{area:.4g},{retention:.3f}" for area, retention in explained.curve)
    label = f"filter {explained.id}"
    rows = [("peak", f"{explained.peak:.2f}" if explained.active else f"{explained.peak:.2f}, not active here")]
    rows.append(("explained area", percent(explained.area)))
    if explained.retention_predicted is not None:
        rows.append(("retention there, predicted", f"{explained.retention_predicted:.2f}"))
    if explained.retention_measured is not None:
        rows.append(("retention there, measured", f"{explained.retention_measured:.2f}"))
    listed = "".join(f"<dt>{word}</dt><dd>{value}</dd>" for word, value in rows)
    if curve:
        listed += "<dt>at the slider, predicted</dt><dd data-expected></dd>"
    return (
        f'<figure data-area="{explained.area:.6g}" data-grid="{rank.shape[0]},{rank.shape[1]}" data-curve="{curve}" '
        f'data-rank="{packed}"><canvas role="img" aria-label="area of {label}" width="{shape[1]}" '
        f'height="{shape[0]}"></canvas><figcaption><h3>{label}</h3><div class="budget">'
        f'<input type="range" min="1" max="100" step="0.5" value="50" aria-label="area kept for {label}">'
        f"<output></output></div><dl>{listed}</dl></figcaption></figure>"
    )


def _coarse(rank: FloatMap) -> FloatMap:
    height, width = min(rank.shape[0], MAX_GRID), min(rank.shape[1], MAX_GRID)
    if (height, width) == rank.shape:
        return rank
    return np.asarray(cv2.resize(rank, (width, height), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _answers(explanation: Explanation) -> str:
    if not explanation.predictions:
        return ""
    items = "".join(
        f'<li><span>{_text(answer.title)}</span><span>{percent(answer.score)}</span><meter min="0" max="1" '
        f'value="{answer.score:.4f}"></meter></li>'
        for answer in explanation.predictions
    )
    return f'<ul class="answers">{items}</ul>'


def _left_out(explanation: Explanation, shown: Sequence[FilterExplanation], name: str) -> str:
    left_out = len(explanation.filters) - len(shown)
    return f" · {left_out} more filters in masks/{_text(name)}.npz" if left_out else ""


def _values(facts: Facts) -> dict[str, str]:
    style, script = _resource("page.css"), _resource("page.js")
    shown = {"source": facts.source, "layer": facts.layer, "images": str(facts.explained), **facts.facts}
    if facts.failed:
        shown["failed"] = str(facts.failed)
    note = f"Made by {facts.tool}."
    if facts.shown < facts.explained:
        note += (
            f" This page shows the first {facts.shown} of {facts.explained} images; all are in explanations.jsonl, "
            "masks and overlays."
        )
        shown["shown here"] = f"the first {facts.shown}"
    return {
        "title": f"Where the filters look · {_text(facts.source)}",
        "layer": _text(facts.layer),
        "tool": _text(facts.tool),
        "facts": "".join(f"<li>{_text(word)} <b>{_text(value)}</b></li>" for word, value in shown.items()),
        "failures": _failures(facts),
        "note": _text(note),
        "style": style,
        "script": script,
        "style_hash": _csp_hash(style),
        "script_hash": _csp_hash(script),
    }


def _failures(facts: Facts) -> str:
    if not facts.failed:
        return ""
    listed = "".join(f"<li>{_text(failure.message)}</li>" for failure in facts.failures[:MAX_FAILURES])
    return f"<details open><summary>{facts.failed} inputs could not be explained</summary><ul>{listed}</ul></details>"


def _text(text: str) -> str:
    """Text as it may stand in HTML and in a quoted attribute."""
    return escape(printable(text), quote=True)


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")


def _csp_hash(content: str) -> str:
    return "sha256-" + _base64(hashlib.sha256(content.encode("utf-8")).digest())


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _template() -> str:
    return _resource("page.html")
