"""dissect: metrics against independent sums, the tests' behaviour under the null, resume, workers, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from fsagn_onnx.dissection import Dissection, DissectRequest, DissectRun, dissect
from fsagn_onnx.dissection.groups import group
from fsagn_onnx.dissection.observations import mask_bits, matched_iou, unpack
from fsagn_onnx.dissection.significance import cross_iou, drawn_orders, max_test, q_values
from fsagn_onnx.dissection.untrained import reinitialised, share_reaching
from fsagn_onnx.errors import ExplainerError, FsagnError, ImageError, OutputError, UsageError
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import load_model
from fsagn_onnx.runs.tables import csv_text
from fsagn_onnx.testing.planted import FILTERS, planted_picture, write_planted
from fsagn_onnx.testing.planted_explainer import write_planted_explainer
from fsagn_onnx.testing.planted_set import write_planted_set

PICTURES = 40
SESSION = {"providers": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planted CNN, its explainer, pictures with masks of their patterns."""
    folder = tmp_path_factory.mktemp("planted")
    write_planted(folder / "model.onnx")
    write_planted_explainer(folder / "explainer.onnx")
    return write_planted_set(folder, PICTURES)


def run(planted: Path, out: Path, **asked: object) -> Dissection:
    return dissect(
        planted / "model.onnx", planted / "explainer.onnx", planted / "images", out,
        session=SESSION, **{"parts": planted, **asked},  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def dissection(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Dissection:
    return run(planted, tmp_path_factory.mktemp("run") / "out")


def test_every_planted_filter_gets_its_own_pattern(dissection: Dissection) -> None:
    assert [row.part for row in dissection.filters] == [f"pattern {k}" for k in range(FILTERS)]
    assert all(row.also == () and row.q is not None and row.q <= 0.05 for row in dissection.filters)
    assert dissection.summary["named"] == FILTERS
    assert Dissection.load(dissection.folder) == dissection
    assert "pattern 3" in dissection.atlas()._repr_html_()


def test_union_iou_pointing_and_frequency_are_those_of_a_plain_loop(dissection: Dissection, planted: Path) -> None:
    """An independent re-derivation in float64 from the raw masks and the annotation's pixels."""
    columns = dissection.folder / "columns"
    bits = np.fromfile(columns / "masks", np.uint8).reshape(PICTURES, FILTERS, 8)
    peaks = np.fromfile(columns / "peaks", np.float32).reshape(PICTURES, FILTERS)
    for k in (0, 5):
        row = dissection.filters[k]
        active = peaks[:, k] >= 0.5 * np.quantile(peaks[:, k], 0.99)
        inter = union = 0.0
        per_image = []
        for seed in range(PICTURES):
            picture = planted_picture(seed)
            if k not in picture.boxes:
                continue
            part = picture.box_mask(k).reshape(8, 8, 8, 8).mean(axis=(1, 3))
            part = np.rint(255 * part) / 255
            mask = np.unpackbits(bits[seed, k]).reshape(8, 8) * float(active[seed])
            both = float((mask * part).sum())
            inter, union = inter + both, union + float(mask.sum() + part.sum()) - both
            if active[seed]:
                per_image.append(both / (mask.sum() + part.sum() - both))
        values = row.parts[f"pattern {k}"]
        assert values["iou"] == pytest.approx(inter / union, abs=1e-4)
        assert values["image_iou"] == pytest.approx(np.mean(per_image), abs=1e-4)
        assert row.frequency == pytest.approx(active.mean(), abs=1e-4)
        assert values["pointed"] == 1.0


def test_location_instability_is_that_of_the_table_with_an_interval_over_images(dissection: Dissection) -> None:
    moved = dissection.summary["instability"]
    mean, low, high = moved["difference"]
    assert mean == pytest.approx(moved["mask"] - moved["peak"], abs=1e-4)
    assert low < mean < high


def test_matched_iou_is_that_of_masks_of_the_parts_size() -> None:
    rng = np.random.default_rng(0)
    rank = (np.stack([rng.permutation(143) for _ in range(3)]).reshape(3, 11, 13) + 1).astype(np.float32) / 143
    parts = rng.random((4, 143)).astype(np.float32) * np.array([[0], [0.02], [0.5], [1]], dtype=np.float32)
    parts[0, 5] = 1
    found = matched_iou(rank, parts)
    for k in range(3):
        for n in range(4):
            kept = max(1, round(float(parts[n].sum())))
            mask = rank[k].ravel() * 143 < kept + 0.5
            assert mask.sum() == kept
            inter = float(parts[n][mask].sum())
            assert found[k, n] == pytest.approx(inter / (kept + parts[n].sum() - inter), abs=1e-6)


def test_masks_have_exactly_the_asked_number_of_cells() -> None:
    rng = np.random.default_rng(0)
    rank = (np.stack([rng.permutation(143) for _ in range(3)]).reshape(3, 11, 13) + 1).astype(np.float32) / 143
    for area in (0.001, 0.08, 0.5, 0.99):
        masks = unpack(mask_bits(rank, area), 143)
        assert (masks.sum(axis=1) == max(1, round(area * 143))).all()
        assert (rank.reshape(3, -1)[masks].max() <= rank.reshape(3, -1)[~masks].min()) or area < 0.99


def test_permutation_test_keeps_its_level_and_has_power() -> None:
    rng = np.random.default_rng(1)
    p_null, p_follow = [], []
    for trial in range(60):
        cells = (rng.random((30, 3, 64)) < 0.1).astype(np.float32)
        masks = rng.random((30, 64)) < 0.15
        there = np.ones((30, 3), dtype=bool)
        p_null.append(max_test(cross_iou(masks, cells), there, drawn_orders(30, 199, trial))[2].min())
        masks |= cells[:, 1] > 0
        observed, expected, p = max_test(cross_iou(masks, cells), there, drawn_orders(30, 199, trial))
        p_follow.append(p[1])
        assert observed[1] > expected[1]
    assert np.mean(np.array(p_null) <= 0.05) <= 0.12  # 60 draws at level .05: above .12 once in 100 such runs
    assert np.mean(np.array(p_follow) <= 0.05) == 1
    np.testing.assert_allclose(q_values(np.array([0.01, 0.04, 0.03, 0.5])), [0.04, 0.16 / 3, 0.16 / 3, 0.5])


def test_p_values_count_the_untrained_filters_that_reach_a_value() -> None:
    p = share_reaching(np.array([3.0, 1.0, 2.0]), np.array([[2.0, 4.0], [0.0, np.nan]]))
    np.testing.assert_allclose(p, [[3 / 4, 1 / 4], [1, 1]])


def test_an_untrained_network_is_told_to_mean_nothing(planted: Path, tmp_path: Path) -> None:
    proto = reinitialised(onnx.load(planted / "model.onnx"), 77)
    assert proto is not None
    onnx.save(proto, tmp_path / "untrained.onnx")
    model = load_model(tmp_path / "untrained.onnx")
    engine = engine_for(model, "patterns", "activation", **SESSION)
    found = dissect(model, engine, planted / "images", tmp_path / "out", parts=planted, session=SESSION)
    assert found.summary["named"] == 0


def test_workers_and_resume_change_nothing(dissection: Dissection, planted: Path, tmp_path: Path) -> None:
    two = run(planted, tmp_path / "two", workers=2)
    assert [row.to_dict() for row in two.filters] == [row.to_dict() for row in dissection.filters]

    def start(resume: bool) -> DissectRun:
        from fsagn_onnx.data.annotations import open_annotations

        return DissectRun(
            load_model(planted / "model.onnx"), planted / "explainer.onnx", tmp_path / "killed",
            DissectRequest((str(planted / "images"),), session=SESSION),
            annotations=open_annotations(planted), resume=resume,
        )  # fmt: skip

    with start(resume=False) as broken:
        for number, _ in enumerate(broken.images()):
            if number == 12:
                break
    with (tmp_path / "killed" / "columns" / "masks").open("ab") as column:
        column.write(b"half a row")
    with start(resume=True) as again:
        assert sum(1 for _ in again.images()) >= PICTURES - 16
        resumed = again.finish()
    for name in ("filters.jsonl", "filters.csv", "filters.parquet", "masks.json", "images.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (dissection.folder / name).read_bytes(), name
    assert resumed.filters == dissection.filters


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with numpy 2
def test_tables_open_in_other_tools(dissection: Dissection) -> None:
    import pyarrow.parquet as parquet
    from pycocotools import mask as rle

    table = parquet.read_table(dissection.folder / "filters.parquet").to_pydict()
    assert len(table["filter"]) == FILTERS * FILTERS
    assert sum(table["given"]) == FILTERS
    with (dissection.folder / "filters.csv").open(newline="") as file:
        assert [row["part"] for row in csv.DictReader(file)] == [f"pattern {k}" for k in range(FILTERS)]
    coco = json.loads((dissection.folder / "masks.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        decoded = rle.decode(annotation["segmentation"])
        assert decoded.shape == sizes[annotation["image_id"]]
        assert decoded.sum() == annotation["area"] == 5 * 64  # round(.08 * 64) cells of 8 x 8 pixels
    assert {item["id"] for item in coco["categories"]} >= {item["category_id"] for item in coco["annotations"]}


class Distances:
    """Filters at given distances, all active."""

    def __init__(self, distance: np.ndarray) -> None:
        self.active, self._distance = np.ones(len(distance)), distance

    def distances(self) -> np.ndarray:
        return self._distance


def test_a_few_filters_that_are_like_nothing_else_are_no_groups() -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(0.4, 0.6, (40, 40))
    distance = np.triu(noise, 1) + np.triu(noise, 1).T
    distance[39] = distance[:, 39] = 1.0  # one that is far from all, and forty that are about equally alike
    distance[39, 39] = 0
    found = group(Distances(distance))  # type: ignore[arg-type]
    assert set(found.numbers) == {0}
    assert set(group(Distances(distance), 2).numbers) == {0, 1}, "as many as are asked for"  # type: ignore[arg-type]
    half = distance.copy()
    half[:20, 20:] = half[20:, :20] = 1.0
    assert np.bincount(group(Distances(half)).numbers).tolist()[:2] in ([20, 20], [20, 19])  # type: ignore[arg-type]


def test_without_annotations_filters_are_grouped_and_keep_their_names(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("filter,name\n3,=headlight\n", encoding="utf-8")
    model = load_model(planted / "model.onnx")
    out = tmp_path / "out"
    request = DissectRequest((str(planted / "images"),), session=SESSION, groups=3)
    with DissectRun(model, planted / "explainer.onnx", out, request, names=tmp_path / "names.csv") as first:
        list(first.images())
        found = first.finish()
    assert {row.group for row in found.filters} == {0, 1, 2}
    assert all(row.part is None and row.q is None for row in found.filters)
    assert found.filter(3).name == "=headlight"
    assert "'=headlight" in (out / "filters.csv").read_text()  # no spreadsheet runs it
    with DissectRun(model, planted / "explainer.onnx", out, request, overwrite=True) as second:
        list(second.images())
        assert second.finish().filter(3).name == "=headlight"


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        ({"area": 0.0}, UsageError, "area must be between"),
        ({"filters": "8"}, UsageError, "no filter 8"),
        ({"filters": "best"}, UsageError, "'all' or ids"),
        ({"groups": 9}, UsageError, "groups must be"),
        ({"parts": "nowhere"}, FsagnError, "no such file"),
        ({"labels": "nowhere.csv"}, FsagnError, "cannot be read"),
    ],
)
def test_wrong_requests_are_one_line(
    planted: Path, tmp_path: Path, asked: dict[str, object], kind: type[FsagnError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        run(planted, tmp_path / "out", **asked)
    assert "\n" not in str(caught.value)


def test_other_models_other_folders_and_unreadable_images(planted: Path, tmp_path: Path) -> None:
    demo = Path(__file__).resolve().parents[2] / "models"
    with pytest.raises(ExplainerError, match="another model"):
        dissect(demo / "demo_cnn.onnx", planted / "explainer.onnx", planted / "images", tmp_path / "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.csv").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"not empty|holds no results"):
            run(planted, tmp_path / "mine", overwrite=overwrite)
    assert (tmp_path / "mine" / "thesis.csv").is_file()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="could be looked at; the first one"):
        dissect(
            planted / "model.onnx", planted / "explainer.onnx", tmp_path / "bad.png", tmp_path / "b", session=SESSION
        )


def test_cells_of_a_table_are_harmless_and_empty_ones_stay_empty() -> None:
    cells = ["", None, "door", "=1+1", "@x", "-", 0, -1.5]
    assert csv_text(["head"], [[cell] for cell in cells]).replace('""', "").splitlines()[1:] == [
        *["", "", "door", "'=1+1", "'@x", "'-", "0", "-1.5"]
    ]
