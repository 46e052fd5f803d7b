"""Takes real photographs out of Qt resource files, to train on: GCompris' animals, tools, fish, monuments, windmills.

    apt-get download gcompris-qt-data && dpkg-deb -x gcompris-qt-data_*.deb build/gcompris
    python -m fsagn_onnx.models.photographs build/gcompris --out build/photographs

A Qt resource file holds its files one after another, each behind its length (4 bytes, most significant first); those
that are not compressed again (pictures are not) can be cut out. Licences: the package's copyright file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np

from fsagn_onnx.data.files import write_file

MAGIC = re.compile(rb"RIFF....WEBP|\xff\xd8\xff[\xe0\xe1]", re.DOTALL)
LENGTH = 4
LEAST_EDGE = 200
GAMES = (
    "categorization",
    "details",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
)
"""The games whose pictures are photographs for the most part; the others draw."""


def pictures(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The (suffix, bytes) of each WebP and JPEG file in a Qt resource file."""
    for found in MAGIC.finditer(content):
        start = found.start()
        size = int.from_bytes(content[max(0, start - LENGTH) : start], "big")
        if 0 < size <= len(content) - start:
            yield ".webp" if found.group().startswith(b"RIFF") else ".jpg", content[start : start + size]


def is_photograph(content: bytes) -> bool:
    """Whether a picture is large enough and has no transparent parts, which drawings have."""
    image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    return image is not None and image.ndim == 3 and image.shape[2] == 3 and min(image.shape[:2]) >= LEAST_EDGE


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/photographs"), show_default=True)
def main(folder: Path, out: Path) -> None:
    """Cut the photographs out of the resource files (*.rcc) under FOLDER."""
    sources = sorted(path for path in folder.rglob("*.rcc") if path.stem in GAMES)
    if not sources:
        raise click.ClickException(f"no Qt resource files ({', '.join(GAMES)}) under {folder}")
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for source in sources:
        kept = [item for item in pictures(source.read_bytes()) if is_photograph(item[1])]
        for number, (suffix, content) in enumerate(kept):
            write_file(out / f"{source.stem}_{number:03}{suffix}", [content])
        count += len(kept)
        click.echo(f"{source.name}: {len(kept)}")
    click.echo(f"{count} photographs in {out}")


if __name__ == "__main__":
    main()
