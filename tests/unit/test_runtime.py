"""The runtime's own arithmetic: requests, areas, metadata, streams, retention, what is in an explanation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fsagn_onnx.errors import ExplainerError, FsagnError, ModelError, UsageError
from fsagn_onnx.model import InputSpec
from fsagn_onnx.model.classifier import find_classifier
from fsagn_onnx.model.geometry import Geometry, Window
from fsagn_onnx.model.outputs import Output
from fsagn_onnx.runtime import Failure, Session, Verifier
from fsagn_onnx.runtime.area import LARGEST, LEAST_LEAD, SHARE, AreaWish, retention_at, sufficient_area
from fsagn_onnx.runtime.classes import Classes
from fsagn_onnx.runtime.engine import Pass
from fsagn_onnx.runtime.explanation import locate
from fsagn_onnx.runtime.explanation_builder import not_finite
from fsagn_onnx.runtime.feature_maps import FeatureMaps
from fsagn_onnx.runtime.file_engine import read_metadata
from fsagn_onnx.runtime.filter_request import FilterRequest
from fsagn_onnx.runtime.infill import MASK_FREE, infill
from fsagn_onnx.runtime.masks import pixel_mask
from fsagn_onnx.runtime.metadata import ExplainerMetadata
from fsagn_onnx.runtime.providers import wanted_providers
from fsagn_onnx.runtime.stream import named_images, ordered_map, prepare, reduced
from fsagn_onnx.runtime.trust import Trust
from fsagn_onnx.runtime.variant import check_filters
from fsagn_onnx.runtime.verifier import MEASURED_AREAS, random_masks

SPEC = InputSpec("x", "NCHW", "RGB", (16, 16), 1.0, (0.0,) * 3, (1.0,) * 3, "stretch")
METADATA = ExplainerMetadata(
    format=2, tool="test", content="ab", layer="top", filters=10, encoder="shared", input=SPEC, labels=None,
    areas=(0.1, 0.5), objective="budget", infills=("blur",), training={}, quality={},
)  # fmt: skip


def sum_model() -> onnx.ModelProto:
    """Filter 0 is the sum of the colours, filter 1 is always 0."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0] = 1
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["top"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("top", TensorProto.FLOAT, ["N", 2, 16, 16])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


# Requests


@pytest.mark.parametrize(
    ("asked", "slots"),
    [
        ("top:3", (-1, -1, -1)), ("top:99", (-1,) * 10), ("all", tuple(range(10))), ("3, 7,3", (3, 7)), (4, (4,)),
        ([2, -1, 2, -1], (2, -1, -1)), ([-1] * 9 + [4] + [-1] * 9, (-1,) * 9 + (4,)),
    ],
)  # fmt: skip
def test_filter_slots(asked: str | int | list[int], slots: tuple[int, ...]) -> None:
    assert FilterRequest.parse(asked, METADATA).slots == slots


@pytest.mark.parametrize("asked", ["top:0", "top:x", "best", "3,,4", "", "10", "-4", []])
def test_wrong_filters(asked: str | list[int]) -> None:
    with pytest.raises(UsageError, match="filter"):
        FilterRequest.parse(asked, METADATA)


@pytest.mark.parametrize(
    ("filters", "said"),
    [([[3, -2]], "no filter -2"), ([[10]], "no filter 10"), ([[-1] * 11], "K <= 10"), ([3], r"\(N, K\)")],
)
def test_filters_that_the_graph_would_misread_do_not_reach_it(filters: list[list[int]], said: str) -> None:
    check_filters(np.array([[0, 9, -1]]), METADATA.filters, METADATA.layer)
    with pytest.raises(UsageError, match=said):
        check_filters(np.array(filters), METADATA.filters, METADATA.layer)


def test_ids_are_cut_into_passes_but_slots_to_fill_stay_together() -> None:
    parts = list(FilterRequest(tuple(range(150))).passes(2))
    assert [part.shape for part in parts] == [(2, 64), (2, 64), (2, 22)]
    assert np.concatenate(parts, axis=1).tolist() == [list(range(150))] * 2
    assert [part.shape for part in FilterRequest((*range(100), -1)).passes(1, 64)] == [(1, 101)]


def test_a_request_by_ascending_id() -> None:
    assert FilterRequest.parse("7,3", METADATA).ascending().ids() == (3, 7)
    assert FilterRequest((-1, 7, -1, 3)).ascending().slots == (3, 7, -1, -1)
    with pytest.raises(UsageError, match="'all' or ids"):
        FilterRequest.parse("top:2", METADATA).ids()


def test_the_wish_for_an_area() -> None:
    assert AreaWish.parse("auto") == AreaWish()
    assert AreaWish.parse("0.25") == AreaWish.parse(0.25) == AreaWish(share=0.25)
    assert AreaWish.parse("r:.8") == AreaWish(target=0.8)
    for wrong in ("0", "1.01", "nan", "much", "r:", "r:0", "r:1", "r:much", ""):
        with pytest.raises(UsageError, match="area must be"):
            AreaWish.parse(wrong)


curves = st.lists(st.floats(0, 1), min_size=5, max_size=5).map(sorted)
AREAS = (0.05, 0.1, 0.2, 0.4, 0.8)
RANDOM = (0.01, 0.02, 0.06, 0.2, 0.7)


@given(curves)
def test_the_sufficient_area_leads_a_random_one_by_nearly_the_most(curve: list[float]) -> None:
    area = sufficient_area(AREAS, curve, RANDOM)
    small = [(a, r - chance) for a, r, chance in zip(AREAS, curve, RANDOM, strict=True) if a <= LARGEST]
    most = max(lead for _, lead in small)
    if most < LEAST_LEAD:
        assert area == 0
        return
    places, leads = zip(*small, strict=True)
    assert AREAS[0] <= area <= LARGEST
    assert np.interp(area, places, leads) >= SHARE * most - 1e-6
    assert (np.interp(np.linspace(AREAS[0], area - 1e-3, 20), places, leads) < SHARE * most).all() or area == AREAS[0]


def test_of_a_flat_top_the_sufficient_area_is_the_smallest() -> None:
    assert sufficient_area(AREAS, (0.8, 0.81, 0.85, 0.99, 1), RANDOM) == 0.05
    assert sufficient_area(AREAS, (0.0, 0.5, 0.6, 0.74, 1), RANDOM) == pytest.approx(
        0.05 + 0.05 * (0.8 * 0.54 + 0.01) / 0.49
    )


def test_where_no_small_area_leads_a_random_one_there_is_none() -> None:
    assert sufficient_area(AREAS, RANDOM, RANDOM) == 0
    assert (
        sufficient_area(AREAS, (0.05, 0.06, 0.1, 0.24, 1.0), RANDOM) == 0
    )  # only the largest leads, which is not small
    assert sufficient_area(AREAS, AREAS) == 0  # without a table a random area keeps its own share
    assert sufficient_area((), ()) == 0


@given(curves, st.floats(0.01, 0.99))
def test_a_target_is_reached_or_there_is_no_area(curve: list[float], target: float) -> None:
    area = AreaWish(target=target).found(AREAS, curve, RANDOM)
    if max(curve) < target:
        assert area == 0
        return
    assert np.interp(area, AREAS, curve) >= target - 1e-6
    assert area == AREAS[0] or np.interp(area - 1e-3, AREAS, curve) <= target + 1e-6


@given(curves, st.floats(0.001, 1))
def test_retention_between_the_grid_is_linear(curve: list[float], area: float) -> None:
    assert retention_at(area, AREAS, curve) == pytest.approx(np.interp(area, [0, *AREAS, 1], [0, *curve, 1]), abs=1e-9)


# Metadata


def test_metadata_round_trip_and_every_broken_member_is_named() -> None:
    assert ExplainerMetadata.from_json(METADATA.to_json()) == METADATA
    members = json.loads(METADATA.to_json())
    wrong = {"format": 0, "filters": 0, "encoder": "other", "areas": [0.5, 0.1], "labels": [1], "layer": "", "tool": 3}
    for name, value in wrong.items():
        with pytest.raises(ExplainerError, match=name):
            ExplainerMetadata.from_json(json.dumps(members | {name: value}), "e.onnx")
    with pytest.raises(ExplainerError, match="field 'quality' is missing"):
        ExplainerMetadata.from_json(json.dumps({key: value for key, value in members.items() if key != "quality"}))
    with pytest.raises(ExplainerError, match="unknown field 'more'"):
        ExplainerMetadata.from_json(json.dumps(members | {"more": 1}))
    with pytest.raises(ExplainerError, match="broken JSON"):
        ExplainerMetadata.from_json("{")
    for text in ("{", '{"format": NaN}', "[" * 100_000, '{"filters": ' + "9" * 5000 + "}"):
        with pytest.raises(ExplainerError, match="broken JSON"):
            ExplainerMetadata.from_json(text)
    huge = {"filters": 10**9}, {"variant": {"top": 300_000_000}}, {"variant": {"filters": [0, 10**9]}}
    for change, what in zip(huge, ("'filters' must be", "'variant.top' must be", "variant asks for 2"), strict=True):
        with pytest.raises(ExplainerError, match=what):
            ExplainerMetadata.from_json(json.dumps(members | change))
    with pytest.raises(ExplainerError, match="field 'std'"):
        ExplainerMetadata.from_json(json.dumps(members | {"input": members["input"] | {"std": [0, 0, 0]}}))


def test_metadata_with_what_was_measured_on_left_out_pictures() -> None:
    trust = Trust(
        40, 4, tuple(0.0 for _ in METADATA.areas), 0.09, (0.6, 0.5, 0.7), (0.1, 0.0, 0.2), (0.1, 0, 0.2), "inpaint"
    )
    known = replace(METADATA, trust=trust)
    assert ExplainerMetadata.from_json(known.to_json()) == known
    assert known.random == trust.random
    members = json.loads(known.to_json())
    for change in ({"random": [0.1]}, {"random": [2.0]}, {"error": -1}, {"gain": [0.1]}, {"pictures": 0}, {"more": 1}):
        broken = members | {"trust": members["trust"] | change}
        with pytest.raises(ExplainerError, match=next(iter(change))):
            ExplainerMetadata.from_json(json.dumps(broken))
    silent = json.loads(METADATA.to_json())
    del silent["trust"]
    assert ExplainerMetadata.from_json(json.dumps(silent)).random is None


def test_metadata_of_format_1_is_read_and_says_no_classes() -> None:
    """Before format 2 the content was called ``model_sha256``, and clients decided by themselves what classifies."""
    members = json.loads(METADATA.to_json())
    old = {name: value for name, value in members.items() if name not in ("content", "sha256", "classes")}
    read = ExplainerMetadata.from_json(json.dumps(old | {"format": 1, "model_sha256": "cd"}))
    assert (read.format, read.content, read.sha256, read.classes) == (1, "cd", None, None)
    spec = members["input"] | {"guessed": ["scale"]}
    assert ExplainerMetadata.from_json(json.dumps(old | {"content": "x", "input": spec})).input.guessed == ("scale",)
    with pytest.raises(ExplainerError, match="unknown field 'model_sha256'"):
        ExplainerMetadata.from_json(json.dumps(members | {"model_sha256": "cd", "format": 2}))
    with pytest.raises(ExplainerError, match="is format 3, this fsagn-onnx reads up to 2: upgrade"):
        ExplainerMetadata.from_json(json.dumps(members | {"format": 3, "more": 1}))


def test_read_metadata_of_what_is_no_explainer(tmp_path: Path) -> None:
    onnx.save(sum_model(), tmp_path / "plain.onnx")
    assert read_metadata(tmp_path / "plain.onnx") is None
    with pytest.raises(ExplainerError, match=r"no file .*missing\.onnx"):
        read_metadata(tmp_path / "missing.onnx")


# Streams


def test_ordered_map_keeps_order_and_looks_ahead_no_further_than_asked() -> None:
    drawn: list[int] = []

    def source() -> Iterator[int]:
        for number in range(20):
            drawn.append(number)
            yield number

    results = ordered_map(lambda number: number * number, source(), workers=2, ahead=3)
    assert next(results) == 0
    assert len(drawn) <= 4
    assert list(results) == [number * number for number in range(1, 20)]


def test_ordered_map_ends_its_threads_when_closed() -> None:
    before = threading.active_count()
    results = ordered_map(str, iter(range(1000)), workers=2, ahead=4)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_images_are_named_and_failures_are_values(tmp_path: Path) -> None:
    array = np.zeros((4, 5, 3), np.uint8)
    assert [name for name, _ in named_images([array, array])] == ["image-0", "image-1"]
    assert [name for name, _ in named_images(array)] == ["image-0"]
    with pytest.raises(UsageError, match="but got int"):
        list(named_images([3]))  # type: ignore[list-item]
    failure = prepare(("gone", tmp_path / "gone.png"), SPEC)
    assert isinstance(failure, Failure)
    assert "gone.png" in failure.message
    assert isinstance(prepare(("gray", array[..., 0]), SPEC), Failure)


def test_reduced_keeps_the_form() -> None:
    small = reduced(np.zeros((1000, 10, 3), np.uint8), 100)
    assert small.shape == (100, 1, 3)
    image = np.zeros((3, 4, 3), np.uint8)
    assert reduced(image, 100) is not image


# Sessions, providers, retention


def test_providers() -> None:
    assert wanted_providers("cpu") == ("CPUExecutionProvider",)
    with pytest.raises(UsageError, match="no provider 'nonsense'"):
        wanted_providers("nonsense")


def test_a_session_speaks_in_our_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads must be at least 1"):
        Session(sum_model(), threads=0)
    with pytest.raises(ModelError, match="no such file"):
        Session(tmp_path / "gone.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"bad\.onnx: onnxruntime cannot load it"):
        Session(tmp_path / "bad.onnx")
    with Session(sum_model(), "cpu", 1) as session:
        with pytest.raises(FsagnError, match="onnxruntime failed"):
            session.run(None, {"x": np.zeros((1, 3, 8, 8), np.float32)})
        double = session.run(None, {"x": np.ones((1, 3, 16, 16), np.float64)})["top"]
    assert double[0, 0, 0, 0] == 3
    with pytest.raises(FsagnError, match="closed"):
        session.run(None, {})


def test_measured_retention_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    masks = [rng.random((16, 16)) < share for share in (0.2, 0.5, 0.9)] + [np.ones((16, 16), bool)]
    verifier = Verifier(sum_model(), "top", SPEC, infill_kind="mean", providers="cpu", batch_size=3)
    measured = verifier.measure(pixels, masks, [0, 0, 0, 0])
    whole = pixels.astype(np.float64).sum(axis=2)
    for mask, r in zip(masks, measured, strict=True):
        masked = np.where(mask[..., None], pixels, np.rint(pixels.mean(axis=(0, 1)))).astype(np.float64).sum(axis=2)
        assert r == pytest.approx(1 - min(1, np.linalg.norm(masked - whole) / np.linalg.norm(whole)), abs=1e-5)
    assert measured[-1] == 1
    assert np.isnan(verifier.measure(pixels, masks[:1], [1])[0])
    rank = np.arange(1, 257, dtype=np.float32).reshape(16, 16) / 256
    curves = verifier.curves(pixels, np.stack([rank, rank.T]), [0, 1])
    own = verifier.measure(pixels, [pixel_mask(rank, area, (16, 16)) for area in MEASURED_AREAS], [0] * 7)
    np.testing.assert_array_equal(curves.own[0], own)
    drawn = random_masks((16, 16), MEASURED_AREAS)
    assert [mask.sum() for mask in drawn[0]] == [round(256 * area) for area in MEASURED_AREAS]
    chance = [verifier.measure(pixels, draw, [0] * 7) for draw in drawn]
    np.testing.assert_allclose(curves.random[0], np.mean(chance, axis=0))
    assert np.isnan(curves.own[1]).all()  # a dead filter
    verifier.close()
    with pytest.raises(ExplainerError, match="no node of 'g' makes it"):
        Verifier(sum_model(), "other", SPEC)


@pytest.mark.parametrize("fixed", [None, 2])
def test_feature_maps_of_any_number_of_images(fixed: int | None) -> None:
    proto = sum_model()
    if fixed:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = fixed
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with FeatureMaps(proto, SPEC, "top", "cpu", 1, batch_size=3) as maps:
        assert maps.batch_size == (fixed or 3)
        made = maps.of_pixels(pixels)
        np.testing.assert_array_equal(made[:, 0], pixels.sum(axis=3, dtype=np.float32))
        np.testing.assert_array_equal(maps.maps(SPEC.normalise(pixels), np.array([1])), made[:, 1:])
        np.testing.assert_array_equal(maps.run(SPEC.normalise(pixels))["top"], made)


def test_feature_maps_that_need_more_than_the_image_are_refused() -> None:
    proto = sum_model()
    proto.graph.node[0].input[1] = "weight"
    proto.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [2, 3, 1, 1]))
    with pytest.raises(ModelError, match=r"needs the inputs x, weight, expected only 'x'"):
        FeatureMaps(proto, SPEC, "top", "cpu", 1)


