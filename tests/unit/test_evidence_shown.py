"""How the evidence of a decision is said, drawn and written: a sentence only where measuring shows something."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fsagn_onnx.explanations.page import article
from fsagn_onnx.explanations.rendering import Place, render_result
from fsagn_onnx.model.geometry import Geometry, Window
from fsagn_onnx.runs.filter_names import found_filter_names
from fsagn_onnx.runtime import Explanation, FilterExplanation, Prediction
from fsagn_onnx.runtime.drawing.overlay import draw_panel
from fsagn_onnx.runtime.explained_area import Evidence, Intervention
from fsagn_onnx.runtime.intervention import elsewhere
from fsagn_onnx.runtime.masks import pixel_mask
from fsagn_onnx.runtime.sentence import sentence
from fsagn_onnx.terminal.explanations import image_lines

RANK = ((np.arange(256, dtype=np.float32) + 1) / 256).reshape(16, 16)
AREA = {
    "area": 0.04,
    "retention_predicted": None,
    "retention_measured": 0.9,
    "area_rank": RANK,
    "curve": (),
    "box": (0, 0, 64, 4),
    "centroid": (32.0, 2.0),
}
GOOD = Intervention(index=0, label="good", score=0.93, asked=0.05, decision=-2.9)
STILL = Intervention(index=1, label="short", score=0.98, asked=0.98, decision=3.9)
FOUND = Evidence(
    **AREA,
    index=1,
    label="short",
    score=0.99,
    decision=4.6,
    support=(10.0, -2.0),
    kept=STILL,
    removed=GOOD,
    control=STILL,
)
FILTERS = (
    FilterExplanation(12, 6.0, **AREA, contribution=4.0, share=0.4, part="short"),
    FilterExplanation(48, 6.0, **AREA, contribution=2.0, share=0.2),
    FilterExplanation(7, 6.0, **AREA, contribution=1.1, share=0.11),
    FilterExplanation(9, 6.0, **AREA, contribution=-1.0, share=0.5),
)


def explained(found: Evidence = FOUND, answer: int = 1) -> Explanation:
    window = Window(0, 0, 64, 64)
    return Explanation(
        name="board.png",
        path=None,
        size=(64, 64),
        geometry=Geometry.from_windows((64, 64), (64, 64), window, window),
        predictions=(Prediction(answer, ("good", "short")[answer], 0.99),),
        filters=FILTERS,
        preview=np.full((64, 64, 3), 200, np.uint8),
        evidence=(found,),
    )


def test_sentence_of_measured_numbers() -> None:
    assert sentence(explained()) == (
        "short (99%): it rests on this 4.0% of the picture; without it: good (93%), without another 4.0%: "
        "still short (98%); 71% of the support comes from filters 12 (short), 48 and 7"
    )
    same = sentence(explained(replace(FOUND, removed=replace(STILL, score=0.6, asked=0.6, decision=0.4))))
    assert same is not None
    assert "without it: still short (60%), without another 4.0%: still short (98%)" in same
    asked = sentence(explained(replace(FOUND, score=0.3), answer=0))
    assert asked is not None
    assert "without it: short 5.0%, without another 4.0%: short 98%" in asked


@pytest.mark.parametrize(
    "found",
    [
        replace(FOUND, removed=None),
        replace(FOUND, control=None),
        replace(FOUND, control=replace(GOOD, decision=-3.0)),
        replace(FOUND, removed=replace(STILL, score=0.94, asked=0.94, decision=2.75)),
    ],
)
def test_no_sentence_where_measuring_shows_nothing(found: Evidence) -> None:
    assert sentence(explained(found)) is None


def test_terminal_says_it() -> None:
    console = Console(file=io.StringIO(), width=200)
    for line in image_lines(explained()):
        console.print(line)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "without it: good (93%)" in said
    assert "contribution" in said
    assert "-1.00" in said
    little = explained(replace(FOUND, removed=replace(STILL, score=0.94, asked=0.94, decision=2.75)))
    assert any("does not show that it rests there: hiding it costs little" in str(line) for line in image_lines(little))
    nothing = explained(replace(FOUND, control=replace(GOOD, decision=-3.0)))
    lines = [str(line) for line in image_lines(nothing)]
    assert any("measuring does not show" in line for line in lines)


def test_drawn_and_written() -> None:
    with_evidence, without = draw_panel(explained()), draw_panel(replace(explained(), evidence=()))
    assert with_evidence.shape[1] > without.shape[1]
    rendered = render_result(explained(), Place("board", None), full_size=False)
    line = json.loads(rendered.line)
    assert line["evidence"][0]["removed"]["label"] == "good"
    assert line["filters"][0]["part"] == "short"
    with np.load(io.BytesIO(rendered.masks)) as masks:
        assert masks["evidence_class"].tolist() == [1]
        assert masks["evidence_rank"].shape == (1, 16, 16)


def test_names_cannot_write_into_the_page() -> None:
    nasty = "</script><script>alert(1)</script>"
    line = article(explained(replace(FOUND, label=nasty)), "board")
    assert "<script>alert" not in line


def test_areas_elsewhere_are_as_large_and_do_not_meet_the_evidence() -> None:
    mask = pixel_mask(RANK, 0.1, (64, 64))
    others = list(elsewhere(RANK, mask, (64, 64)))
    assert len(others) == 3
    assert all(other.sum() == mask.sum() and not (other & mask).any() for other in others)


def test_filter_names_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('{"12": "short"}')
    assert found_filter_names(tmp_path / "names.json", "layer", "hash") == {12: "short"}


def test_filter_names_of_a_dissection(tmp_path: Path) -> None:
    manifest: dict[str, object] = {"kind": "dissect", "state": "done", "layer": "layer", "content": "hash", "area": 0.1}
    manifest |= {"versions": {}, "parts": [], "images": 0, "annotated": 0, "summary": {}, "grid": [1, 1]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    rows: list[dict[str, object]] = [{"filter": 3, "name": None, "part": None, "q": None}]
    rows += [{"filter": 5, "name": None, "part": "short"}, {"filter": 7, "name": "mine", "part": "open"}]
    (tmp_path / "filters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert found_filter_names(tmp_path, "layer", "hash") == {5: "short", 7: "mine"}


def test_a_notebook_shows_the_picture_the_sentence_and_what_each_filter_adds() -> None:
    shown = explained()
    page = replace(shown, filters=(replace(FILTERS[0], part="<b>short</b>"), *FILTERS[1:]))._repr_html_()
    assert page.startswith('<img alt="board.png"')
    assert (sentence(shown) or "").split(";")[0] in page
    assert page.count("<tr>") == 1 + len(FILTERS)
    assert "12 · &lt;b&gt;short&lt;/b&gt;" in page
    assert "<td>+4.00</td><td>40% of the support</td>" in page
    assert "<td>-1.00</td><td>50% of what speaks against</td>" in page
    assert "width:96px" in page  # 40 % beside 50 %
    unmeasured = explained(replace(FOUND, kept=None, removed=None, control=None))._repr_html_()
    assert "short (99%): log-odds 4.60, evidence on 4.0% of the picture, which keeps 90% of it" in unmeasured
    assert "<table" not in replace(shown, evidence=())._repr_html_()


def test_a_panel_of_a_given_area_shows_that_of_decisions_too() -> None:
    wide, narrow = explained().plot(0.5).pixels, explained().plot(0.04).pixels
    assert (wide != narrow).any()
    assert (explained().plot(0.5).pixels == wide).all()
