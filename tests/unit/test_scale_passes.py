"""However a unit is cut, every picture has the place in a pass that it has in the whole list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fsagn_onnx.data.store import Store
from fsagn_onnx.explanations.job import ExplainRequest
from fsagn_onnx.explanations.parts import dataset_rows
from fsagn_onnx.explanations.subject import open_explainer
from fsagn_onnx.scale.pictures import Unit
from fsagn_onnx.scale.work import ExplainJob, PartWriter
from fsagn_onnx.testing.synthetic import write_folder

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo_explainer.onnx"
PASS = 4


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Six pictures, the fourth of them broken."""
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder, "val", 6)
    paths = sorted((folder / "images").iterdir())
    paths[3].write_bytes(b"no picture")
    return tuple(map(str, paths))


@pytest.mark.parametrize("cut", ["whole", "pieces", "some"])
def test_places_in_passes(cut: str, names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    whole = Unit(10, 16, names)
    units = {"whole": [whole], "pieces": list(whole.split(6)), "some": [msgspec.structs.replace(whole, only=(11, 15))]}[
        cut
    ]
    request = ExplainRequest(names, filters="top:2", batch_size=PASS, measure=False)
    opened = open_explainer(DEMO, threads=1)
    streams: list[list[str]] = []
    stream = opened.explainer.stream

    def watched(frames: Any, *words: Any, **options: Any) -> Iterator[Any]:
        streams.append([])

        def seen() -> Iterator[Any]:
            for frame in frames:
                streams[-1].append(frame.name)
                yield frame

        return stream(seen(), *words, **options)

    monkeypatch.setattr(opened.explainer, "stream", watched)
    with opened.explainer:
        writer = PartWriter(opened, ExplainJob(DEMO, {}, request, {}, str(tmp_path)), Store(tmp_path))
        outcomes = [writer.do(unit) for unit in units]
    assert {outcome.stopped for outcome in outcomes} == {""}
    expected = {names[n - 10]: n for n in ((11, 15) if cut == "some" else (10, 11, 12, 14, 15))}
    for shown in streams:
        assert len(shown) % PASS == 0
        for name in shown:
            assert any(shown[place] == name for place in range(expected[name] % PASS, len(shown), PASS))
    rows = list(dataset_rows(Store(tmp_path)))
    assert sorted(row["path"] for row in rows) == sorted(name for name in expected for _ in range(2))
