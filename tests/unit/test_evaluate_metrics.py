"""Every metric against a slow, obvious re-derivation in float64, and by hand on pictures of 2 x 2 pixels."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fsagn_onnx.evaluation.image_masks import ImageMasks, Predicted
from fsagn_onnx.evaluation.metrics.calibration import MIX, Calibration
from fsagn_onnx.evaluation.metrics.insertion_deletion import InsertionDeletion
from fsagn_onnx.evaluation.metrics.interface import Metric, MetricRow
from fsagn_onnx.evaluation.metrics.intervention import InterventionAgreement, dominant, part_changes
from fsagn_onnx.evaluation.metrics.mask_only import MaskOnly
from fsagn_onnx.evaluation.metrics.parts import PEAK, PartMetrics, centroid, hits, top_pixel
from fsagn_onnx.evaluation.metrics.retention import RetentionAUC
from fsagn_onnx.evaluation.metrics.specificity import Specificity, specificity
from fsagn_onnx.evaluation.part_masks import Annotation, fit_mask
from fsagn_onnx.evaluation.probe import Probe, response
from fsagn_onnx.model import InputSpec, load_model
from fsagn_onnx.runtime.feature_maps import retained
from fsagn_onnx.runtime.infill import infill, masked_images
from fsagn_onnx.statistics.bootstrap import bootstrap, bootstrap_mean, bootstrap_ratio, resamples
from fsagn_onnx.statistics.instability import instability
from fsagn_onnx.testing.planted import FILTERS, TAP, planted_picture, write_planted

AREAS = (0.1, 0.3)
INFILLS = ("inpaint", "mean")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted") / "planted.onnx")


@pytest.fixture(scope="module")
def view(planted: Path) -> ImageMasks:
    """A planted picture with three methods: the true patches, the reverse of them, and noise."""
    model = load_model(planted)
    picture, other = planted_picture(3), planted_picture(4)
    ids = np.array(sorted(picture.boxes), dtype=np.int64)
    probe = Probe(model, TAP, threads=1)
    perfect = np.stack([cv2.GaussianBlur(picture.box_mask(k).astype(np.float32), (0, 0), 3) for k in ids])
    noise = np.random.default_rng(0).random((len(ids), 16, 16), dtype=np.float32)
    maps = {"perfect": perfect, "reverse": perfect[::-1], "random": noise, "activation": perfect * 0.5}
    whole = probe.features(picture.image[None], ids)[0]
    parts = {f"part{k}": picture.box_mask(k) for k in ids.tolist()}
    removed = {name: np.where(mask[..., None], np.uint8(128), picture.image) for name, mask in parts.items()}
    areas = (0.1, 0.3, 0.6)
    rank = np.argsort(np.argsort(-perfect.reshape(len(ids), -1), axis=1), axis=1).reshape(perfect.shape) + 1.0
    predicted = Predicted(
        areas,
        np.tile(np.array([0.5, 0.7, 0.9], dtype=np.float32), (len(ids), 1)),
        (rank / rank[0].size).astype(np.float32),
        ("blur", "noise", "other"),
    )
    return ImageMasks(
        probe, Path("picture.png"), picture.image, ids, whole, maps, INFILLS, AREAS, other.image,
        Annotation(parts, removed, True), {"perfect": predicted},
    )  # fmt: skip


class Slow:
    """Metrics once more: one image at a time, loops, float64."""

    def __init__(self, path: Path, view: ImageMasks) -> None:
        proto = onnx.load(path)
        proto.graph.output.append(helper.make_tensor_value_info(TAP, TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        self.view = view

    def maps(self, pixels: Any) -> Any:
        x = ((pixels.astype(np.float64) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)
        return self.session.run([TAP], {"image": x})[0][0].astype(np.float64)

    def blended(self, pixels: Any, mask: Any, kind: str) -> Any:
        behind = infill(kind, pixels, mask, np.random.default_rng(0))
        out = pixels.copy()
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                if not mask[row, column]:
                    out[row, column] = behind[row, column]
        return out

    def mask(self, method: str, place: int, area: float) -> Any:
        """The mask cut anew: grid of 8 pixels, Gaussian of one cell, ranks, bilinear, smallest round(a H W)."""
        single = self.view.saliency[method][place]
        shrinks = single.shape[0] > 8
        cells = cv2.resize(single, (8, 8), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        cells = cv2.GaussianBlur(cells, (0, 0), sigmaX=1.0, borderType=cv2.BORDER_REFLECT)
        order = sorted(range(64), key=lambda cell: (-cells.ravel()[cell], cell))
        ranks = np.zeros(64, dtype=np.float32)
        for rank, cell in enumerate(order, start=1):
            ranks[cell] = rank / 64
        fine = cv2.resize(ranks.reshape(8, 8), (64, 64), interpolation=cv2.INTER_LINEAR).ravel()
        kept = sorted(range(64 * 64), key=lambda pixel: (fine[pixel], pixel))[: round(area * 64 * 64)]
        mask = np.zeros(64 * 64, dtype=bool)
        mask[kept] = True
        return mask.reshape(64, 64)

    @staticmethod
    def r(masked: Any, whole: Any) -> float:
        difference = sum((a - b) ** 2 for a, b in zip(masked.ravel(), whole.ravel(), strict=True)) ** 0.5
        norm = sum(b**2 for b in whole.ravel()) ** 0.5
        return float(1 - min(1, difference / norm))


@pytest.fixture(scope="module")
def slow(planted: Path, view: ImageMasks) -> Slow:
    return Slow(planted, view)


def value(rows: Any, metric: str, method: str, kind: str | None = None) -> float:
    (row,) = [row for row in rows if (row.metric, row.method, row.infill) == (metric, method, kind)]
    return float(row.value.mean)


def computed(metric: Metric, *views: ImageMasks) -> list[MetricRow]:
    for one in views:
        metric.update(metric.measure(one))
    return list(metric.compute())


@pytest.mark.parametrize("kind", INFILLS)
@pytest.mark.parametrize("method", ["perfect", "reverse", "random"])
def test_retention_specificity_insertion(view: ImageMasks, slow: Slow, method: str, kind: str) -> None:
    whole = slow.maps(view.pixels)
    ids = view.ids.tolist()
    own, other, inserted = [], [], []
    for place, k in enumerate(ids):
        y = [(0.0, None), (1.0, 1.0)]
        for area in AREAS:
            made = slow.maps(slow.blended(view.pixels, slow.mask(method, place, area), kind))
            own.append(slow.r(made[k], whole[k]))
            y.append((area, made[k].sum() / whole[k].sum()))
            for elsewhere in range(len(ids)):
                if elsewhere != place:
                    mask = slow.mask(method, elsewhere, area)
                    other.append(slow.r(slow.maps(slow.blended(view.pixels, mask, kind))[k], whole[k]))
        empty = slow.maps(slow.blended(view.pixels, np.zeros((64, 64), dtype=bool), kind))[k].sum() / whole[k].sum()
        points = sorted((a, empty if b is None else b) for a, b in y)
        inserted.append(sum((b1 + b0) / 2 * (a1 - a0) for (a0, b0), (a1, b1) in itertools.pairwise(points)))
    assert value(computed(RetentionAUC(), view), "retention AUC", method, kind) == pytest.approx(np.mean(own), abs=2e-5)
    expected = np.mean(own) - np.mean(other)
    assert value(computed(Specificity(), view), "specificity", method, kind) == pytest.approx(expected, abs=2e-5)
    if kind == INFILLS[0]:
        rows = computed(InsertionDeletion(AREAS), view)
        assert value(rows, "insertion AUC", method, kind) == pytest.approx(np.mean(inserted), abs=2e-5)


def test_deletion_and_control(view: ImageMasks, slow: Slow) -> None:
    whole, there = slow.maps(view.pixels), slow.maps(view.other)
    deleted, applied, shape = [], [], []
    for place, k in enumerate(view.ids.tolist()):
        empty = slow.maps(slow.blended(view.pixels, np.zeros((64, 64), dtype=bool), "inpaint"))[k].sum()
        points = [(0.0, 1.0), (1.0, empty / whole[k].sum())]
        for area in AREAS:
            mask = slow.mask("perfect", place, area)
            made = slow.maps(slow.blended(view.pixels, ~mask, "inpaint"))[k].sum()
            points.append((area, made / whole[k].sum()))
            moved = slow.maps(slow.blended(view.other, mask, "inpaint"))[k]
            applied.append(slow.r(moved, there[k]) if there[k].any() else np.nan)
            shape.append(slow.r(moved, whole[k]))
        points.sort()
        deleted.append(sum((b1 + b0) / 2 * (a1 - a0) for (a0, b0), (a1, b1) in itertools.pairwise(points)))
    rows = computed(InsertionDeletion(AREAS), view)
    assert value(rows, "deletion AUC", "perfect", "inpaint") == pytest.approx(np.mean(deleted), abs=2e-5)
    rows = computed(MaskOnly(), view)
    assert value(rows, "mask shape alone", "perfect", "inpaint") == pytest.approx(np.mean(shape), abs=2e-5)
    if not np.isnan(applied).all():
        expected = np.nanmean(applied)
        assert value(rows, "mask on another image", "perfect", "inpaint") == pytest.approx(expected, abs=2e-5)


def test_calibration(view: ImageMasks, slow: Slow) -> None:
    predicted = view.predicted["perfect"]
    whole = slow.maps(view.pixels)
    errors: dict[str, list[float]] = {kind: [] for kind in ("blur", "noise", "other", "inpaint", MIX)}
    for place, k in enumerate(view.ids.tolist()):
        for column, area in enumerate(predicted.areas):
            fine = predicted.area_rank[place].ravel()
            kept = sorted(range(fine.size), key=lambda pixel, fine=fine: (fine[pixel], pixel))  # type: ignore[misc]
            mask = np.zeros(fine.size, dtype=bool)
            mask[kept[: round(area * fine.size)]] = True
            mask = mask.reshape(64, 64)
            found = {}
            for kind in ("blur", "noise", "inpaint"):
                found[kind] = slow.r(slow.maps(slow.blended(view.pixels, mask, kind))[k], whole[k])
            found["other"] = slow.r(slow.maps(np.where(mask[..., None], view.pixels, view.other))[k], whole[k])
            found[MIX] = (found["blur"] + found["noise"] + found["other"]) / 3
            for kind, r in found.items():
                errors[kind].append(abs(predicted.retention[place, column] - r))
    rows = computed(Calibration(), view)
    for kind, expected in errors.items():
        assert value(rows, "|predicted - measured retention|", "perfect", kind) == pytest.approx(
            np.mean(expected), abs=2e-5
        )


def test_a_two_by_two_picture_by_hand() -> None:
    """A 1 x 1 convolution of weight 1: F is the picture itself, [[3, 4], [0, 0]], norm 5, sum 7."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 2, 2])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 1, 2, 2])
    graph = helper.make_graph([helper.make_node("Conv", ["image", "w"], ["out"])], "tiny", [image], [out], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    class Tiny:
        def __init__(self) -> None:
            self.proto, self.path = proto, "tiny.onnx"
            self.input_spec = InputSpec("image", "NCHW", "GRAY", (2, 2), 1.0, (0.0,), (1.0,), "stretch")

    probe = Probe(Tiny(), "out", threads=1)  # type: ignore[arg-type]
    pixels = np.array([[[3], [4]], [[0], [0]]], dtype=np.uint8)
    whole = probe.features(pixels[None])[0]
    right = np.array([[False, True], [False, False]])
    black = np.zeros_like(pixels)
    maps = probe.masked(pixels, [right, ~right, ~np.zeros((2, 2), dtype=bool)], black, np.array([0]))
    # Kept 4, lost 3: r = 1 - 3/5. Kept 3, lost 4: r = 1 - 4/5. All kept: 1.
    np.testing.assert_allclose(retained(maps, whole)[:, 0], [0.4, 0.2, 1.0], atol=1e-6)
    np.testing.assert_allclose(response(maps)[:, 0] / response(whole)[0], [4 / 7, 3 / 7, 1.0])
    # The mean of the picture is 7/4, rounded to 2.
    np.testing.assert_array_equal(masked_images(pixels, [right], "mean")[0, ..., 0], [[2, 4], [2, 2]])
    assert probe.forwards == 4


def test_specificity_by_hand() -> None:
    # One area; filter 0 keeps .9 under its own mask and .5 under the other's; filter 1 keeps .6 and .8.
    table = np.array([[[0.9, 0.8], [0.5, 0.6]]])
    np.testing.assert_allclose(specificity(table), [[0.4], [-0.2]])
    assert np.isnan(specificity(np.ones((2, 1, 1)))).all()


def test_one_mask_for_all_filters_is_not_specific(view: ImageMasks) -> None:
    same = ImageMasks(view.probe, view.path, view.pixels, view.ids, view.whole,
                {"same": np.repeat(view.saliency["perfect"][:1], len(view.ids), axis=0)}, INFILLS, AREAS)  # fmt: skip
    assert value(computed(Specificity(), same), "specificity", "same", "mean") == pytest.approx(0, abs=1e-6)


def test_retention_rows_by_hand() -> None:
    metric = RetentionAUC(first="generator")
    for bonus in (0.0, 0.1):
        curves = {"generator": 0.6, "activation": 0.4, "random": 0.1, "optimise": 0.7 + bonus}
        metric.update({"blur": {name: [[r, r], [None, None]] for name, r in curves.items()}})
    rows = metric.compute()
    assert value(rows, "retention AUC", "generator", "blur") == pytest.approx(0.6)
    assert value(rows, "lift over random", "generator", "blur") == pytest.approx(0.5)
    assert value(rows, "AUC - activation", "generator", "blur") == pytest.approx(0.2)
    assert value(rows, "AUC - generator", "optimise", "blur") == pytest.approx(0.15)
    assert value(rows, "share of the gain", "generator", "blur") == pytest.approx(0.4 / 0.7)
    np.testing.assert_allclose(metric.curve("optimise", "blur"), [0.75, 0.75])


def test_parts_of_perfect_masks(view: ImageMasks) -> None:
    """On the planted CNN the target of filter k is pattern k, and its mask covers it."""
    changes = part_changes(view)
    assert [dominant(row) for row in changes] == list(range(len(view.ids)))
    parts = PartMetrics()
    rows = computed(parts, view)
    assert value(rows, "pointing game", "perfect") == 1.0
    assert value(rows, "part IoU", "perfect") > 0.6
    assert value(rows, "part IoU > .2", "perfect") == 1.0
    assert value(rows, "detectors", "perfect") == 1.0
    assert value(rows, "part IoU", "reverse") < value(rows, "part IoU", "perfect")
    rows = computed(InterventionAgreement(), view)
    assert value(rows, "intervention agreement", "perfect") == 1.0
    reverse = value(rows, "intervention agreement", "reverse")
    assert reverse == pytest.approx(1 / len(view.ids) if len(view.ids) % 2 else 0.0)


def test_part_iou_and_coverage_again(view: ImageMasks, slow: Slow) -> None:
    masks = list(view.annotation.parts.values()) if view.annotation else []
    ious = []
    for place, part in enumerate(masks):
        mask = slow.mask("random", place, float(part.mean()))
        ious.append((mask & part).sum() / (mask | part).sum())
    assert value(computed(PartMetrics(), view), "part IoU", "random") == pytest.approx(np.mean(ious), abs=1e-5)


def test_removal_changes_again(view: ImageMasks, slow: Slow) -> None:
    whole = slow.maps(view.pixels)
    assert view.annotation is not None
    for column, picture in enumerate(view.annotation.removed.values()):
        made = slow.maps(picture)
        for row, k in enumerate(view.ids.tolist()):
            expected = np.linalg.norm(made[k] - whole[k]) / np.linalg.norm(whole[k])
            assert part_changes(view)[row, column] == pytest.approx(expected, abs=1e-5)


def test_dominance() -> None:
    assert dominant(np.array([0.1, 0.5, 0.25])) == 1
    assert dominant(np.array([0.1, 0.5, 0.26])) is None, "less than twice the second"
    assert dominant(np.array([0.19, 0.0])) is None, "too small a change"
    assert dominant(np.array([0.3])) == 0
    assert dominant(np.array([])) is None
    assert dominant(np.array([np.nan, 0.5])) is None


def test_pointing_by_hand() -> None:
    part = np.zeros((100, 100), dtype=bool)
    part[40:60, 40:60] = True
    assert hits((50, 50), part)
    assert hits((63, 50), part), "4 pixels off, half a cell"
    assert not hits((64, 50), part)
    large = np.zeros((1000, 1000), dtype=bool)
    large[:500] = True
    assert hits((529, 50), large), "30 pixels off, 3 % of 1,000"
    assert not hits((530, 50), large)
    assert top_pixel(np.eye(4)[::-1] * np.array([0, 0, 2, 0]), (4, 4)) == (1, 2)


def test_instability_by_hand() -> None:
    apart = np.array([[0.1, 0.5], [0.3, 0.0], [0.2, 0.7]])
    seen = np.array([[1.0, 1], [1, 0], [1, 1]])
    expected = (np.std([0.1, 0.3, 0.2]) + np.std([0.5, 0.7])) / 2
    assert instability(np.ones((1, 3)), apart, seen)[0] == pytest.approx(expected)
    twice = instability(np.array([[2.0, 1, 0]]), apart, seen)[0]  # the second pair is seen in one image only, twice
    assert twice == pytest.approx((np.std([0.1, 0.1, 0.3]) + 0) / 2)
    assert centroid(part := np.eye(3, dtype=bool)).tolist() == pytest.approx([1 / np.hypot(3, 3)] * 2)
    assert part.any()


def test_instability_over_images(view: ImageMasks) -> None:
    metric = PartMetrics()
    measured = metric.measure(view)
    rows = []
    for _ in range(5):
        metric.update(measured)
        rows = list(metric.compute())
    assert value(rows, "location instability", "perfect") == pytest.approx(0, abs=1e-6), "the same picture five times"
    assert value(rows, "location instability", PEAK) == pytest.approx(0, abs=1e-6)


def test_bootstrap() -> None:
    counts = resamples(7)
    assert (counts.sum(axis=1) == 7).all()
    values = np.array([0.0, 1.0] * 50)
    interval = bootstrap_mean(np.append(values, np.nan))
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)
    ratio = bootstrap_ratio(values * 3, np.ones(100))
    assert ratio.mean == pytest.approx(1.5)
    assert np.isnan(bootstrap_ratio(values, np.zeros(100)).mean)
    assert np.isnan(bootstrap_mean(np.array([np.nan])).mean)


def test_the_interval_of_a_spread_holds_the_spread() -> None:
    places = np.random.default_rng(0).normal(size=6)

    def spread(counts: np.ndarray) -> np.ndarray:
        mean = counts @ places / 6
        return np.sqrt(counts @ places**2 / 6 - mean**2)

    plain, moved = bootstrap(6, spread), bootstrap(6, spread, centred=True)
    assert plain.mean == moved.mean == pytest.approx(places.std())
    assert moved.low > plain.low, "resamples repeat images, so that their spread is smaller"
    assert moved.low < moved.mean < moved.high


def test_a_mask_follows_its_picture_through_the_resize_policy() -> None:
    spec = InputSpec("x", "NCHW", "RGB", (20, 20), 1.0, (0.0,) * 3, (1.0,) * 3, "letterbox:200")
    mask = np.zeros((10, 20), dtype=bool)
    mask[:, :10] = True
    fitted = fit_mask(mask, spec)
    assert fitted[5:15, :10].all()
    assert fitted.sum() == 100, "the gray border is no part"
    assert FILTERS == 8
