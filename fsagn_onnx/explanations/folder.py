"""What `explain` writes: a folder of results that grows image by image and survives being killed.

    DIR/manifest.json         versions, hashes, arguments, counts, failures
    DIR/explanations.jsonl    a line per explained image
    DIR/masks/NAME.npz        area ranks, filter ids, and the affine map to the original image's pixels
    DIR/overlays/NAME.png     the image and its filters' areas
    DIR/report.html           one self-contained page

An image is done when its line is in explanations.jsonl, which is the last thing written for it.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import onnxruntime

from .. import __version__
from ..data.files import PART, LineFile, make_folder, read_lines, write_file
from ..errors import OutputError
from ..report.sheet import TOOL
from ..report.table import FORMATS
from ..runs.names import Names, digest
from ..runtime.drawing.overlay import OUTLINED, draw_panel, encode_png
from ..runtime.explanation import Explanation
from ..runtime.masks import area_rank, upsample
from ..runtime.stream import Failure
from .page import MAX_IMAGES, Detail, Facts, article, article_name, detail_of, escaped_name, page

MANIFEST: Final = "manifest.json"
LINES: Final = "explanations.jsonl"
REPORT: Final = "report.html"
ARTICLES: Final = ".report-articles"
HALF_PRECISION_CELLS: Final = 2048
"""Grids of up to this many cells keep every rank apart in float16."""
MAX_FAILURES: Final = 1000
"""Failures listed in the manifest; all are counted."""


@dataclass(frozen=True)
class About:
    """What a run is, as its manifest says.

    Attributes:
        source: file name of the explainer or model.
        layer: the explained layer.
        subject: what is explained by what: hashes, layer, input, method. A run goes on only with the same.
        arguments: what the user asked for. A run goes on only with the same.
        provider: the onnxruntime provider that computes.
    """

    source: str
    layer: str
    subject: Mapping[str, Any]
    arguments: Mapping[str, Any]
    provider: str


@dataclass(frozen=True)
class Place:
    """Where one image's results go: the stem of its files, and how much of it the report shows (None: nothing)."""

    name: str
    detail: Detail | None


@dataclass(frozen=True)
class Rendered:
    """The contents of one image's files, and its line in the report."""

    name: str
    path: str
    line: bytes
    masks: bytes
    overlay: bytes
    article: str | None


def render_result(explanation: Explanation, place: Place, *, full_size: bool, style: str = OUTLINED) -> Rendered:
    """Make the contents of one image's files; safe to call in several threads."""
    members = {"path": explanation.name, "name": place.name, **explanation.to_dict()}
    return Rendered(
        name=place.name,
        path=explanation.name,
        line=json.dumps(members, allow_nan=False).encode("ascii") + b"\n",
        masks=_masks(explanation, full_size=full_size),
        overlay=encode_png(draw_panel(explanation, style)),
        article=None if place.detail is None else article(explanation, place.name, place.detail),
    )


def _masks(explanation: Explanation, *, full_size: bool) -> bytes:
    """The npz file: ``area_rank`` (K, h, w), ``filter_ids`` (K,), ``area`` (K,), ``affine`` (2, 3), ``size`` (2,).

    ``affine`` takes (x, y, 1) in cells of ``area_rank`` to (x, y) in pixels of the original. At full size it is the
    identity, ranks are those of the pixels of the model's input, and what the model did not see is infinite:
    never kept.
    """
    filters = explanation.filters
    ranks = np.stack([f.area_rank for f in filters]) if filters else np.zeros((0, 1, 1), np.float32)
    affine = explanation.geometry.grid_matrix(*ranks.shape[1:])
    if full_size:
        geometry = explanation.geometry
        pixels = area_rank(-upsample(ranks, geometry.size))
        full = [geometry.mask_to_original(single) for single in pixels]
        ranks = np.stack(full) if full else np.zeros((0, *explanation.size), np.float32)
        ranks[ranks == 0] = np.inf
        affine = np.eye(2, 3)
    small = ranks.shape[1] * ranks.shape[2] <= HALF_PRECISION_CELLS and not full_size
    content = io.BytesIO()
    np.savez_compressed(
        content,
        area_rank=ranks.astype(np.float16 if small else np.float32),
        filter_ids=np.array([f.id for f in filters], dtype=np.int64),
        area=np.array([f.area for f in filters], dtype=np.float32),
        affine=affine,
        size=np.array(explanation.size, dtype=np.int64),
    )
    return content.getvalue()


