"""Decisions of a plain model over very many pictures: every worker reads the gradients that the driver chose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fsagn_onnx.cli.explain import command
from fsagn_onnx.explanations.job import ExplainRequest
from fsagn_onnx.explanations.subject import open_explainer
from fsagn_onnx.runtime.evidence import PlainEvidence
from fsagn_onnx.scale.explain import DatasetRun, Scale, first_pictures
from fsagn_onnx.scale.pictures import units_of

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "models" / "boards_cnn.onnx"
SHORTS = sorted((ROOT / "examples" / "pcb" / "short").glob("*.png"))[:3]


@pytest.mark.parametrize("contributions", ["zero", "mean"])
def test_a_worker_tells_what_the_driver_tells(contributions: str, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"image": [path.read_bytes() for path in SHORTS]})
    parquet.write_table(table, tmp_path / "shorts.parquet")
    request = ExplainRequest((str(tmp_path / "shorts.parquet"),), why="top:1", measure=False)
    units = list(units_of(request.images))
    options = {"why": True, "contributions": contributions, "threads": 1}
    opened = open_explainer(BOARDS, pictures=first_pictures(units), **options)
    with opened.explainer:
        assert any("on 3 pictures, the best of" in hint for hint in opened.hints)
        run = DatasetRun(opened, BOARDS, options, tmp_path / "out", request, Scale(), units=units)
        worker = run.job.open(tmp_path)
        driver = opened.explainer.engine
        with worker.explainer:
            there = worker.explainer.engine
            assert isinstance(driver, PlainEvidence)
            assert isinstance(there, PlainEvidence)
            assert there.depths == driver.depths
            assert (len(there.means), there.means) == (128 * (contributions == "mean"), driver.means)
            asked = np.zeros((1, 3, *driver.metadata.input.size), np.float32), np.array([[-2, -3]]), np.array([[-1]])
            found, expected = there.decide(*asked).decisions, driver.decide(*asked).decisions
    assert found is not None
    assert expected is not None
    assert (found.contributions == expected.contributions).all()
    assert (found.evidence_rank == expected.evidence_rank).all()


def test_names_on_standard_input_are_read_once(tmp_path: Path) -> None:
    words = [str(BOARDS), "-", "--why", "--no-measure", "--overlays", "0", "--threads", "1", "--out", str(tmp_path)]
    result = CliRunner().invoke(command, words, input="".join(f"{path}\n" for path in SHORTS), catch_exceptions=False)
    assert result.exit_code == 0
    assert "3 explained, 0 failed" in result.output
    assert "on 3 pictures, the best of" in result.stderr
