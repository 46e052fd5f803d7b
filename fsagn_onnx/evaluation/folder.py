"""Where an evaluation keeps its results: a line per image as they come, tables and plots at the end.

DIR/run.json          what was asked for; a run goes on only with the same
DIR/images.jsonl      a line per image: what every metric measured
DIR/rows/*.parquet    the same as workers of a cluster wrote it, where they did
DIR/evaluation.json   all rows, costs, dead filters, failures
DIR/evaluation.md     the same as tables
DIR/plots/*.png       one per metric (with matplotlib)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..runs.folder import ROWS, RunFolder, remove
from ..runs.manifest import EVALUATION, manifest_file
from .result import Evaluation

TABLE: Final = "evaluation.json"
MARKDOWN: Final = "evaluation.md"


class EvaluationFolder(RunFolder):
    """The folder of a run; what else lies in it does not matter.

    Its subject are the arguments, all that ``run.json`` holds; see `RunFolder`.
    """

    kind = "evaluate"

    def is_filled(self) -> bool:
        """Whether an evaluation was begun here."""
        return manifest_file(self.path, self.kind).exists()

    def _prepare(self, resume: bool, overwrite: bool) -> None:
        super()._prepare(resume, overwrite)
        if not self.is_filled():
            remove(self.index_path)  # lines without a manifest belong to nothing
            content = json.dumps(self.subject, indent=1, sort_keys=True) + "\n"
            self.write(EVALUATION, content)

    def results(self) -> Iterator[Path]:
        """Lines, tables, report, and the parts that workers wrote."""
        yield from super().results()
        for name in (TABLE, MARKDOWN, "report.html", ROWS):
            yield self.path / name

    def append(self, record: Mapping[str, Any]) -> None:
        """Add an image."""
        self.append_line(json.dumps(record, allow_nan=False).encode() + b"\n")

    def finish(self, evaluation: Evaluation) -> None:
        """Write the tables."""
        self.write(TABLE, [json.dumps(evaluation.to_dict(), allow_nan=False, indent=1), "\n"])
        self.write(MARKDOWN, evaluation.to_markdown())
