"""What `explain` writes: a folder of results that grows image by image and survives being killed.

    DIR/manifest.json         versions, hashes, arguments, counts, failures
    DIR/explanations.jsonl    a line per explained image
    DIR/masks/NAME.npz        area ranks, filter ids, and the affine map to the original image's pixels
    DIR/overlays/NAME.png     the image and its filters' areas
    DIR/report.html           one self-contained page
    DIR/rows/                 the dataset of rows, where it was asked for

An image is done when its line is in explanations.jsonl, which is the last thing written for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2

from ..data.files import LineFile, make_folder, read_lines, write_file
from ..report.sheet import TOOL
from ..report.table import FORMATS
from ..runs.folder import ROWS, RunFolder, remove
from ..runs.manifest import MAX_FAILURES, listed, versions
from ..runs.names import Names, digest
from ..runtime.drawing.overlay import OUTLINED
from ..runtime.stream import Failure
from .page import MAX_IMAGES, Facts, article_name, detail_of, escaped_name, page
from .rendering import Place, Rendered

LINES: Final = "explanations.jsonl"
REPORT: Final = "report.html"
ARTICLES: Final = ".report-articles"


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


class ExplanationFolder(RunFolder):
    """The folder that a run of `explain` fills; use it as a context manager, it finishes the report at the end.

    Attributes:
        about: what the run is.
        explained: images that are done.
        failed: images that failed in this run.
        failures: the first of them.

    Args:
        path: where to write; made if it is not there.
        about: what the run is.
        resume: go on with what the folder holds.
        overwrite: remove the results that the folder holds first.

    Raises:
        OutputError: the folder cannot be written, holds something else, or (``resume``) belongs to another run.
        UsageError: both ``resume`` and ``overwrite``.
    """

    kind = "explain"
    index_name = LINES

    def __init__(self, path: Path, about: About, *, resume: bool = False, overwrite: bool = False) -> None:
        self.about = about
        self.explained = self.failed = 0
        self.failures: list[Failure] = []
        self._names = Names()
        self._done: set[bytes] = set()
        self._shown = 0
        super().__init__(path, {**about.subject, **about.arguments}, resume=resume, overwrite=overwrite)
        self._given = self._shown
        for name in self.folders():
            make_folder(path / name)
        self._write_state("running")
        self._articles = LineFile(path / ARTICLES)

    def folders(self) -> tuple[str, ...]:
        """Masks and overlays."""
        return ("masks", "overlays")

    def results(self) -> Iterator[Path]:
        """Lines, report, masks and overlays; what else lies in the folder stays."""
        yield from super().results()
        for name in (REPORT, ARTICLES, ROWS, *(f"report.{ending}" for ending in FORMATS)):
            yield self.path / name
        yield from (self.path / "masks").glob("*.npz")
        yield from (self.path / "overlays").glob("*.png")

    def written(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments are a member of their own; runs before there were styles drew outlines."""
        return {**manifest, "style": OUTLINED, **manifest["arguments"]}

    def take_up(self) -> None:
        """Learn from the folder what is done, and keep exactly the articles of that.

        Raises:
            OutputError: a line is damaged.
        """
        names = set()
        for members in self.lines():
            name = members["name"]
            self._done.add(digest(members["path"]))
            self._names.take(name)
            self.explained += 1
            if self.explained <= MAX_IMAGES:
                names.add(escaped_name(name))
        source = self.path / (ARTICLES if (self.path / ARTICLES).is_file() else REPORT)
        write_file(self.path / ARTICLES, self._kept_articles(source, names))

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

    def add(self, rendered: Rendered) -> None:
        """Write one image's files; its line comes last.

        Raises:
            OutputError: one cannot be written.
        """
        self.write(f"masks/{rendered.name}.npz", rendered.masks)
        self.write(f"overlays/{rendered.name}.png", rendered.overlay)
        if rendered.article is not None:
            self._articles.append(rendered.article.encode("utf-8"))
            self._shown += 1
        self.append_line(rendered.line)
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
        self._write_state("done")
        self.close()
        remove(self.path / ARTICLES)

    def _guessed(self) -> dict[str, str]:
        guessed = self.about.subject.get("guessed_input")
        return {"input (guessed)": ", ".join(guessed)} if guessed else {}

    def _trust(self) -> dict[str, str]:
        trust = self.about.subject.get("trust")
        return {"this explainer": trust} if trust else {}

    def _depths(self) -> dict[str, str]:
        depths = self.about.subject.get("evidence_depths")
        return {"evidence from": ", ".join(depths)} if depths else {}

    def _decided(self) -> bool:
        asked = self.about.arguments
        return bool(asked.get("why")) or any(word in str(asked["filters"]) for word in ("decisive", "against"))

    def _write_report(self) -> None:
        facts = Facts(
            source=self.about.source,
            layer=self.about.layer,
            tool=TOOL,
            facts={
                **{name: str(self.about.arguments[name]) for name in ("filters", "area")},
                **self._trust(),
                **self._guessed(),
                **self._depths(),
            },
            explained=self.explained,
            shown=self._shown,
            failures=self.failures,
            failed=self.failed,
            style=str(self.about.arguments["style"]),
            decided=self._decided(),
        )
        articles = (line.decode("utf-8") for line in read_lines(self.path / ARTICLES))
        self.write(REPORT, page(facts, articles))

    def _write_state(self, state: str) -> None:
        self.write_manifest(
            {
                "state": state,
                "versions": versions(opencv=cv2.__version__),
                "source": self.about.source,
                **self.about.subject,
                "provider": self.about.provider,
                "arguments": dict(self.about.arguments),
                "counts": {"explained": self.explained, "failed": self.failed},
                "failures": listed(self.failures),
            }
        )

    def close(self) -> None:
        """Close all files; what is done is kept for a run that goes on."""
        super().close()
        self._articles.close()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.close()
