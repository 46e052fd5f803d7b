"""The folder of a run: it grows line by line, survives being killed, and is taken up or replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from ..data.closing import Closing
from ..data.files import PART, LineFile, make_folder, write_file
from ..errors import OutputError, UsageError
from .manifest import index_lines, manifest_file, read_manifest, require_same

INDEX: Final = "images.jsonl"
ROWS: Final = "rows"
"""Folder of a dataset of Parquet parts, inside the folder of a run."""


class RunFolder(Closing):
    """A folder with a manifest and an index of a line per image; what is done is never done again.

    Subclasses say what else lies there: `results` names the files that ``overwrite`` removes, `take_up` reads what a
    run that goes on finds.

    Attributes:
        path: the folder.
        subject: what is measured with what; a run goes on only with the same.

    Args:
        path: where to write; made if it is not there.
        subject: members of the manifest that a run that goes on must repeat.
        resume: go on with what the folder holds.
        overwrite: remove what a run left there first.

    Raises:
        OutputError: the folder cannot be written, holds something else, or (``resume``) belongs to another run.
        UsageError: both ``resume`` and ``overwrite``.
    """

    kind: ClassVar[str] = ""
    """The command that fills it."""
    index_name: ClassVar[str] = INDEX
    kept: ClassVar[frozenset[str]] = frozenset()
    """Files of the user's own: they may lie in an empty folder, and no run removes them."""

    def __init__(
        self, path: Path, subject: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
    ) -> None:
        if resume and overwrite:
            raise UsageError("--resume and --overwrite exclude each other: go on with the results, or replace them")
        self.path, self.subject = path, json.loads(json.dumps(subject))
        make_folder(path)
        self._prepare(resume, overwrite)
        self._index = LineFile(self.index_path)

    @property
    def index_path(self) -> Path:
        """The file with a line per image."""
        return self.path / self.index_name

    def _prepare(self, resume: bool, overwrite: bool) -> None:
        if not self.is_filled():
            return
        if not (resume or overwrite):
            raise OutputError(
                f"{self.path} is not empty: go on with --resume, replace its results with --overwrite, "
                "or choose another --out"
            )
        manifest = read_manifest(self.path, self.kind)
        if not overwrite:
            require_same(self.path, self.written(manifest), self.subject)
        self._remove_parts()
        if overwrite:
            for path in (*self.results(), manifest_file(self.path, self.kind)):
                remove(path)
        else:
            self.take_up()

    def is_filled(self) -> bool:
        """Whether something lies in the folder already.

        Raises:
            OutputError: the folder cannot be read.
        """
        try:
            names = [entry.name for entry in self.path.iterdir()]
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror}") from error
        return any(not name.endswith(PART) and name not in self.kept for name in names)

    def written(self, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a manifest says about the members of `subject`."""
        return manifest

    def folders(self) -> tuple[str, ...]:
        """Folders inside that hold results."""
        return ()

    def results(self) -> Iterator[Path]:
        """Files and folders that ``overwrite`` removes, besides the manifest."""
        yield self.index_path

    def take_up(self) -> None:
        """Learn from the folder what is done."""

    def _remove_parts(self) -> None:
        for folder in (self.path, *(self.path / name for name in self.folders())):
            for path in folder.glob(f".*{PART}"):
                remove(path)

    def lines(self) -> Iterator[dict[str, Any]]:
        """The lines of the index so far, one per image."""
        return (members for _, members in index_lines(self.index_path))

    def append_line(self, line: bytes) -> None:
        """Append one line, or several, to the index.

        Raises:
            OutputError: it cannot be written; the file is as before.
        """
        self._index.append(line)

    def write_manifest(self, members: Mapping[str, Any]) -> None:
        """Write the manifest, whole or not at all."""
        text = json.dumps(members, indent=2, allow_nan=False) + "\n"
        write_file(manifest_file(self.path, self.kind), [text.encode("ascii")])

    def write(self, name: str, content: str | bytes | Iterable[str]) -> None:
        """Write a file of the folder, whole or not at all: a text, its pieces, or bytes.

        Raises:
            OutputError: it cannot be written.
        """
        pieces = [content] if isinstance(content, str | bytes) else content
        write_file(self.path / name, (piece.encode("utf-8") if isinstance(piece, str) else piece for piece in pieces))

    def close(self) -> None:
        """Close all files."""
        self._index.close()


def remove(path: Path) -> None:
    """Remove a file or a folder of results, where it is there.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror}") from error
