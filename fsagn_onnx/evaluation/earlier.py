"""An earlier evaluation beside a new one: its methods join the tables without being run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from ..runs.folder import INDEX
from ..runs.manifest import index_lines, read_manifest

SAME: Final = ("content", "layer", "infills", "filters", "areas", "seed", "scale")
"""What two runs must have in common, besides their images."""


def joined(first: Any, second: Any) -> Any:
    """Two JSON values in one: objects member by member, else the first."""
    if isinstance(first, dict) and isinstance(second, Mapping):
        return {name: joined(value, second.get(name)) for name, value in first.items()} | {
            name: value for name, value in second.items() if name not in first
        }
    return first


class EarlierEvaluation:
    """The lines of an earlier run.

    Attributes:
        methods: its methods, in order.

    Args:
        folder: what `--out` named then.
        arguments: of the new run.

    Raises:
        OutputError: the folder holds no evaluation.
        UsageError: it was made for another model, layer, infills, filters, areas, seed or scale of maps.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self._folder = folder
        run = read_manifest(folder, "evaluate")
        if other := [name for name in SAME if run.get(name) != arguments.get(name)]:
            raise UsageError(f"{folder} was made with other {', '.join(other)}; only methods may differ")
        self.methods: list[str] = list(run["methods"])
        self._lines = {members["path"]: members for _, members in index_lines(folder / INDEX)}

    def join(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record with the earlier methods' measurements of the same image.

        Raises:
            UsageError: the earlier run lacks the image, or drew other filters there.
        """
        earlier = self._lines.get(record["path"])
        if "failed" in record:
            return record
        if earlier is None or earlier.get("ids") != record["ids"]:
            raise UsageError(
                f"{self._folder} has not measured {record['path']} with the same filters; name the same images in the "
                "same order, or finish it first with --resume"
            )
        made: dict[str, Any] = joined(record, earlier)
        return made
