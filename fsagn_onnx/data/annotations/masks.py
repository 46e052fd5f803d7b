"""Plain index masks: one PNG per image and a file that names the numbers in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import AnnotationError
from .layouts import AnnotationSource, layout
from .parts import Annotations, ImageParts, Part
from .untrusted import entry, read_index_png, read_json, read_text


def read_names(path: Path) -> dict[int, str]:
    """Number -> part name.

    `names.json`: ``{"1": "wheel", ...}``, a list (the first entry is number 1), or an object with one of these under
    ``parts``; `names.txt`: lines ``NUMBER NAME`` or a name per line, the first is number 1.

    Raises:
        AnnotationError: the file has another form.
    """
    if path.suffix == ".json":
        listed = read_json(path)
        if isinstance(listed, dict) and "parts" in listed:
            listed = listed["parts"]
        if isinstance(listed, list):
            listed = {str(place): name for place, name in enumerate(listed, start=1)}
    else:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        numbered = [line.split(maxsplit=1) for line in lines]
        if all(len(words) == 2 and words[0].isdigit() for words in numbered):
            listed = {words[0]: words[1] for words in numbered}
        else:
            listed = {str(place): name for place, name in enumerate(lines, start=1)}
    if not isinstance(listed, dict):
        raise AnnotationError(f"{path}: expected an object from numbers to names, or a list of names")
    names = {}
    for number, name in listed.items():
        if not str(number).isdigit() or not isinstance(name, str) or not name:
            raise AnnotationError(f"{path}: expected numbers with names, but got {number!r}: {name!r}"[:200])
        names[int(number)] = name
    return names


def read_mask_folder(folder: Path, names_file: Path) -> Annotations:
    """A folder of masks with `names.json` or `names.txt`; also what `fsagn_onnx.testing.synthetic.write_folder` writes.

    Masks lie in ``masks/`` or in the folder itself and have the stems of the images. Number 0 is no part.
    """
    names = read_names(names_file)
    listed = read_json(names_file) if names_file.suffix == ".json" else None
    readers: dict[str, Callable[[], ImageParts]] = {}
    if isinstance(listed, dict) and isinstance(listed.get("images"), list):
        for number, item in enumerate(listed["images"]):
            where = f"{names_file}: image {number}"
            path = folder / entry(item, "mask", str, where)
            label, seed = item.get("class"), item.get("seed")
            readers[entry(item, "file", str, where)] = partial(
                _read,
                path,
                names,
                label if isinstance(label, str) else None,
                seed if isinstance(seed, int) else None,
            )
    else:
        masks = folder / "masks" if (folder / "masks").is_dir() else folder
        for path in sorted(masks.rglob("*.png")):
            readers[str(path.relative_to(masks))] = partial(_read, path, names, None, None)
    return Annotations(names_file, "mask PNG", names.values(), readers)


def _read(path: Path, names: dict[int, str], label: str | None, seed: int | None) -> ImageParts:
    numbers = read_index_png(path)
    present = [number for number in _present(numbers) if number]
    if unknown := [number for number in present if number not in names]:
        raise AnnotationError(f"{path}: number {unknown[0]} has no name in the names file")
    parts = tuple(Part(names[number], mask=numbers == number) for number in present)
    return ImageParts(parts, (numbers.shape[0], numbers.shape[1]), label, seed)


def _present(numbers: NDArray[np.int32]) -> list[int]:
    """The distinct numbers, ascending."""
    if numbers.max(initial=0) < 2**16:
        return [int(number) for number in np.flatnonzero(np.bincount(numbers.ravel()))]
    return [int(number) for number in np.unique(numbers)]


@layout(10, "mask PNGs with names.json or names.txt (a folder)")
def open_masks(source: AnnotationSource) -> Annotations | None:
    """Known by the file of names."""
    for name in ("names.json", "names.txt"):
        if source.has(name):
            return read_mask_folder(source.path, source.path / name)
        if source.path.name == name and not source.is_folder:
            return read_mask_folder(source.path.parent, source.path)
    return None
