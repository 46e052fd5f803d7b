"""Pictures of explanations: captions, filters that are not active, styles, and what `repr` says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rich.table import Table

from fsagn_onnx.errors import UsageError
from fsagn_onnx.model.geometry import Geometry, Window
from fsagn_onnx.runtime import Explanation, FilterExplanation, Prediction
from fsagn_onnx.runtime.drawing.overlay import (
    _FIGURES,
    MIN_TILE_WIDTH,
    STYLES,
    draw_filter,
    draw_panel,
    filter_figures,
)
from fsagn_onnx.runtime.drawing.typeface import shorten
from fsagn_onnx.runtime.keeping import keeping
from fsagn_onnx.terminal.explanations import image_lines

RANK = ((np.arange(256, dtype=np.float32) + 1) / 256).reshape(16, 16)
ACTIVE = FilterExplanation(
    3,
    123.45,
    area=0.25,
    retention_predicted=0.26,
    retention_measured=0.75,
    area_rank=RANK,
    curve=((0.1, 0.5), (0.5, 0.9)),
    box=(0, 0, 64, 16),
    centroid=(32.0, 8.0),
)


def explained(*filters: FilterExplanation, fit: str = "stretch") -> Explanation:
    seen = Window(0, 0, 64, 64) if fit == "stretch" else Window(0, 16, 64, 32)
    return Explanation(
        name="shelf/photo.png",
        path=None,
        size=(64, 64),
        geometry=Geometry.from_windows((64, 64), (64, 64), seen, Window(0, 0, 64, 64)),
        predictions=(Prediction(0, "cup", 0.75),),
        filters=filters,
        preview=np.full((64, 64, 3), 200, np.uint8),
    )


@pytest.mark.parametrize("measured", [None, 0.75])
@pytest.mark.parametrize("predicted", [None, 0.26])
def test_no_caption_is_cut_in_a_narrow_tile(predicted: float | None, measured: float | None) -> None:
    known = {"retention_predicted": predicted, "retention_measured": measured, "retention_random": 0.05}
    shown = filter_figures(replace(ACTIVE, **known, prediction_error=0.2, contribution=-2.5, share=0.125))
    captions = [*shown, *filter_figures(replace(ACTIVE, peak=0.0)), *filter_figures(replace(ACTIVE, area=0.0))]
    for caption in [*captions, "bright: what the model sees", "10000 × 10000 pixels"]:
        assert shorten(caption, _FIGURES, MIN_TILE_WIDTH) == caption
    keeps = [caption for caption in captions if caption.startswith("keeps")]
    expected = "keeps 75%, measured" if measured else "keeps 6-46%, predicted" if predicted else None
    assert keeps == ([] if expected is None else [expected])


def test_an_area_in_words() -> None:
    known = replace(ACTIVE, area=0.12, retention_measured=0.41, retention_random=0.05)
    beside = "(a random area of that size: 5.0%)"
    assert keeping(known) == f"keeps 41% of the filter's answer with 12% of the picture {beside}"
    guessed = replace(known, retention_measured=None)
    beside = "(predicted; a random area of that size: 5.0%)"
    for error, kept in ((None, "26%"), (0.1, "26%"), (0.17, "9-43%"), (0.5, "0-76%")):
        said = keeping(replace(guessed, prediction_error=error))
        assert said == f"keeps {kept} of the filter's answer with 12% of the picture {beside}"
    assert keeping(replace(guessed, retention_predicted=None)) == "12% of the picture"
    assert keeping(replace(known, area=0.0)) == "no small area suffices"
    assert keeping(replace(known, peak=0.0)) == "not active in this image"


def test_the_terminal_says_what_was_predicted_and_where_there_is_no_area() -> None:
    guessed = replace(ACTIVE, retention_measured=None, retention_random=0.05)
    *_, table, note = image_lines(explained(guessed, replace(ACTIVE, area=0.0)))
    assert isinstance(table, Table)
    cells = [list(column.cells) for column in table.columns[2:]]
    assert cells == [["25%", "no small area"], ["~26%", "-"], ["5.0%", "-"]]
    assert "predicted" in str(note)


@pytest.mark.parametrize("style", STYLES)
def test_a_filter_without_an_area_has_nothing_bright(style: str) -> None:
    picture = np.full((64, 64, 3), 200, np.uint8)
    for dead in (replace(ACTIVE, peak=0.0), replace(ACTIVE, area=0.0)):
        assert draw_filter(picture, explained(dead), dead, style).max() < 100
    assert draw_filter(picture, explained(ACTIVE), ACTIVE, style)[:12].max() > 150
    assert (picture == 200).all()


def test_the_heat_map_goes_from_red_to_blue_and_leaves_out_what_the_model_did_not_see() -> None:
    picture = np.full((64, 64, 3), 200, np.uint8)
    drawn = draw_filter(picture, explained(ACTIVE), ACTIVE, "heat").astype(int)
    assert drawn[1, 32, 0] > drawn[1, 32, 2] + 60
    assert drawn[60, 32, 2] > drawn[60, 32, 0]
    cropped = draw_filter(picture, explained(ACTIVE, fit="crop"), ACTIVE, "heat")
    assert (np.ptp(cropped[:, :14].reshape(-1, 3), axis=1) == 0).all()
    assert cropped[:, :14].max() < 100


def test_a_panel_has_the_style_that_is_asked_for() -> None:
    one = explained(ACTIVE)
    outlined, heated = one.plot().pixels, one.plot(style="heat").pixels
    assert (outlined == draw_panel(one)).all()
    assert outlined.shape == heated.shape
    assert (outlined != heated).any()
    with pytest.raises(UsageError, match="style must be one of outline, heat, but got 'cold'"):
        one.plot(style="cold")


def test_the_terminal_claims_no_retention_of_a_filter_that_is_not_active() -> None:
    *_, table = image_lines(explained(replace(ACTIVE, peak=0.0), ACTIVE))
    assert isinstance(table, Table)
    assert [list(column.cells) for column in table.columns[2:]] == [["not active", "25%"], ["-", "75%"], ["-", "-"]]


def test_repr_is_one_short_line() -> None:
    one = explained(*(replace(ACTIVE, id=number) for number in range(30)))
    assert repr(one) == (
        "Explanation('shelf/photo.png', 64 x 64 pixels, 'cup' 0.75, filters [0, 1, 2, 3, 4, 5, 6, 7, ...])"
    )
    assert repr(ACTIVE) == "FilterExplanation(3, peak 123, area 0.250, retention 0.75, grid 16 x 16)"
