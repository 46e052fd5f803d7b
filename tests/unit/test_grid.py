"""Tables as Markdown and as pictures: every cell, nothing that Markdown would run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsagn_onnx.errors import UsageError
from fsagn_onnx.report.table import PICTURE_ROWS, Table, write_formats

GRID = Table("A *title*", ("filter", "part"), (("1", "<b>|wheel`"), ("2", None)), ((0.0, 1.0), (0.0, 0.0)))


def test_markdown_escapes_names() -> None:
    assert GRID.to_markdown().splitlines() == [
        r"# A \*title\*", "", "| filter | part |", "| --- | --- |", r"| 1 | \<b\>\|wheel\` |", "| 2 |  |",
    ]  # fmt: skip


def test_pictures_shade_cells_and_stay_small() -> None:
    picture = GRID.to_picture()
    assert picture.dtype == np.uint8
    assert ((picture[..., 0] > 150) & (picture[..., 2] < 40)).any()
    many = Table("t", ("a",), tuple((str(i),) for i in range(500)))
    assert many.to_picture().shape[0] < 24 * (PICTURE_ROWS + 6)


def test_formats(tmp_path: Path) -> None:
    write_formats(tmp_path, ("json", "md", "png"), GRID, lambda: "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md", "report.png"}
    with pytest.raises(UsageError, match="no format 'pdf'"):
        write_formats(tmp_path, ("pdf",), GRID, lambda: "{}")
