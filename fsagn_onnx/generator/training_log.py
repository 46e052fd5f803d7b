"""The JSON log beside a checkpoint: one line per ten steps, in step with what can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.files import make_folder, write_file


class TrainingLog:
    """Lines of JSON with a member ``step`` each.

    Args:
        checkpoint: beside which the log is.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.path = checkpoint.with_suffix(".log.jsonl")

    def trim(self, step: int) -> None:
        """Leave out the lines behind a step, and what a killed run left half written; 0: begin anew."""
        kept = []
        if step and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                if line.endswith("}") and json.loads(line)["step"] <= step:
                    kept.append(line)
        make_folder(self.path.parent)
        write_file(self.path, ((line + "\n").encode() for line in kept))

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
