"""The rows of the zoo: which network, exported how, then changed how."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import architectures, detection, frameworks, graphs
from .exporting import export
from .transforms import TRANSFORMS

EXPORTERS = ("classic-9", "classic-11", "classic-13", "classic-20", "dynamo-20", "dynamo-22", "dynamo-23")
CHANGES = (
    "ort-basic",
    "ort-extended",
    "slim",
    "fp16",
    "int8-dynamic",
    "int8-qdq",
    "int8-qoperator",
    "fp16-mixed",
    "int8-qdq-s8",
    "int8-qoperator-u8",
    "bf16",
)


@dataclass(frozen=True)
class Row:
    """One file to build and check.

    Attributes:
        network, family, exporter, change: the columns; `change` is "" for the plain export.
        write: writes the ONNX file.
        outputs: whether the model's own outputs are compared too (not what follows NMS in a detector).
        cheap: takes about a second: `--sample` draws among these.
    """

    network: str
    family: str
    exporter: str
    change: str
    write: Callable[[Path], None]
    outputs: bool = True
    cheap: bool = False

    @property
    def id(self) -> str:
        """Its name on the command line and in the results."""
        return "/".join(filter(None, (self.network, self.exporter, self.change)))

    def build(self, path: Path) -> None:
        """Write the file, changed as `change` says."""
        if not self.change:
            self.write(path)
            return
        plain = path.with_suffix(".plain.onnx")
        self.write(plain)
        TRANSFORMS[self.change](plain, path)
        plain.unlink()


def _network_rows() -> Iterator[Row]:
    """Each network at classic-17 and dynamo's default, at one further opset, and changed in two ways, in turn."""
    for index, architecture in enumerate(architectures.ARCHITECTURES):
        chosen = [("classic-17", ""), ("dynamo", ""), (EXPORTERS[index % len(EXPORTERS)], "")]
        for step in (0, 4):
            base = "dynamo" if (index + step) % 3 == 0 else "classic-17"
            chosen.append((base, CHANGES[(index + step) % len(CHANGES)]))
        for exporter, change in chosen:
            yield Row(
                architecture.name,
                architecture.family,
                exporter,
                change,
                _writer(architecture, exporter),
                cheap=architecture.cheap and not exporter.startswith("dynamo"),
            )


def _writer(architecture: architectures.Architecture, exporter: str) -> Callable[[Path], None]:
    return lambda path: export(architectures.build(architecture), architecture.size, exporter, path)


def all_rows() -> list[Row]:
    """Every row of the zoo, in a fixed order."""
    rows = list(_network_rows())
    for graph in graphs.GRAPHS:
        rows.append(Row(graph.name, graph.family, f"by hand-{graph.opset}", "", graph.write, cheap=True))
    for found in (*frameworks.files(), *detection.files()):
        for change in found.changes:
            rows.append(Row(found.name, found.family, found.exporter, change, found.write, outputs=found.outputs))
    return rows


def sampled(rows: list[Row], seed: int, parts: int) -> list[Row]:
    """A seeded share of 1 / `parts` of the cheap rows."""

    def drawn(row: Row) -> bool:
        digest = hashlib.sha256(f"{seed} {row.id}".encode()).digest()
        return int.from_bytes(digest[:4], "big") % parts == 0

    return [row for row in rows if row.cheap and drawn(row)]
