"""Classes of images: a CSV or JSON file, or the folders that they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

from ...errors import AnnotationError
from .parts import _agreement
from .untrusted import read_json, read_rows


class Labels:
    """Class of an image by its path.

    Args:
        source: where they come from.
        classes: path as the file gives it -> class, a name or a number as text.

    Raises:
        AnnotationError: there is not a single label.
    """

    def __init__(self, source: Path, classes: Mapping[str, str]) -> None:
        self.source = source
        self._classes = dict(classes)
        self._by_stem: dict[str, list[str]] = {}
        for key in self._classes:
            self._by_stem.setdefault(PurePath(key).stem, []).append(key)
        if not self._classes:
            raise AnnotationError(f"{source}: not a single label")

    def find(self, path: str | Path) -> str | None:
        """The class of an image, matched by the end of its path; None where there is none."""
        wanted = PurePath(path)
        keys = self._by_stem.get(wanted.stem, [])
        return self._classes[max(keys, key=lambda key: _agreement(PurePath(key), wanted))] if keys else None


class FolderLabels(Labels):
    """The class of an image is the folder that it lies in."""

    def __init__(self) -> None:
        self.source = Path("folders")

    def find(self, path: str | Path) -> str | None:
        """See `Labels.find`."""
        return PurePath(path).parent.name or None


def read_labels(text: str) -> Labels:
    """Labels from ``folders``, a CSV file with the columns file and label, or a JSON object from file to label.

    Raises:
        AnnotationError: the file has another form.
    """
    if text == "folders":
        return FolderLabels()
    path = Path(text)
    if path.suffix.lower() == ".json":
        listed = read_json(path)
        if isinstance(listed, dict) and isinstance(listed.get("images"), list):  # names.json of the synthetic set
            listed = {item.get("file"): item.get("class") for item in listed["images"] if isinstance(item, dict)}
        if not isinstance(listed, dict) or not all(isinstance(value, str | int) for value in listed.values()):
            raise AnnotationError(f"{path}: labels must be an object from file names to classes")
        return Labels(path, {str(key): str(value) for key, value in listed.items()})
    return Labels(path, {row["file"]: row["label"] for _, row in read_rows(path, ("file", "label"))})