@pytest.mark.parametrize("kind", [*MASK_FREE, "inpaint"])
@pytest.mark.parametrize("shape", [(40, 56, 3), (9, 5, 1), (1, 1, 3)])
def test_infills_keep_form_and_seed(kind: str, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mask = np.random.default_rng(1).random(shape[:2]) < 0.5
    first, second = (infill(kind, image, mask, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    with pytest.raises(UsageError, match="no infill 'fog'"):
        infill("fog", image, mask, np.random.default_rng(3))


# Answers


def test_not_finite_names_the_outputs_of_the_image() -> None:
    ones = np.ones((2, 1), np.float32)
    rows = {"y": np.array([[0.0], [np.nan]]), "scalar": np.float32(np.nan), "anchors": np.full((1, 4), np.nan)}
    broken = Pass(rows, np.zeros((2, 1), np.int64), ones, ones[:, :, None, None], None)
    alone = [Output(name, "float64", axis, False, False, None, "other", name) for name, axis in
             (("y", 0), ("scalar", None), ("anchors", None))]  # fmt: skip
    classes = Classes(find_classifier(alone, None))
    assert not_finite(broken, 0, classes) == []
    assert not_finite(broken, 1, classes) == ["y"]
    assert not_finite(replace(broken, filter_peaks=ones * np.inf), 0, classes) == ["filter_peaks"]


def test_box_and_centroid_lie_where_the_mask_does() -> None:
    geometry = Geometry.from_windows((32, 64), (16, 16), Window(0, 0, 32, 64), Window(0, 0, 16, 16))
    mask = np.zeros((16, 16), bool)
    mask[4:6, 8:12] = True
    box, centroid = locate(mask, geometry)
    assert box == (32, 8, 48, 12)
    assert centroid == (40.0, 10.0)
    assert locate(np.zeros((16, 16), bool), geometry) == (None, None)


@pytest.mark.parametrize("given", [None, 3, [None], [b"a.png"]])
def test_what_names_no_image_is_one_line(given: object) -> None:
    with pytest.raises(UsageError, match=r"^images must be paths, uint8 arrays .* but got (NoneType|int|bytes)$"):
        list(named_images(given))  # type: ignore[arg-type]