@dataclass
class ResultFolder:
    """The folder that a run fills; use it as a context manager, it finishes the report at the end.

    Args:
        folder: where to write; made if it is not there.
        about: what the run is.
        resume: go on with what the folder holds.
        overwrite: remove the results that the folder holds first.

    Raises:
        OutputError: the folder cannot be written, holds something else, or (``resume``) belongs to another run.
    """

    folder: Path
    about: About
    resume: bool = False
    overwrite: bool = False
    explained: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names = Names()
        self._done: set[bytes] = set()
        self._shown = 0
        self._prepare()
        self._given = self._shown
        for name in ("masks", "overlays"):
            make_folder(self.folder / name)
        self._write_manifest("running")
        self._lines = LineFile(self.folder / LINES)
        self._articles = LineFile(self.folder / ARTICLES)

    def _prepare(self) -> None:
        make_folder(self.folder)
        try:
            entries = [entry.name for entry in self.folder.iterdir()]
        except OSError as error:
            raise OutputError(f"cannot read {self.folder}: {error.strerror}") from error
        if not entries:
            return
        if not (self.resume or self.overwrite):
            raise OutputError(
                f"{self.folder} is not empty: go on with --resume, replace its results with --overwrite, "
                "or choose another --out"
            )
        manifest = self._read_manifest()
        if self.overwrite:
            self._remove_results()
            return
        for part in (self.about.subject, self.about.arguments):
            _check_same(self.folder, manifest, part)
        self._remove_parts()
        self._take_up()

    def _read_manifest(self) -> dict[str, Any]:
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            manifest = None
        if not isinstance(manifest, dict) or "arguments" not in manifest:
            raise OutputError(f"{self.folder} is not empty and holds no results of 'explain': choose another --out")
        manifest["arguments"].setdefault("style", OUTLINED)  # older runs
        return manifest

    def _result_files(self) -> Iterator[Path]:
        for name in (LINES, REPORT, ARTICLES, *(f"report.{ending}" for ending in FORMATS)):
            yield self.folder / name
        yield from (self.folder / "masks").glob("*.npz")
        yield from (self.folder / "overlays").glob("*.png")
        yield self.folder / MANIFEST

    def _remove_results(self) -> None:
        self._remove_parts()
        for path in self._result_files():
            _remove(path)

    def _remove_parts(self) -> None:
        for folder in (self.folder, self.folder / "masks", self.folder / "overlays"):
            for path in folder.glob(f".*{PART}"):
                _remove(path)

    def _take_up(self) -> None:
        """Learn from the folder what is done, and keep exactly the articles of that."""
        names = set()
        for number, line in enumerate(read_lines(self.folder / LINES), start=1):
            try:
                members = json.loads(line)
                path, name = members["path"], members["name"]
            except (ValueError, KeyError, TypeError):
                raise OutputError(
                    f"{self.folder / LINES} is damaged in line {number}: start again with --overwrite"
                ) from None
            self._done.add(digest(path))
            self._names.take(name)
            self.explained += 1
            if self.explained <= MAX_IMAGES:
                names.add(escaped_name(name))
        source = self.folder / (ARTICLES if (self.folder / ARTICLES).is_file() else REPORT)
        kept = self._kept_articles(source, names)
        write_file(self.folder / ARTICLES, kept)

    def _kept_articles(self, source: Path, names: set[str]) -> Iterator[bytes]:
        for line in read_lines(source):
            name = article_name(line.decode("utf-8", "replace"))
            if name in names:
                names.discard(name)
                self._shown += 1
                yield line

    def is_done(self, path: str) -> bool:
        """Whether an image is in the folder already."""
        return digest(path) in self._done

    def give_place(self, path: str) -> Place:
        """A place for the results of the next image; images are written in the order of their places."""
        self._given += 1
        return Place(self._names.give(path), detail_of(self._given - 1))

    def write(self, rendered: Rendered) -> None:
        """Write one image's files; its line comes last.

        Raises:
            OutputError: one cannot be written.
        """
        write_file(self.folder / "masks" / f"{rendered.name}.npz", [rendered.masks])
        write_file(self.folder / "overlays" / f"{rendered.name}.png", [rendered.overlay])
        if rendered.article is not None:
            self._articles.append(rendered.article.encode("utf-8"))
            self._shown += 1
        self._lines.append(rendered.line)
        self._done.add(digest(rendered.path))
        self.explained += 1

    def fail(self, failure: Failure) -> None:
        """Note an image that could not be explained."""
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)

    def finish(self) -> None:
        """Write the report, unless there is nothing to report, and the final manifest.

        Raises:
            OutputError: one cannot be written.
        """
        if self.explained:
            self._write_report()
        self._write_manifest("done")
        self._close()
        _remove(self.folder / ARTICLES)

    def _write_report(self) -> None:
        facts = Facts(
            source=self.about.source,
            layer=self.about.layer,
            tool=TOOL,
            facts={name: str(self.about.arguments[name]) for name in ("filters", "area")},
            explained=self.explained,
            shown=self._shown,
            failures=self.failures,
            failed=self.failed,
            style=str(self.about.arguments["style"]),
        )
        articles = (line.decode("utf-8") for line in read_lines(self.folder / ARTICLES))
        write_file(self.folder / REPORT, (piece.encode("utf-8") for piece in page(facts, articles)))

    def _write_manifest(self, state: str) -> None:
        versions = {
            "fsagn-onnx": __version__,
            "onnxruntime": onnxruntime.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
        manifest = {
            "state": state,
            "versions": versions,
            "source": self.about.source,
            **self.about.subject,
            "provider": self.about.provider,
            "arguments": dict(self.about.arguments),
            "counts": {"explained": self.explained, "failed": self.failed},
            "failures": [{"path": failure.path, "message": failure.message} for failure in self.failures],
        }
        text = json.dumps(manifest, indent=2, allow_nan=False) + "\n"
        write_file(self.folder / MANIFEST, [text.encode("ascii")])

    def _close(self) -> None:
        self._lines.close()
        self._articles.close()

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self._close()


def _check_same(folder: Path, manifest: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    written = {**manifest, **manifest["arguments"]}
    for name, value in json.loads(json.dumps(expected)).items():
        if written.get(name) != value:
            raise OutputError(
                f"{folder} was written with another {name} ({_brief(written.get(name))} then, {_brief(value)} now): "
                "repeat the same arguments, replace the results with --overwrite, or choose another --out"
            )


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror}") from error
