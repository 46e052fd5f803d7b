"""Finding out which layout a file or folder of annotations has: each layout's file registers how it is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from ...discovery import import_all
from ...errors import AnnotationError
from .parts import Annotations
from .untrusted import read_json, read_xml


class AnnotationSource:
    """A file or folder whose layout is looked for.

    Attributes:
        path: the file or folder.
        is_folder: which of the two.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.is_folder = path, path.is_dir()

    def has(self, name: str) -> bool:
        """Whether it is a folder with a file or folder of that name."""
        return self.is_folder and (self.path / name).exists()

    @cached_property
    def files(self) -> tuple[str, list[Path]]:
        """The ending that its documents have, and these: .mat, .xml or .json of a folder, else the file itself."""
        if not self.is_folder:
            return self.path.suffix.lower(), [self.path]
        for base in (self.path, self.path / "Annotations", self.path / "Annotations_Part"):
            for ending in (".mat", ".xml"):
                if found := sorted(base.glob(f"*{ending}")):
                    return ending, found
        found = sorted(self.path.rglob("*.json"))
        return (".json", found) if found else ("", [])

    @cached_property
    def json(self) -> Any:
        """Content of its only JSON file; None where it has none or several."""
        ending, files = self.files
        return read_json(files[0]) if ending == ".json" and len(files) == 1 else None

    @cached_property
    def xml(self) -> Element | None:
        """Root of its only XML file; None where it has none or several."""
        ending, files = self.files
        return read_xml(files[0]) if ending == ".xml" and len(files) == 1 else None


Read = Callable[[AnnotationSource], Annotations | None]
_READERS: Final[dict[str, tuple[int, Read]]] = {}


def layout(place: int, words: str) -> Callable[[Read], Read]:
    """Register a function that reads a layout, or gives None for what has another.

    Args:
        place: of the try; layouts known by a file's name come before those known by its content.
        words: what the layout is called in messages.
    """

    def register(read: Read) -> Read:
        _READERS[words] = (place, read)
        return read

    return register


@cache
def layouts() -> dict[str, Read]:
    """What a layout is called -> what reads it, in the order in which they are tried."""
    import_all(__package__)
    return {words: read for words, (_, read) in sorted(_READERS.items(), key=lambda item: item[1][0])}


def open_annotations(path: str | Path) -> Annotations:
    """Part annotations of any known layout.

    Raises:
        AnnotationError: no such file, a layout that is not known, or one that is broken.
    """
    source = AnnotationSource(Path(path))
    if not source.path.exists():
        raise AnnotationError(f"{path}: no such file or folder; expected part annotations")
    for read in layouts().values():
        if (found := read(source)) is not None:
            return found
    raise AnnotationError(f"{path}: no part annotations of a known layout; known are {'; '.join(layouts())}")
